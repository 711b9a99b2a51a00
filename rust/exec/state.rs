//! The state of recurrent ops: last inputs of convolutions, matrices of delta rules.

use super::program::Shapes;
use crate::kernels::ops::delta::CHUNK_TOKENS;
use crate::memory::zeros;

/// The state of all recurrent ops and sequences.
pub struct State {
    shapes: Shapes,
    /// [sequence][position % rows][channel] for each convolution.
    convs: Vec<Vec<f32>>,
    /// [sequence][head][state, keys, updates, decays] for each delta rule.
    deltas: Vec<Vec<f32>>,
    /// For each sequence the number of tokens that are folded into its state.
    bases: Vec<usize>,
}

impl State {
    /// Zeros for `sequences` sequences, None where memory has no room for them.
    pub fn new(shapes: &Shapes, sequences: usize) -> Option<Self> {
        let layer = |floats: Option<usize>| zeros(floats?.checked_mul(sequences)?);
        let mut bases = Vec::new();
        bases.try_reserve_exact(sequences).ok()?;
        bases.resize(sequences, 0);
        Some(Self {
            convs: shapes.convs.iter().map(|conv| layer(conv.floats())).collect::<Option<_>>()?,
            deltas: shapes
                .deltas
                .iter()
                .map(|delta| layer(delta.floats()))
                .collect::<Option<_>>()?,
            bases,
            shapes: shapes.clone(),
        })
    }

    /// The shapes that it was made for.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The first position that can still be taken back; 0 for plans without recurrent ops.
    pub fn base(&self, sequence: usize) -> usize {
        self.bases[sequence]
    }

    /// True if the chunk of tokens before `position` must be folded in first; it then counts as
    /// folded.
    pub fn advance(&mut self, sequence: usize, position: usize) -> bool {
        let any = !self.shapes.convs.is_empty() || !self.shapes.deltas.is_empty();
        let folds =
            any && position.is_multiple_of(CHUNK_TOKENS) && self.bases[sequence] != position;
        if folds {
            self.bases[sequence] = position;
        }
        folds
    }

    /// Forgets what follows the first `length` tokens, which lie past the base or are none.
    pub fn truncate(&mut self, sequence: usize, length: usize) {
        if length == 0 {
            self.bases[sequence] = 0; // the state counts as zero there
        }
    }

    /// Forgets all tokens of all sequences.
    pub fn reset(&mut self) {
        self.bases.fill(0);
    }

    /// The state of one sequence, op by op.
    pub fn pieces(&self, sequence: usize) -> impl Iterator<Item = &[f32]> {
        let sequences = self.bases.len();
        self.convs.iter().chain(&self.deltas).map(move |data| {
            let size = data.len() / sequences;
            &data[sequence * size..(sequence + 1) * size]
        })
    }

    /// As `pieces`, to write.
    pub fn pieces_mut(&mut self, sequence: usize) -> impl Iterator<Item = &mut [f32]> {
        let sequences = self.bases.len();
        self.convs.iter_mut().chain(&mut self.deltas).map(move |data| {
            let size = data.len() / sequences;
            &mut data[sequence * size..(sequence + 1) * size]
        })
    }

    /// Says how many tokens are folded into a sequence's state, which the caller has written.
    pub fn set_base(&mut self, sequence: usize, tokens: usize) {
        self.bases[sequence] = tokens;
    }

    /// Makes sequence `target` a copy of `source`.
    pub fn copy(&mut self, source: usize, target: usize) {
        let sequences = self.bases.len();
        for data in self.convs.iter_mut().chain(&mut self.deltas) {
            let size = data.len() / sequences;
            data.copy_within(source * size..(source + 1) * size, target * size);
        }
        self.bases[target] = self.bases[source];
    }

    /// Writes pointers to the state, for threads that write different channels and heads.
    pub fn write_pointers(&mut self, out: &mut StatePointers) {
        out.convs.clear();
        out.convs.extend(self.convs.iter_mut().map(Vec::as_mut_ptr));
        out.deltas.clear();
        out.deltas.extend(self.deltas.iter_mut().map(Vec::as_mut_ptr));
    }
}

/// The state as raw memory.
#[derive(Default)]
pub struct StatePointers {
    pub convs: Vec<*mut f32>,
    pub deltas: Vec<*mut f32>,
}

//! Recurrent ops: `short_conv` and `delta_rule`, and the state that they keep for each sequence.

use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::cache::zeros;
use super::compile::Slot;
use super::plan::Sharing;
use super::run::{Step, Token};
use crate::kernels::ops::delta::{CHUNK_TOKENS as SPAN, DeltaState, DeltaToken, Place};
use crate::kernels::shape::LANES;

/// Channels that a thread convolves at a time.
const CHANNELS: usize = 16 * LANES;

/// What one convolving layer keeps: the inputs of the last positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    pub channels: usize,
    pub kernel: usize,
}

impl ConvShape {
    /// Positions that are kept: a kernel's, and all that can be taken back.
    fn rows(self) -> usize {
        SPAN + self.kernel
    }

    /// Floats of one sequence, None where they are beyond counting.
    fn floats(self) -> Option<usize> {
        self.rows().checked_mul(self.channels)
    }
}

/// What one layer of the delta rule keeps (`kernels::delta`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaShape {
    pub heads: usize,
    pub key_size: usize,
    pub value_size: usize,
}

impl DeltaShape {
    fn width(self) -> usize {
        self.value_size.next_multiple_of(LANES)
    }

    /// Floats of the state, the keys, the updates and the decays of one head.
    fn parts(self) -> [usize; 4] {
        [self.key_size * self.width(), self.key_size * SPAN, SPAN * self.width(), SPAN]
    }

    /// Floats of one sequence, None where they are beyond counting.
    fn floats(self) -> Option<usize> {
        self.key_size.checked_mul(self.width())?;
        self.parts()
            .iter()
            .try_fold(0usize, |sum, &part| sum.checked_add(part))?
            .checked_mul(self.heads)
    }
}

/// The layers of each kind, in the plan's order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Shapes {
    pub convs: Vec<ConvShape>,
    pub deltas: Vec<DeltaShape>,
}

/// The state of all layers and sequences.
pub struct State {
    shapes: Shapes,
    /// [sequence][position % rows][channel] for each convolving layer.
    convs: Vec<Vec<f32>>,
    /// [sequence][head][state, keys, updates, decays] for each layer of the delta rule.
    deltas: Vec<Vec<f32>>,
    /// For each sequence the position up to which its state is folded.
    bases: Vec<usize>,
}

impl State {
    /// Zeros for so many sequences, None where memory has no room for them.
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

    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The first position that can still be taken back, 0 where the plan has no recurrent op.
    pub fn base(&self, sequence: usize) -> usize {
        self.bases[sequence]
    }

    /// Whether a token at `position` has to fold the span before it first; then it counts as folded.
    pub fn advance(&mut self, sequence: usize, position: usize) -> bool {
        let any = !self.shapes.convs.is_empty() || !self.shapes.deltas.is_empty();
        let folds = any && position.is_multiple_of(SPAN) && self.bases[sequence] != position;
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

    pub fn reset(&mut self) {
        self.bases.fill(0);
    }

    pub fn copy(&mut self, source: usize, target: usize) {
        let sequences = self.bases.len();
        for data in self.convs.iter_mut().chain(&mut self.deltas) {
            let size = data.len() / sequences;
            data.copy_within(source * size..(source + 1) * size, target * size);
        }
        self.bases[target] = self.bases[source];
    }

    /// Where the layers' memory is, for threads that write different channels and heads.
    pub fn write_pointers(&mut self, out: &mut StatePointers) {
        out.convs.clear();
        out.convs.extend(self.convs.iter_mut().map(Vec::as_mut_ptr));
        out.deltas.clear();
        out.deltas.extend(self.deltas.iter_mut().map(Vec::as_mut_ptr));
    }
}

/// Rows that a convolution reads; models have four.
type Taps = SmallVec<[*const f32; 4]>;

/// The state as raw memory.
#[derive(Default)]
pub struct StatePointers {
    convs: Vec<*mut f32>,
    deltas: Vec<*mut f32>,
}

/// A convolution over the last positions: `weights` are [kernel][channels], the oldest first.
pub struct ShortConv {
    pub x: Slot,
    pub out: Slot,
    pub weights: Vec<f32>,
    pub index: usize,
    pub shape: ConvShape,
}

/// The delta rule of all heads of a layer.
pub struct DeltaRule {
    pub q: Slot,
    pub k: Slot,
    pub v: Slot,
    pub decay: Slot,
    pub beta: Slot,
    pub out: Slot,
    pub index: usize,
    pub shape: DeltaShape,
    pub key_heads: usize,
    pub scale: f32,
    pub sharing: Sharing,
}

impl Step<'_> {
    /// Claims channels; each thread takes all tokens in order.
    pub fn short_conv(&self, claims: &AtomicUsize, conv: &ShortConv) {
        loop {
            let start = claims.fetch_add(1, Ordering::Relaxed) * CHANNELS;
            if start >= conv.shape.channels {
                return;
            }
            let count = CHANNELS.min(conv.shape.channels - start);
            for (row, token) in self.tokens.iter().enumerate() {
                self.convolve(conv, row, token, start, count);
            }
        }
    }

    fn convolve(&self, conv: &ShortConv, row: usize, token: &Token, start: usize, count: usize) {
        let ConvShape { channels, kernel } = conv.shape;
        let kept = self.state.convs[conv.index]
            .wrapping_add(token.sequence * conv.shape.rows() * conv.shape.channels);
        let place =
            |position: usize| kept.wrapping_add(position % conv.shape.rows() * channels + start);
        let first = (token.position + 1).saturating_sub(kernel);
        let skipped = kernel - (token.position + 1 - first);
        let rows: Taps =
            (first..=token.position).map(|position| place(position).cast_const()).collect();
        let weights: Taps =
            (skipped..kernel).map(|j| conv.weights[j * channels + start..].as_ptr()).collect();
        let (x, out) = (self.at(conv.x, row), self.at(conv.out, row));
        // SAFETY: these channels of all rows are this thread's; the rows before are stored.
        unsafe {
            std::ptr::copy_nonoverlapping(x.add(start), place(token.position), count);
            (self.kernels.short_conv)(&rows, &weights, out.add(start), count);
        }
    }

    /// Claims heads; each thread takes all tokens in order, span by span.
    pub fn delta_rule(&self, claims: &AtomicUsize, delta: &DeltaRule, scratch: &mut Vec<f32>) {
        loop {
            let head = claims.fetch_add(1, Ordering::Relaxed);
            if head >= delta.shape.heads {
                return;
            }
            let mut start = 0;
            while start < self.tokens.len() {
                let first = self.tokens[start];
                let run = self.tokens[start..]
                    .iter()
                    .take_while(|token| {
                        token.sequence == first.sequence
                            && token.position / SPAN == first.position / SPAN
                    })
                    .count();
                self.delta_run(delta, head, start..start + run, scratch);
                start += run;
            }
        }
    }

    fn delta_run(
        &self,
        delta: &DeltaRule,
        head: usize,
        rows: std::ops::Range<usize>,
        scratch: &mut Vec<f32>,
    ) {
        let DeltaShape { heads, key_size, value_size } = delta.shape;
        let key_head = match delta.sharing {
            Sharing::Runs => head / (heads / delta.key_heads),
            Sharing::Turns => head % delta.key_heads,
        };
        let at = |slot: Slot, row: usize, element: usize| self.at(slot, row).wrapping_add(element);
        let tokens: SmallVec<[DeltaToken; 1]> = rows
            .clone()
            .map(|row| DeltaToken {
                q: at(delta.q, row, key_head * key_size),
                k: at(delta.k, row, key_head * key_size),
                v: at(delta.v, row, head * value_size),
                out: at(delta.out, row, head * value_size),
                // SAFETY: the rows of decays and betas have a float a head.
                decay: unsafe { *at(delta.decay, row, head) },
                // SAFETY: as above.
                beta: unsafe { *at(delta.beta, row, head) },
            })
            .collect();
        let Token { sequence, position, fold, .. } = self.tokens[rows.start];
        let state = self.head_state(delta, sequence, head);
        // SAFETY: the head of this sequence is this thread's, with all that lies before.
        unsafe { (self.kernels.delta_rule)(state, Place { position, fold }, &tokens, scratch) };
    }

    fn head_state(&self, delta: &DeltaRule, sequence: usize, head: usize) -> DeltaState {
        let shape = delta.shape;
        let [state, keys, updates, decays] = shape.parts();
        let size = state + keys + updates + decays;
        let base =
            self.state.deltas[delta.index].wrapping_add((sequence * shape.heads + head) * size);
        DeltaState {
            state: base,
            keys: base.wrapping_add(state),
            updates: base.wrapping_add(state + keys),
            decays: base.wrapping_add(state + keys + updates),
            key_size: shape.key_size,
            value_size: shape.value_size,
            width: shape.width(),
            scale: delta.scale,
        }
    }
}

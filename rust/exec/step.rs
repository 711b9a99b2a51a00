//! One step of the executor: the memory that its threads read and write, and how they divide work.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cache::LayerPointers;
use super::collect::Collector;
use super::program::{Program, Slot};
use super::state::StatePointers;
use super::threads::Barrier;
use crate::kernels::data::Acts;
use crate::kernels::layout::packed::Packed;
use crate::kernels::product::scratch::Scratch;
use crate::kernels::shape::CHUNK;
use crate::kernels::{Kernels, LinearFloats};

/// One new token: its id, its sequence and its place there.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    pub id: u32,
    pub sequence: usize,
    pub position: usize,
    /// True if the recurrent state has a full chunk of tokens to fold in before this one.
    pub fold: bool,
}

/// Working memory of one thread.
#[derive(Default)]
pub struct Workspace {
    pub linear: Scratch,
    pub scores: Vec<f32>,
    pub gathered: Gathered,
}

/// The rows of each expert, and memory to gather them in.
#[derive(Default)]
pub struct Gathered {
    /// Slots (token x used + place in its route), expert by expert.
    pub slots: Vec<usize>,
    /// Where the next slot of each expert goes.
    pub next: Vec<usize>,
    /// Experts with any slots, and where theirs begin in `slots`.
    pub active: Vec<(usize, usize)>,
    /// Gathered rows that are rounded: codes, scales, and sums of codes.
    pub codes: Vec<i8>,
    pub scales: Vec<f32>,
    pub sums: Vec<i32>,
    /// Gathered rows of floats.
    pub floats: Vec<f32>,
    /// Products of gathered rows.
    pub results: Vec<f32>,
}

impl Gathered {
    /// Sorts the slots of all tokens by expert, those of one expert in order.
    pub fn sort(&mut self, experts: usize, total: usize, expert_of: impl Fn(usize) -> usize) {
        let Self { next, active, .. } = self;
        next.clear();
        next.resize(experts + 1, 0);
        for slot in 0..total {
            next[expert_of(slot) + 1] += 1;
        }
        for expert in 0..experts {
            next[expert + 1] += next[expert];
        }
        active.clear();
        for expert in (0..experts).filter(|&expert| next[expert] < next[expert + 1]) {
            active.push((expert, next[expert]));
        }
        self.slots.clear();
        self.slots.resize(total, 0);
        for slot in 0..total {
            let place = &mut self.next[expert_of(slot)];
            self.slots[*place] = slot;
            *place += 1;
        }
    }

    /// The slots of the active expert number `index`.
    pub fn of(&self, index: usize) -> (usize, Range<usize>) {
        let (expert, start) = self.active[index];
        let end = self.active.get(index + 1).map_or(self.slots.len(), |&(_, next)| next);
        (expert, start..end)
    }
}

/// All that a step reads and writes.
pub struct Step<'a> {
    pub program: &'a Program,
    pub kernels: &'static Kernels,
    pub tokens: &'a [Token],
    /// Indices of the tokens whose logits are wanted.
    pub taken: &'a [usize],
    /// True if products with quantized weights round their activations to int8.
    pub int8: bool,
    /// Slot i: rows of `program.slots[i]` floats.
    pub slots: &'a [*mut f32],
    /// Rounded rows: with a scale for each chunk of 32, and with a scale for 256 columns.
    pub acts: [Acts; 2],
    /// Rotary table i: for each token the cosine and sine of each frequency.
    pub turns: &'a [*mut f32],
    pub layers: &'a [LayerPointers],
    pub state: &'a StatePointers,
    /// Tokens that a sequence of the cache can hold.
    pub capacity: usize,
    /// One counter a stage, zero at the start.
    pub claims: &'a [AtomicUsize],
    pub workspaces: &'a [Mutex<Workspace>],
    pub barrier: &'a Barrier,
    /// Adds up squares or products of the inputs of products.
    pub collector: Option<&'a Collector>,
    /// The number of stages to execute.
    pub stages: usize,
}

// SAFETY: threads write disjoint rows or columns within a stage, and a barrier ends each stage.
unsafe impl Sync for Step<'_> {}

impl Step<'_> {
    /// Row `row` of a slot.
    pub fn at(&self, slot: Slot, row: usize) -> *mut f32 {
        self.slots[slot.index].wrapping_add(row * slot.width)
    }

    /// Claims rows a few at a time.
    pub fn each_row(&self, claims: &AtomicUsize, n: usize, mut work: impl FnMut(usize)) {
        let rows_per_claim = n.div_ceil(4 * self.workspaces.len());
        loop {
            let start = claims.fetch_add(rows_per_claim, Ordering::Relaxed);
            if start >= n {
                return;
            }
            for row in start..n.min(start + rows_per_claim) {
                work(row);
            }
        }
    }

    /// The buffer of activations whose scales are for `sharing` chunks, with rows as long as `x`
    /// needs.
    pub fn acts_of(&self, x: Slot, sharing: usize) -> Acts {
        Acts { chunks: x.width.div_ceil(CHUNK), ..self.acts[usize::from(sharing > 1)] }
    }

    /// Claims some of `total` blocks for `n` rows: many at first, as memory is read fastest in long
    /// runs; few at the end, so that no thread is late. Products with more than 4 rows claim at
    /// most 8 blocks, whose sums fit the cache.
    pub fn claim(&self, claims: &AtomicUsize, total: usize, n: usize) -> Option<Range<usize>> {
        let most = if n > 4 { 8 } else { 64 };
        let count = |done: usize| ((total - done) / (3 * self.workspaces.len())).clamp(1, most);
        let next = |done: usize| (done < total).then(|| done + count(done));
        let start = claims.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(start..start + count(start))
    }

    /// The kernel for a matrix that takes its activations as floats.
    pub fn linear_of(&self, weight: &Packed) -> LinearFloats {
        if self.int8 && weight.takes_bf16() {
            self.kernels.linear_bf16
        } else {
            self.kernels.linear_f32
        }
    }
}

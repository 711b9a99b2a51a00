//! One step of the walk: every thread goes through all stages and claims pieces of each.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::cache::LayerPointers;
use super::collect::{Collector, Sums};
use super::compile::{Attend, Linear, Program, Slot, Stage, Work};
use super::experts::Gathered;
use super::recurrent::StatePointers;
use super::row::RowOp;
use super::threads::Barrier;
use crate::kernels::data::Acts;
use crate::kernels::data::Output;
use crate::kernels::layout::packed::Packed;
use crate::kernels::ops::attention::{MOST, Query, TILE};
use crate::kernels::product::scratch::Scratch;
use crate::kernels::shape::CHUNK;
use crate::kernels::{Kernels, LinearFloats};

/// Scores that one thread has at a time, if 4 queries need no more.
const SCORES: usize = 1 << 17;

/// Queries that are attended together.
type Queries = SmallVec<[Query; MOST]>;

/// One new token: its id, its sequence and its place there.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    pub id: u32,
    pub sequence: usize,
    pub position: usize,
    /// Whether the recurrent state has a span to fold before this token.
    pub fold: bool,
}

/// Working memory of one thread.
#[derive(Default)]
pub struct Workspace {
    pub(super) linear: Scratch,
    pub(super) scores: Vec<f32>,
    pub(super) gathered: Gathered,
}

/// All that a step reads and writes.
pub struct Step<'a> {
    pub program: &'a Program,
    pub kernels: &'static Kernels,
    pub tokens: &'a [Token],
    /// The rows whose logits are wanted.
    pub taken: &'a [usize],
    pub int8: bool,
    /// Slot i: rows of `program.slots[i]` floats.
    pub slots: &'a [*mut f32],
    /// Rounded rows: where each chunk has a scale, and where a span shares one.
    pub acts: [Acts; 2],
    /// Table i: rows of cos and sin for each frequency.
    pub turns: &'a [*mut f32],
    pub layers: &'a [LayerPointers],
    pub state: &'a StatePointers,
    /// Tokens that a sequence of the cache can hold.
    pub capacity: usize,
    /// One counter a stage, zero at the start.
    pub claims: &'a [AtomicUsize],
    pub workspaces: &'a [Mutex<Workspace>],
    pub barrier: &'a Barrier,
    /// Who wants to know the inputs of products, if anybody.
    pub collector: Option<&'a Collector>,
}

// SAFETY: threads write disjoint rows or columns within a stage, and a barrier ends each stage.
unsafe impl Sync for Step<'_> {}

impl Step<'_> {
    /// Walks all stages as thread `worker`.
    pub fn walk(&self, worker: usize) {
        let mut workspace = self.workspaces[worker].lock().unwrap_or_else(|e| e.into_inner());
        let stages = self.collector.map_or(self.program.stages.len(), |c| c.walked);
        for (index, stage) in self.program.stages[..stages].iter().enumerate() {
            let n = if stage.taken { self.taken.len() } else { self.tokens.len() };
            if n == 0 || self.idle(stage) {
                continue;
            }
            let claims = &self.claims[index];
            let sums = self.collector.and_then(|collector| collector.stage(index));
            match &stage.work {
                Work::Rows(ops) => self.each_row(claims, n, |row| {
                    for op in ops {
                        self.row(op, row, stage.taken);
                    }
                }),
                Work::Take { x, out } => self.each_row(claims, n, |row| {
                    // SAFETY: both rows are allocated and this thread's.
                    unsafe {
                        let source = self.at(*x, self.taken[row]);
                        std::ptr::copy_nonoverlapping(source, self.at(*out, row), x.width);
                    }
                }),
                Work::Linear { x, jobs } => {
                    if let Some(sums) = sums {
                        self.observe(sums, *x, n, worker);
                    }
                    self.products(claims, *x, jobs, n, &mut workspace.linear)
                }
                Work::Experts(work) => {
                    let sums = sums.map(|sums| (sums, worker));
                    self.experts(claims, work, n, &mut workspace, sums)
                }
                Work::Attend(attend) => self.attend(claims, attend, &mut workspace.scores),
                Work::ShortConv(conv) => self.short_conv(claims, conv),
                Work::DeltaRule(delta) => self.delta_rule(claims, delta, &mut workspace.scores),
            }
            if index + 1 < stages {
                self.barrier.wait();
            }
        }
    }

    /// Whether nothing of a stage is to be done: it only rounds, and activations stay f32.
    fn idle(&self, stage: &Stage) -> bool {
        let Work::Rows(ops) = &stage.work else { return false };
        !self.int8 && ops.iter().all(|op| matches!(op, RowOp::Quantize { .. }))
    }

    pub(super) fn at(&self, slot: Slot, row: usize) -> *mut f32 {
        self.slots[slot.index].wrapping_add(row * slot.width)
    }

    /// Claims rows a few at a time.
    fn each_row(&self, claims: &AtomicUsize, n: usize, mut work: impl FnMut(usize)) {
        let share = n.div_ceil(4 * self.workspaces.len());
        loop {
            let start = claims.fetch_add(share, Ordering::Relaxed);
            if start >= n {
                return;
            }
            for row in start..n.min(start + share) {
                work(row);
            }
        }
    }

    /// Tells the collector what a stage of products takes in.
    fn observe(&self, sums: &Sums, x: Slot, n: usize, worker: usize) {
        let rows = (0..n).map(|row| self.at(x, row).cast_const());
        // SAFETY: slots hold a row for each token, and this stage only reads its input.
        unsafe { sums.add(0, rows, worker, self.workspaces.len()) };
    }

    /// The buffer of activations rounded so that `sharing` chunks share a scale, with rows as long as `x`
    /// needs.
    pub(super) fn acts_of(&self, x: Slot, sharing: usize) -> Acts {
        Acts { chunks: x.width.div_ceil(CHUNK), ..self.acts[usize::from(sharing > 1)] }
    }

    /// Claims a share of what is left of `total`: large while there is much, as memory that is read in
    /// one run is read faster, and small at the end, where a thread may be late. With many rows, few
    /// blocks: their sums are to stay in a cache.
    fn claim(&self, claims: &AtomicUsize, total: usize, n: usize) -> Option<Range<usize>> {
        let most = if n > 4 { 8 } else { 64 };
        let share = |done: usize| ((total - done) / (3 * self.workspaces.len())).clamp(1, most);
        let next = |done: usize| (done < total).then(|| done + share(done));
        let start = claims.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(start..start + share(start))
    }

    /// Claims blocks of 16 rows of the weights, over all products of the stage.
    fn products(
        &self,
        claims: &AtomicUsize,
        x: Slot,
        jobs: &[Linear],
        n: usize,
        scratch: &mut Scratch,
    ) {
        let total: usize = jobs.iter().map(|job| job.weight.blocks()).sum();
        scratch.forget();
        while let Some(Range { start, end }) = self.claim(claims, total, n) {
            let mut first = 0;
            for job in jobs {
                let blocks = job.weight.blocks();
                let (low, high) = (start.max(first), end.min(first + blocks));
                if low < high {
                    self.product(x, job, low - first..high - first, n, scratch);
                }
                first += blocks;
            }
        }
    }

    fn product(
        &self,
        x: Slot,
        job: &Linear,
        blocks: Range<usize>,
        n: usize,
        scratch: &mut Scratch,
    ) {
        let bias = job.bias.as_ref().map(|bias| bias.as_ptr());
        let out = Output { data: self.slots[job.out.index], stride: job.out.width, bias };
        // SAFETY: shapes were checked when the plan was compiled; blocks are this thread's.
        unsafe {
            if let Some(sharing) = job.weight.sharing().filter(|_| self.int8) {
                let acts = self.acts_of(x, sharing);
                (self.kernels.linear_int8)(&job.weight, blocks, &acts, n, out, scratch);
            } else {
                let x = self.slots[x.index].cast_const();
                (self.linear_of(&job.weight))(&job.weight, blocks, x, n, out, scratch);
            }
        }
    }

    /// The product with a matrix that does not take int8.
    pub(super) fn linear_of(&self, weight: &Packed) -> LinearFloats {
        if self.int8 && weight.takes_bf16() {
            self.kernels.linear_bf16
        } else {
            self.kernels.linear_f32
        }
    }

    /// Claims a few tokens of one key/value head at a time.
    fn attend(&self, claims: &AtomicUsize, attend: &Attend, scores: &mut Vec<f32>) {
        const TOKENS: usize = 8;
        let runs = self.tokens.len().div_ceil(TOKENS);
        loop {
            let task = claims.fetch_add(1, Ordering::Relaxed);
            if task >= runs * attend.kv_heads {
                return;
            }
            // The last tokens see most: they are claimed first.
            let run = runs - 1 - task / attend.kv_heads;
            let end = self.tokens.len().min((run + 1) * TOKENS);
            self.attend_tokens(attend, task % attend.kv_heads, run * TOKENS..end, scores);
        }
    }

    /// Gathers queries of one sequence into tiles.
    fn attend_tokens(
        &self,
        attend: &Attend,
        kv_head: usize,
        tokens: Range<usize>,
        scores: &mut Vec<f32>,
    ) {
        let group = attend.heads / attend.kv_heads;
        let elements = attend.q.width / attend.heads;
        // Fewer queries at a time where rows of scores are long: together they fit a cache.
        let longest = self.tokens[tokens.clone()].iter().map(|token| token.position + 1).max();
        let most = (SCORES / longest.unwrap_or(1)).clamp(TILE, MOST) / TILE * TILE;
        let mut tile = Queries::new();
        for row in tokens.clone() {
            let Token { sequence, position, .. } = self.tokens[row];
            for head in kv_head * group..(kv_head + 1) * group {
                tile.push(Query {
                    q: self.at(attend.q, row).wrapping_add(head * elements),
                    out: self.at(attend.out, row).wrapping_add(head * elements),
                    first: if attend.window == 0 {
                        0
                    } else {
                        (position + 1).saturating_sub(attend.window)
                    },
                    last: position,
                    sink: attend.sinks.as_ref().map_or(f32::NEG_INFINITY, |sinks| sinks[head]),
                });
                if tile.len() == most {
                    self.attend_tile(attend, sequence, kv_head, &mut tile, scores);
                }
            }
            if row + 1 == tokens.end || self.tokens[row + 1].sequence != sequence {
                self.attend_tile(attend, sequence, kv_head, &mut tile, scores);
            }
        }
    }

    fn attend_tile(
        &self,
        attend: &Attend,
        sequence: usize,
        kv_head: usize,
        tile: &mut Queries,
        scores: &mut Vec<f32>,
    ) {
        if !tile.is_empty() {
            let head = self.layers[attend.layer].head(sequence, kv_head, attend.scale);
            // SAFETY: the positions are stored: the stage before appended the step's own.
            unsafe { (self.kernels.attend)(tile, head, scores) };
            tile.clear();
        }
    }
}

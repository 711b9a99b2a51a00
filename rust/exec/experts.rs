//! Products with experts: the rows that go to one expert are gathered and meet its matrix together,
//! and the matrices of the others are not read.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::collect::Sums;
use super::compile::Slot;
use super::run::{Step, Workspace};
use crate::kernels::data::Acts;
use crate::kernels::data::Output;
use crate::kernels::layout::packed::Packed;
use crate::kernels::product::scratch::Scratch;
use crate::kernels::shape::{CHUNK, LANES};

/// One product with each token's experts.
pub struct ExpertJob {
    /// The weight's name in the plan.
    pub name: String,
    pub weights: Vec<Arc<Packed>>,
    /// [expert][row]
    pub bias: Option<Vec<f32>>,
    pub out: Slot,
}

/// Products of the same rows with the same experts: `x` has one row a token, or one a slot.
pub struct Experts {
    pub x: Slot,
    pub route: Slot,
    pub used: usize,
    pub per_slot: bool,
    pub jobs: Vec<ExpertJob>,
}

impl Experts {
    /// The rows of `x` that each product reads: `used` of them in a token's row, or one.
    pub fn rows(&self) -> Slot {
        let parts = if self.per_slot { self.used } else { 1 };
        Slot { width: self.x.width / parts, ..self.x }
    }

    /// Which of those rows a slot (token x used + place in its route) reads.
    fn row_of(&self, slot: usize) -> usize {
        if self.per_slot { slot } else { slot / self.used }
    }
}

/// Which rows go to which expert, and memory for them.
#[derive(Default)]
pub struct Gathered {
    /// Slots (token x used + place in its route), expert by expert.
    slots: Vec<usize>,
    /// Where the next slot of each expert goes.
    next: Vec<usize>,
    /// Experts that have any, and where theirs begin in `slots`.
    active: Vec<(usize, usize)>,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    floats: Vec<f32>,
    results: Vec<f32>,
}

impl Gathered {
    /// Sorts the slots of all tokens by expert, those of one expert in order.
    fn sort(&mut self, experts: usize, total: usize, expert_of: impl Fn(usize) -> usize) {
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
    fn of(&self, index: usize) -> (usize, Range<usize>) {
        let (expert, start) = self.active[index];
        let end = self.active.get(index + 1).map_or(self.slots.len(), |&(_, next)| next);
        (expert, start..end)
    }
}

impl Step<'_> {
    /// Claims a few blocks of 16 rows of one expert at a time.
    pub fn experts(
        &self,
        claims: &AtomicUsize,
        work: &Experts,
        n: usize,
        space: &mut Workspace,
        sums: Option<(&Sums, usize)>,
    ) {
        let Workspace { linear, gathered, .. } = space;
        gathered.sort(work.jobs[0].weights.len(), n * work.used, |slot| {
            let row = self.at(work.route, slot / work.used);
            // SAFETY: a route's row begins with `used` indices of experts.
            unsafe { *row.add(slot % work.used) as usize }
        });
        if let Some((sums, worker)) = sums {
            self.observe_experts(work, gathered, sums, worker);
        }
        let blocks: usize = work.jobs.iter().map(|job| job.weights[0].blocks()).sum();
        let share = (gathered.active.len() * blocks / (8 * self.workspaces.len())).clamp(1, 16);
        let pieces = blocks.div_ceil(share);
        loop {
            let task = claims.fetch_add(1, Ordering::Relaxed);
            if task >= gathered.active.len() * pieces {
                return;
            }
            let start = task % pieces * share;
            let end = blocks.min(start + share);
            let mut first = 0;
            for job in &work.jobs {
                let blocks = job.weights[0].blocks();
                let (low, high) = (start.max(first), end.min(first + blocks));
                if low < high {
                    let range = low - first..high - first;
                    self.expert_product(work, job, task / pieces, range, linear, gathered);
                }
                first += blocks;
            }
        }
    }

    /// Tells the collector which rows each expert takes in.
    fn observe_experts(&self, work: &Experts, gathered: &Gathered, sums: &Sums, worker: usize) {
        let x = work.rows();
        for index in 0..gathered.active.len() {
            let (expert, range) = gathered.of(index);
            let rows = gathered.slots[range]
                .iter()
                .map(|slot| self.at(x, work.row_of(*slot)).cast_const());
            // SAFETY: slots hold a row for each token, and this stage only reads its input.
            unsafe { sums.add(expert, rows, worker, self.workspaces.len()) };
        }
    }

    /// Some blocks of one expert for all of its rows.
    fn expert_product(
        &self,
        work: &Experts,
        job: &ExpertJob,
        active: usize,
        blocks: Range<usize>,
        linear: &mut Scratch,
        gathered: &mut Gathered,
    ) {
        let (expert, range) = gathered.of(active);
        let weight = &job.weights[expert];
        let rows = weight.rows;
        let bias = job.bias.as_ref().map(|bias| bias[expert * rows..].as_ptr());
        let out = self.slots[job.out.index];
        if let [slot] = gathered.slots[range.clone()] {
            let data = out.wrapping_add(slot * rows);
            let out = Output { data, stride: rows, bias };
            self.multiply(work, weight, blocks, &[slot], linear, out, None);
            return;
        }
        let (first, width) = (blocks.start * LANES, blocks.len() * LANES);
        let mut results = std::mem::take(&mut gathered.results);
        results.resize(range.len() * width, 0.0);
        let all = std::mem::take(&mut gathered.slots);
        let slots = &all[range];
        // The kernel counts its columns from the matrix's first row: the pointer stands before.
        let data = results.as_mut_ptr().wrapping_sub(first);
        let output = Output { data, stride: width, bias };
        self.multiply(work, weight, blocks, slots, linear, output, Some(gathered));
        let count = width.min(rows - first);
        for (result, slot) in results.chunks_exact(width).zip(slots) {
            let target = out.wrapping_add(slot * rows + first);
            // SAFETY: these columns of the slot's row are this thread's.
            unsafe { std::ptr::copy_nonoverlapping(result.as_ptr(), target, count) };
        }
        (gathered.results, gathered.slots) = (results, all);
    }

    /// The product of the rows of `slots`, gathered if there is more than one.
    #[allow(clippy::too_many_arguments)] // what a product is, and where it works
    fn multiply(
        &self,
        work: &Experts,
        weight: &Packed,
        blocks: Range<usize>,
        slots: &[usize],
        linear: &mut Scratch,
        out: Output,
        gathered: Option<&mut Gathered>,
    ) {
        let row = |slot: usize| work.row_of(slot);
        let x = work.rows();
        let n = slots.len();
        linear.forget();
        // SAFETY: shapes were checked when the plan was compiled; the blocks are this thread's.
        unsafe {
            if let Some(sharing) = weight.sharing().filter(|_| self.int8) {
                let all = self.acts_of(x, sharing);
                let acts = match gathered {
                    Some(space) => space.acts(&all, slots, row),
                    None => Acts {
                        q: all.codes(row(slots[0])),
                        d: all.scales(row(slots[0])),
                        sums: all.halves(row(slots[0])),
                        ..all
                    },
                };
                (self.kernels.linear_int8)(weight, blocks, &acts, n, out, linear);
            } else {
                let rows = match gathered {
                    Some(space) => space.rows(self.slots[x.index], x.width, slots, row),
                    None => self.at(x, row(slots[0])).cast_const(),
                };
                (self.linear_of(weight))(weight, blocks, rows, n, out, linear);
            }
        }
    }
}

impl Gathered {
    /// Copies the rounded rows of `slots` beside each other.
    ///
    /// # Safety
    ///
    /// `all` holds every `row(slot)`.
    unsafe fn acts(&mut self, all: &Acts, slots: &[usize], row: impl Fn(usize) -> usize) -> Acts {
        let chunks = all.chunks;
        self.codes.resize(slots.len() * chunks * CHUNK, 0);
        self.scales.resize(slots.len() * chunks, 0.0);
        self.sums.resize(slots.len() * 2 * chunks, 0);
        let acts = Acts {
            q: self.codes.as_mut_ptr(),
            d: self.scales.as_mut_ptr(),
            sums: self.sums.as_mut_ptr(),
            ..*all
        };
        for (target, &slot) in slots.iter().enumerate() {
            let source = row(slot);
            // SAFETY: the caller's promise; the target was made as large above.
            unsafe {
                let (q, d, sums) = (all.codes(source), all.scales(source), all.halves(source));
                std::ptr::copy_nonoverlapping(q, acts.codes(target), chunks * CHUNK);
                std::ptr::copy_nonoverlapping(d, acts.scales(target), chunks);
                std::ptr::copy_nonoverlapping(sums, acts.halves(target), 2 * chunks);
            }
        }
        acts
    }

    /// Copies the rows of `slots` beside each other.
    ///
    /// # Safety
    ///
    /// `x` holds every `row(slot)`, of `width` floats each.
    unsafe fn rows(
        &mut self,
        x: *const f32,
        width: usize,
        slots: &[usize],
        row: impl Fn(usize) -> usize,
    ) -> *const f32 {
        self.floats.resize(slots.len() * width, 0.0);
        for (target, &slot) in self.floats.chunks_exact_mut(width).zip(slots) {
            // SAFETY: the caller's promise.
            let source = unsafe { x.add(row(slot) * width) };
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(source, target.as_mut_ptr(), width) };
        }
        self.floats.as_ptr()
    }
}

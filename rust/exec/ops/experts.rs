//! Matrix products with experts: each expert's rows are gathered and multiplied together.
//!
//! The matrices of experts that no token uses are not read.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::exec::collect::Sums;
use crate::exec::program::{ExpertJob, Experts};
use crate::exec::step::{Gathered, Step, Workspace};
use crate::kernels::data::Acts;
use crate::kernels::data::Output;
use crate::kernels::layout::packed::Packed;
use crate::kernels::product::scratch::Scratch;
use crate::kernels::shape::{CHUNK, LANES};

impl Step<'_> {
    /// Computes the products of a stage; threads claim blocks of 16 rows of one expert.
    pub fn experts(
        &self,
        claims: &AtomicUsize,
        work: &Experts,
        n: usize,
        space: &mut Workspace,
        sums: Option<(&Sums, bool, usize)>,
    ) {
        let Workspace { linear, gathered, .. } = space;
        gathered.sort(work.jobs[0].weights.len(), n * work.used, |slot| {
            let row = self.at(work.route, slot / work.used);
            // SAFETY: a route's row begins with `used` indices of experts.
            unsafe { *row.add(slot % work.used) as usize }
        });
        if let Some((sums, taken, worker)) = sums {
            self.observe_experts(work, gathered, sums, taken, worker);
        }
        let blocks: usize = work.jobs.iter().map(|job| job.weights[0].blocks()).sum();
        let blocks_per_claim =
            (gathered.active.len() * blocks / (8 * self.workspaces.len())).clamp(1, 16);
        let pieces = blocks.div_ceil(blocks_per_claim);
        loop {
            let task = claims.fetch_add(1, Ordering::Relaxed);
            if task >= gathered.active.len() * pieces {
                return;
            }
            let start = task % pieces * blocks_per_claim;
            let end = blocks.min(start + blocks_per_claim);
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

    /// Adds each expert's rows to the collector's sums.
    fn observe_experts(
        &self,
        work: &Experts,
        gathered: &Gathered,
        sums: &Sums,
        taken: bool,
        worker: usize,
    ) {
        let x = work.rows();
        for index in 0..gathered.active.len() {
            let (expert, range) = gathered.of(index);
            let rows = gathered.slots[range]
                .iter()
                .filter(|slot| self.is_collected(*slot / work.used, taken))
                .map(|slot| self.at(x, work.row_of(*slot)).cast_const());
            // SAFETY: slots hold a row for each token, and this stage only reads its input.
            unsafe { sums.add(self.kernels, expert, rows, worker, self.workspaces.len()) };
        }
    }

    /// Computes `blocks` of one expert for all of its rows.
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

    /// Multiplies the rows of `slots`, which are gathered if there are several.
    #[allow(clippy::too_many_arguments)] // a product and its memory
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

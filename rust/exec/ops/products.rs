//! Matrix products: threads claim blocks of 16 rows of the weights, over all products of a stage.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;

use crate::exec::collect::Sums;
use crate::exec::program::{Linear, Slot};
use crate::exec::step::Step;
use crate::kernels::data::Output;
use crate::kernels::product::scratch::Scratch;

impl Step<'_> {
    /// Adds the input of a stage of products to the collector's sums.
    pub fn observe(&self, sums: &Sums, x: Slot, n: usize, taken: bool, worker: usize) {
        let rows = (0..n)
            .filter(|&row| self.is_collected(row, taken))
            .map(|row| self.at(x, row).cast_const());
        // SAFETY: slots hold a row for each token, and this stage only reads its input.
        unsafe { sums.add(self.kernels, 0, rows, worker, self.workspaces.len()) };
    }

    /// True if the collector adds the token of row `row`; `taken` if rows are of wanted tokens.
    pub fn is_collected(&self, row: usize, taken: bool) -> bool {
        let token = if taken { self.taken[row] } else { row };
        self.collector.is_some_and(|collector| self.tokens[token].position >= collector.skip)
    }

    /// Computes the products of a stage with `n` rows of `x`.
    pub fn products(
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

    /// Computes `blocks` of one product.
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
}

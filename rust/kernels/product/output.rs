//! Writing results: adding the bias, and keeping sums between stretches.

use crate::kernels::data::{Output, Product, Stretch};
use crate::kernels::isa::floats::Isa;
use crate::kernels::layout::packed::Packed;
use crate::kernels::shape::LANES;

/// Adds the bias and writes the block's 16 results (fewer in the last block) of row `row`.
///
/// # Safety
///
/// As `linear_int8`.
#[inline(always)]
pub unsafe fn finish<I: Isa>(w: &Packed, block: usize, sum: I::F, row: usize, out: Output) {
    // SAFETY: the caller's promise.
    unsafe {
        let first = block * LANES;
        let count = (w.rows - first).min(LANES);
        // `out.data` may address row 0 of a larger matrix although only some rows are allocated.
        let target = out.data.wrapping_add(row * out.stride + first);
        if count == LANES && out.bias.is_none() {
            I::store(target, sum);
            return;
        }
        let mut lanes = [0f32; LANES];
        I::store(lanes.as_mut_ptr(), sum);
        for (lane, value) in lanes.iter().enumerate().take(count) {
            *target.add(lane) = match out.bias {
                Some(bias) => *value + *bias.add(first + lane),
                None => *value,
            };
        }
    }
}

impl Product<'_> {
    /// Keeps the sums of a stretch; at the end of the row, adds the bias and writes the results.
    ///
    /// # Safety
    ///
    /// As `linear_int8`; `at` has room for all rows.
    #[inline(always)]
    pub(super) unsafe fn end_stretch<I: Isa, const T: usize>(
        &self,
        block: usize,
        row: usize,
        at: Stretch,
        sums: &[I::F; T],
    ) {
        for (t, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                if at.end == self.acts.chunks {
                    finish::<I>(self.w, block, sum, row + t, self.out);
                } else {
                    I::store(at.sums.add((row + t) * LANES), sum);
                }
            }
        }
    }
}

//! Activations rounded to int8: each chunk of 32 with its own f32 scale.

use super::isa::{CHUNK, Isa, LANES};

/// Rows of activations rounded to int8; pointers, as threads fill different rows.
#[derive(Clone, Copy)]
pub struct Acts {
    /// [n][32 x chunks] codes within -127..=127, zero past the columns.
    pub q: *mut i8,
    /// [n][chunks] scales.
    pub d: *mut f32,
    /// [n][2 x chunks] sums of the codes of each half chunk.
    pub sums: *mut i32,
    /// Chunks of one row.
    pub chunks: usize,
}

impl Acts {
    /// The codes of row `row`.
    ///
    /// # Safety
    ///
    /// The row must be allocated.
    #[inline(always)]
    pub unsafe fn codes(&self, row: usize) -> *mut i8 {
        // SAFETY: the caller's promise.
        unsafe { self.q.add(row * self.chunks * CHUNK) }
    }

    /// The scales of row `row`.
    ///
    /// # Safety
    ///
    /// The row must be allocated.
    #[inline(always)]
    pub unsafe fn scales(&self, row: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.d.add(row * self.chunks) }
    }

    /// The half chunks' sums of row `row`.
    ///
    /// # Safety
    ///
    /// The row must be allocated.
    #[inline(always)]
    pub unsafe fn halves(&self, row: usize) -> *mut i32 {
        // SAFETY: the caller's promise.
        unsafe { self.sums.add(2 * row * self.chunks) }
    }
}

/// Below this a chunk counts as zero, as 127 / amax would overflow.
const TINY: f32 = f32::from_bits((127 - 100) << 23); // 2^-100

/// Rounds one row of `columns` floats: d = amax / 127, q = nearest(x (127 / amax)).
///
/// # Safety
///
/// `x` holds `columns` floats, row `row` of `acts` is allocated and nobody else's, and the CPU has
/// the instruction set.
#[inline(always)]
pub unsafe fn quantize_row<I: Isa>(x: *const f32, columns: usize, acts: &Acts, row: usize) {
    // SAFETY: the caller's promise; a short last chunk is read from a padded copy.
    unsafe {
        let (q, d, sums) = (acts.codes(row), acts.scales(row), acts.halves(row));
        for chunk in 0..acts.chunks {
            let start = chunk * CHUNK;
            let mut padded = [0f32; CHUNK];
            let source = if start + CHUNK <= columns {
                x.add(start)
            } else {
                let rest = columns - start;
                std::ptr::copy_nonoverlapping(x.add(start), padded.as_mut_ptr(), rest);
                padded.as_ptr()
            };
            let (low, high) = (I::load(source), I::load(source.add(LANES)));
            let amax = I::largest(I::max(I::abs(low), I::abs(high)));
            let live = amax >= TINY;
            let inverse = I::splat(if live { 127.0 / amax } else { 0.0 });
            let (low, high) = (I::round(I::mul(low, inverse)), I::round(I::mul(high, inverse)));
            I::store_i8(q.add(start), low);
            I::store_i8(q.add(start + LANES), high);
            *sums.add(2 * chunk) = I::sum_i(low);
            *sums.add(2 * chunk + 1) = I::sum_i(high);
            *d.add(chunk) = if live { amax / 127.0 } else { 0.0 };
        }
    }
}

//! Activations rounded to int8: each chunk of 32, or eight of them together, with its own f32 scale.

use crate::kernels::isa::floats::{CHUNK, Isa, LANES};

/// Rows of activations rounded to int8; pointers, as threads fill different rows.
#[derive(Clone, Copy)]
pub struct Acts {
    /// [n][32 x chunks] codes within -127..=127, zero past the columns.
    pub q: *mut i8,
    /// [n][chunks] scales; chunks that share one have it each.
    pub d: *mut f32,
    /// [n][2 x chunks] sums of the codes of each half chunk.
    pub sums: *mut i32,
    /// Chunks of one row.
    pub chunks: usize,
    /// Chunks that share a scale: 1, or `SPAN` for weights with whole scales.
    pub sharing: usize,
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

/// Rounds one row of `columns` floats: d = amax / 127, q = nearest(x (127 / amax)), amax the largest
/// magnitude of the chunks that share d.
///
/// # Safety
///
/// `x` holds `columns` floats, row `row` of `acts` is allocated and nobody else's, and the CPU has
/// the instruction set.
#[inline(always)]
pub unsafe fn quantize_row<I: Isa>(x: *const f32, columns: usize, acts: &Acts, row: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let (q, d, sums) = (acts.codes(row), acts.scales(row), acts.halves(row));
        for first in (0..acts.chunks).step_by(acts.sharing) {
            let chunks = first..(first + acts.sharing).min(acts.chunks);
            let mut most = I::splat(0.0);
            for chunk in chunks.clone() {
                let [low, high] = load::<I>(x, columns, chunk);
                most = I::max(most, I::max(I::abs(low), I::abs(high)));
            }
            let amax = I::largest(most);
            let live = amax >= TINY;
            let inverse = I::splat(if live { 127.0 / amax } else { 0.0 });
            for chunk in chunks {
                let [low, high] = load::<I>(x, columns, chunk);
                let (low, high) = (I::round(I::mul(low, inverse)), I::round(I::mul(high, inverse)));
                I::store_i8(q.add(chunk * CHUNK), low);
                I::store_i8(q.add(chunk * CHUNK + LANES), high);
                *sums.add(2 * chunk) = I::sum_i(low);
                *sums.add(2 * chunk + 1) = I::sum_i(high);
                *d.add(chunk) = if live { amax / 127.0 } else { 0.0 };
            }
        }
    }
}

/// The 32 floats of a chunk; a short last one is read from a padded copy.
#[inline(always)]
unsafe fn load<I: Isa>(x: *const f32, columns: usize, chunk: usize) -> [I::F; 2] {
    let start = chunk * CHUNK;
    let mut padded = [0f32; CHUNK];
    // SAFETY: the contract of `quantize_row`.
    unsafe {
        let source = if start + CHUNK <= columns {
            x.add(start)
        } else {
            std::ptr::copy_nonoverlapping(x.add(start), padded.as_mut_ptr(), columns - start);
            padded.as_ptr()
        };
        [I::load(source), I::load(source.add(LANES))]
    }
}

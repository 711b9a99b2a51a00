//! Rounding activations to int8: 32 columns, or 256, share an f32 scale.

use crate::kernels::data::Acts;
use crate::kernels::isa::floats::Isa;
use crate::kernels::shape::{CHUNK, LANES};

/// Columns whose largest magnitude is below this are rounded to zero, because 127 / amax would overflow.
const TINY: f32 = f32::from_bits((127 - 100) << 23); // 2^-100

/// Rounds one row of `columns` floats: d = amax / 127, q = nearest(x (127 / amax)), where amax is the largest
/// magnitude of the chunks that share d.
///
/// # Safety
///
/// `x` holds `columns` floats, row `row` of `acts` is allocated and no other thread uses it, and the CPU
/// has the instruction set.
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

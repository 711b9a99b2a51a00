//! Integer scales of super-blocks, unpacked for products that sum 256 columns as integers.

use crate::formats::{Codes, Scales};
use crate::kernels::data::Span;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::scales::halved;
use crate::kernels::layout::source::Source;
use crate::kernels::shape::{LANES, SPAN};

/// Writes the integer scales of a span of 16 rows as `Bytes::fold_by` takes them, the f16 that they share,
/// and the pairs that the sums of activations are multiplied with.
///
/// # Safety
///
/// `source` holds the span, the format has integer scales, `out` has room, and the CPU has the instruction
/// set.
#[inline(always)]
pub unsafe fn widen_integer_scales<I: Bytes>(codes: &Codes, source: Source, out: Span) {
    // SAFETY: the caller's promise.
    unsafe {
        let d = I::load_f16(source.scales.cast());
        if codes.scales == Scales::Nibbles {
            let dmin = I::load_f16(source.scales.add(2 * LANES).cast());
            I::store(out.shared, d);
            I::store(out.shared.add(LANES), I::mul(dmin, I::splat(-1.0)));
            for chunk in 0..SPAN {
                let at = source.scales.add((4 + 2 * chunk) * LANES);
                let (first, second) = (I::load_u8(at), I::load_u8(at.add(LANES)));
                let low = I::splat_i(15);
                let scales = [I::and_i(first, low), I::and_i(second, low)];
                let mins = [I::shift_right::<4>(first), I::shift_right::<4>(second)];
                write_integer_scales::<I>(out, chunk, scales, mins);
            }
            return;
        }
        I::store(out.shared, I::mul(d, I::splat(halved(codes))));
        for chunk in 0..SPAN {
            let at = source.scales.add((2 + 2 * chunk) * LANES);
            let scales = [I::load_i8(at), I::load_i8(at.add(LANES))];
            write_integer_scales::<I>(out, chunk, scales, offset_pair::<I>(scales, codes.offset));
        }
    }
}

/// -offset times both scales.
///
/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
pub unsafe fn offset_pair<I: Bytes>(scales: [I::I; 2], offset: u8) -> [I::I; 2] {
    // SAFETY: the caller's promise. Small integers are exact as floats.
    unsafe {
        let by = I::splat(-f32::from(offset));
        [I::round(I::mul(I::float(scales[0]), by)), I::round(I::mul(I::float(scales[1]), by))]
    }
}

/// Writes the scales of a chunk's groups, and the pair that their activations' sums are multiplied with.
///
/// # Safety
///
/// `out` has room for the chunk, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn write_integer_scales<I: Bytes>(
    out: Span,
    chunk: usize,
    scales: [I::I; 2],
    pair: [I::I; 2],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = out.scales.add(2 * chunk * LANES).cast();
        I::store_words(at, I::factor(scales[0]));
        I::store_words(at.add(LANES), I::factor(scales[1]));
        let low = I::and_i(pair[0], I::splat_i(0xffff));
        let both = I::add_i(low, I::shift_left::<16>(pair[1]));
        I::store_words(out.mins.add(2 * chunk * LANES).cast(), both);
    }
}

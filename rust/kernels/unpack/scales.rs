//! Packed scales and minima, widened to f32.

use super::integer_scales::widen_integer_scales;
use crate::formats::{Codes, Scales};
use crate::kernels::data::Span;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::floats::Isa;
use crate::kernels::layout::scales::{FLOAT8, groups_of_chunk, halved};
use crate::kernels::layout::source::Source;
use crate::kernels::shape::{CHUNK, LANES, SPAN};

/// The scale and the minimum of one group of an affine format, as f32.
///
/// # Safety
///
/// `source` holds the group, `codes.scales` is `F32` or `Zeros`, the CPU has the instruction set.
#[inline(always)]
pub unsafe fn widen<I: Isa>(codes: &Codes, source: Source, group: usize) -> (I::F, I::F) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = group * LANES;
        let scale = I::load(source.scales.cast::<f32>().add(at));
        if codes.scales == Scales::Zeros {
            (scale, zero_point::<I>(scale, source.mins.add(at)))
        } else {
            (scale, I::splat(0.0))
        }
    }
}

/// Widens the scales and minima of `count` chunks from `first`, a multiple of `SPAN`, on to f32
/// [chunk][group][16]; with `integer_scales`, writes them as integers, see `widen_integer_scales`.
///
/// # Safety
///
/// `source` holds the chunks, `out` has room, groups fit chunks, `codes.scales` is
/// not `Blocks`, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn widen_span<I: Bytes>(
    codes: &Codes,
    source: Source,
    first: usize,
    count: usize,
    integer_scales: bool,
    out: Span,
) {
    let Span { scales, mins, .. } = out;
    let groups = count * groups_of_chunk(codes);
    // SAFETY: the caller's promise.
    unsafe {
        match codes.scales {
            Scales::Bytes | Scales::Signed | Scales::Nibbles => {
                let halves = if codes.scales == Scales::Nibbles { 4 * LANES } else { 2 * LANES };
                let start = first / SPAN * (halves + groups * LANES);
                let here = Source {
                    scales: source.scales.add(start),
                    mins: source.mins.wrapping_add(start),
                };
                if integer_scales {
                    widen_integer_scales::<I>(codes, here, out);
                } else {
                    widen_bytes::<I>(codes, here, groups, out);
                }
            }
            _ => {
                // Groups begin with a chunk or its half, and may be of several chunks.
                let size = codes.group.div_ceil(CHUNK);
                let group = first * groups / count / size;
                for i in 0..groups {
                    let at = (group + if size == 1 { i } else { i / size }) * LANES;
                    let out = i * LANES;
                    widen_group::<I>(codes, source, at, scales.add(out), mins.add(out));
                }
            }
        }
    }
}

/// `groups` groups of the formats whose scales are bytes times an f16.
#[inline(always)]
unsafe fn widen_bytes<I: Isa>(codes: &Codes, source: Source, groups: usize, out: Span) {
    let Span { scales, mins, .. } = out;
    // SAFETY: the contract of `widen_span`.
    unsafe {
        let d = half::<I>(source.scales);
        match codes.scales {
            Scales::Signed => {
                let d = I::mul(d, I::splat(halved(codes)));
                for at in (0..groups * LANES).step_by(LANES) {
                    let byte = I::load_i8(source.scales.add(2 * LANES + at));
                    I::store(scales.add(at), I::mul(d, I::float(byte)));
                }
            }
            Scales::Nibbles => {
                let dmin = negative::<I>(half::<I>(source.scales.add(2 * LANES)));
                for at in (0..groups * LANES).step_by(LANES) {
                    let both = I::load_u8(source.scales.add(4 * LANES + at));
                    let (low, high) = (I::and_i(both, I::splat_i(15)), I::shift_right::<4>(both));
                    I::store(scales.add(at), I::mul(d, I::float(low)));
                    I::store(mins.add(at), I::mul(dmin, I::float(high)));
                }
            }
            _ => {
                let dmin = negative::<I>(half::<I>(source.mins));
                for at in (0..groups * LANES).step_by(LANES) {
                    let scale = I::load_u8(source.scales.add(2 * LANES + at));
                    let min = I::load_u8(source.mins.add(2 * LANES + at));
                    I::store(scales.add(at), I::mul(d, I::float(scale)));
                    I::store(mins.add(at), I::mul(dmin, I::float(min)));
                }
            }
        }
    }
}

/// One group of the formats whose scales stand for themselves.
#[inline(always)]
unsafe fn widen_group<I: Isa>(
    codes: &Codes,
    source: Source,
    at: usize,
    scale: *mut f32,
    min: *mut f32,
) {
    // SAFETY: the contract of `widen_span`.
    unsafe {
        match codes.scales {
            Scales::F32 => I::store(scale, I::load(source.scales.cast::<f32>().add(at))),
            Scales::F16 => {
                I::store(scale, I::load_f16(source.scales.cast::<u16>().add(at)));
                if codes.has_min {
                    I::store(min, I::load_f16(source.mins.cast::<u16>().add(at)));
                }
            }
            Scales::Zeros => {
                let value = I::load(source.scales.cast::<f32>().add(at));
                I::store(scale, value);
                I::store(min, zero_point::<I>(value, source.mins.add(at)));
            }
            Scales::Power => {
                let e = I::load_u8(source.scales.add(at));
                let normal = I::shift_left::<23>(I::add_i(e, I::splat_i(-1)));
                let tiny = I::add_i(I::min_i(e, I::splat_i(1)), I::splat_i(1));
                I::store(scale, I::cast(I::max_i(normal, I::shift_left::<21>(tiny))));
            }
            _ => {
                let bits = I::cast(I::shift_left::<20>(I::load_u8(source.scales.add(at))));
                I::store(scale, I::mul(bits, I::splat(FLOAT8)));
            }
        }
    }
}

/// -(scale * byte).
#[inline(always)]
unsafe fn zero_point<I: Isa>(scale: I::F, bytes: *const u8) -> I::F {
    // SAFETY: 16 bytes are readable.
    unsafe { negative::<I>(I::mul(scale, I::float(I::load_u8(bytes)))) }
}

#[inline(always)]
unsafe fn half<I: Isa>(p: *const u8) -> I::F {
    // SAFETY: 16 halves are readable at p.
    unsafe { I::load_f16(p.cast()) }
}

#[inline(always)]
unsafe fn negative<I: Isa>(x: I::F) -> I::F {
    // SAFETY: the CPU has the instruction set. A product with -1 is exact, the sign of 0 too.
    unsafe { I::mul(x, I::splat(-1.0)) }
}

//! Products of bfloat16 weights with activations that are rounded to bfloat16.
//!
//! An activation is rounded to nearest, ties to even; one that ends below 2^-54 counts as zero. Then
//! `acc = fma(weight, x, acc)` for each column, as with f32 activations. So most instruction sets
//! round and go on as `linear_f32.rs` does.
//!
//! `vdpbf16ps` adds two columns' products, each fused and rounded as an FMA, the higher half of a
//! pair first, but takes subnormal numbers for zero. None occurs: weights (`Packed::takes_bf16`)
//! and activations from 2^-54 up are multiples of 2^-61, their products and all sums multiples of
//! 2^-122, so what is not zero is above 2^-126. (Intel, Instruction Set Reference, VDPBF16PS.)

use std::ops::Range;

use crate::formats::Format;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::packed::Packed;
use crate::kernels::product::activation_tiles::{Kind, Rows};
use crate::kernels::product::floats::{DIRECT, all_rows, few_rows};
use crate::kernels::product::output::{Output, Scratch, grow};

/// The bits of 2^-54, from where on nothing is lost by instructions that know no subnormal numbers.
pub const LEAST: u32 = (127 - 54) << 23;

/// What a thread's rounded rows are of.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Subject {
    x: usize,
    floats: usize,
}

/// Rows `16 b..16 b + 16`, b in `blocks`, of the product with `n` rows of activations at `x`, one every
/// `w.columns` floats.
///
/// # Safety
///
/// As `linear_f32`; `w.takes_bf16()`. `scratch` keeps the rows that it rounded, as in `linear_int8`.
#[inline(always)]
pub unsafe fn linear_bf16<I: Bytes>(
    w: &Packed,
    blocks: Range<usize>,
    x: *const f32,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise; bfloat16 are floats.
    unsafe {
        // One tile waits for memory: FMAs are as fast as pairs there.
        let few = if I::PAIRS { I::TILE_F32 } else { DIRECT };
        if n <= few {
            let x = rounded(std::slice::from_raw_parts(x, n * w.columns), scratch);
            few_rows::<I>(w, Format::BF16, blocks, x, n, out);
            return;
        }
        let kind = if I::PAIRS { Kind::Pairs } else { Kind::Rounded };
        let rows = Rows { x, n, columns: w.columns, kind };
        if I::PAIRS {
            all_rows::<I, true>(w, blocks, rows, out, scratch);
        } else {
            all_rows::<I, false>(w, blocks, rows, out, scratch);
        }
    }
}

/// Rows rounded, which stay in `scratch` for the next product of the same.
#[inline(always)]
fn rounded(x: &[f32], scratch: &mut Scratch) -> *const f32 {
    let subject = Subject { x: x.as_ptr().addr(), floats: x.len() };
    if scratch.rounded_of != Some(subject) {
        scratch.rounded_of = Some(subject);
        grow(&mut scratch.rounded, x.len());
        round_row(x, Kind::Rounded, &mut scratch.rounded);
    }
    scratch.rounded.as_ptr().cast()
}

/// Rounds floats to as many words as their kind takes.
#[inline(always)]
pub(crate) fn round_row(x: &[f32], kind: Kind, out: &mut [u32]) {
    if kind != Kind::Pairs {
        for (bits, x) in out.iter_mut().zip(x) {
            *bits = round(*x);
        }
        return;
    }
    let (twos, rest) = x.as_chunks::<2>();
    for (bits, [first, second]) in out.iter_mut().zip(twos) {
        *bits = round(*first) | round(*second) >> 16;
    }
    if let (Some(bits), [last]) = (out.last_mut(), rest) {
        *bits = round(*last);
    }
}

/// The bits of `x` as the nearest bfloat16, widened; NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        0x7fc0_0000
    } else if nearest & 0x7fff_ffff < LEAST {
        0
    } else {
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even_and_drops_what_is_tiny() {
        let least = f32::from_bits(LEAST);
        let cases = [
            (1.0, 1.0),
            (1.0 + 2f32.powi(-8), 1.0),
            (1.0 + 3.0 * 2f32.powi(-8), 1.0 + 2f32.powi(-6)),
            (-1.0 - 2f32.powi(-8) - 2f32.powi(-20), -1.0 - 2f32.powi(-7)),
            (least, least),
            (least.next_down(), least),
            (-least * 0.99, 0.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ];
        for (x, want) in cases {
            assert_eq!(f32::from_bits(round(x)), want, "{x:e}");
        }
        assert!(f32::from_bits(round(f32::from_bits(0x7fff_ffff))).is_nan());
    }
}

//! Products of bfloat16 weights with activations rounded to bfloat16.
//!
//! An activation is rounded to nearest, ties to even; one that ends below 2^-54 counts as zero. Then
//! `acc = fma(weight, x, acc)` for each column, as with f32 activations. Most instruction sets therefore
//! round and then multiply as `floats.rs` does.
//!
//! `vdpbf16ps` adds the products of two columns, each fused and rounded as an FMA, the higher half of a
//! pair first, but it treats subnormal numbers as zero. None occurs: weights (`Packed::takes_bf16`)
//! and activations from 2^-54 up are multiples of 2^-61, their products and all sums multiples of
//! 2^-122, so every nonzero number is above 2^-126. (Intel, Instruction Set Reference, VDPBF16PS.)

use std::ops::Range;

use super::activation_tiles::Activations;
use super::bf16_rounding::Rounding;
use super::floats::{DIRECT, few_tokens, many_tokens};
use super::scratch::Scratch;
use crate::formats::Format;
use crate::kernels::data::Output;
use crate::kernels::layout::packed::Packed;
use crate::kernels::outlined::Outlined;

/// Multiplies rows `16 b..16 b + 16` of `w`, b in `blocks`, with `n` rows of f32 activations at `x`, one
/// every `w.columns` floats, after rounding these to bfloat16.
///
/// # Safety
///
/// As `linear_f32`; `w.takes_bf16()`. `scratch` keeps the rounded rows, as in `linear_int8`.
#[inline(always)]
pub unsafe fn linear_bf16<I: Outlined>(
    w: &Packed,
    blocks: Range<usize>,
    x: *const f32,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise; bfloat16 are floats.
    unsafe {
        // One tile waits for memory: there FMAs are as fast as pairs.
        let few = if I::PAIRS { I::TILE_F32 } else { DIRECT };
        if n <= few {
            let x = scratch.rounded.rounded(std::slice::from_raw_parts(x, n * w.columns));
            few_tokens::<I>(w, Format::BF16, blocks, x, n, out);
            return;
        }
        let rounding = if I::PAIRS { Rounding::Bf16Pairs } else { Rounding::Bf16 };
        let activations = Activations { x, n, columns: w.columns, rounding };
        if I::PAIRS {
            many_tokens::<I, true>(w, blocks, activations, out, scratch);
        } else {
            many_tokens::<I, false>(w, blocks, activations, out, scratch);
        }
    }
}

//! Products of packed weights with int8 activations.
//!
//! An output is the sum over its row in order, whatever the vector width, the tile or the number
//! of threads. With int8 activations, for each group of columns within each chunk of 32:
//!
//! ```text
//! acc = fma(float(sum (code - offset) a), scale * d, acc)
//! acc = fma(min, d * float(sum a), acc)                     if the format has minima
//! ```
//!
//! With integer scales (`integer_scales.rs`), the products of 256 columns are summed as integers. The
//! bias is added last. Few tokens multiply codes while they are unpacked (`few_tokens.rs`); for many
//! tokens a block is unpacked once (`many_tokens.rs`).

use std::ops::Range;

use super::scratch::Scratch;
use crate::kernels::data::{Acts, Output, Product};
use crate::kernels::layout::packed::Packed;
use crate::kernels::outlined::Outlined;

/// Multiplies rows `16 b..16 b + 16` of `w`, b in `blocks`, with `n` rows of int8 activations.
///
/// # Safety
///
/// The CPU has the instruction set, `w.takes_int8()`, `acts` and `out` hold `n` rows of `w`'s columns
/// and rows, `acts.sharing` is `w.sharing()`, and no other thread writes the same rows of the output.
/// `scratch` keeps the terms of the same `acts` from earlier calls: call `Scratch::forget` when the
/// activations have changed.
#[inline(always)]
pub unsafe fn linear_int8<I: Outlined>(
    w: &Packed,
    blocks: Range<usize>,
    acts: &Acts,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    let Some(codes) = w.codes() else { return };
    let integer_scales = codes.has_integer_scales();
    let product = Product { w, codes, integer_scales, merged: false, acts: *acts, n, out };
    // SAFETY: the caller's promise.
    unsafe {
        if product.has_few_tokens::<I>() {
            product.few_tokens::<I>(blocks, scratch);
        } else {
            product.for_many_tokens::<I>().many_tokens::<I>(blocks, scratch);
        }
    }
}

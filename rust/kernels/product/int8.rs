//! Matrix products: a block of 16 rows of weights against rows of activations.
//!
//! An output is the sum over its row in order, whatever the vector width, the tile or the number
//! of threads. With int8 activations, for each group within each chunk of 32:
//!
//! ```text
//! acc = fma(float(sum (code - offset) a), scale * d, acc)
//! acc = fma(min, d * float(sum a), acc)                     where the format has minima
//! ```
//!
//! Where scales are whole numbers (`whole.rs`), 256 columns are summed up as integers. With f32
//! activations (`linear_f32.rs`), for each column: `acc = fma(weight, x, acc)`. The bias comes last.
//!
//! Codes are unpacked once for a block and all rows of activations (`tiles.rs`); for few rows while
//! they are multiplied (`few.rs`).

use std::ops::Range;

use crate::formats::Codes;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::packed::Packed;
use crate::kernels::ops::activations::Acts;
pub use crate::kernels::product::output::{Output, Scratch};

/// Rows `16 b..16 b + 16`, b in `blocks`, of the product with `n` rows of int8 activations.
///
/// # Safety
///
/// The CPU has the instruction set, `w.takes_int8()`, `acts` and `out` hold `n` rows of `w`'s
/// columns and rows, `acts.sharing` is `w.sharing()`, and no other thread writes the same rows of the output. `scratch` keeps what it
/// worked out of the same `acts` before: `Scratch::forget` is called when they hold other numbers.
#[inline(always)]
pub unsafe fn linear_int8<I: Bytes>(
    w: &Packed,
    blocks: Range<usize>,
    acts: &Acts,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    let Some(codes) = w.codes() else { return };
    let product = Product { w, codes, whole: codes.whole(), merged: false, acts: *acts, n, out };
    // SAFETY: the caller's promise.
    unsafe {
        if product.is_few::<I>() {
            product.few_rows::<I>(blocks, scratch);
        } else {
            product.for_rows::<I>().rows::<I>(blocks, scratch);
        }
    }
}

/// A product with int8 activations.
pub struct Product<'a> {
    pub(crate) w: &'a Packed,
    pub(crate) codes: Codes,
    /// Whether scales are whole numbers, see `whole.rs`, and codes have been multiplied by them.
    pub(crate) whole: bool,
    pub(crate) merged: bool,
    pub(crate) acts: Acts,
    pub(crate) n: usize,
    pub(crate) out: Output,
}

impl Product<'_> {
    /// Bits of a code, at least 4.
    #[inline(always)]
    pub(crate) fn width(&self) -> usize {
        usize::from(self.codes.bits).max(4)
    }
}

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
//! Where scales are whole numbers (`whole.rs`), a span of 256 columns is summed up by itself.
//! and with f32 activations (`linear_f32.rs`), for each column: `acc = fma(weight, x, acc)`. The
//! bias comes last.
//! Codes are unpacked once for a block and all rows of activations (`tiles.rs`); for a single row as
//! they are multiplied.

use std::ops::Range;

use super::activations::Acts;
use super::bytes::Bytes;
use super::isa::{CHUNK, LANES, STEP_BYTES};
use super::memory::prefetch;
use super::output::finish;
pub use super::output::{Output, Scratch};
use super::packed::{Packed, Storage};
use super::scales::SPAN;
use super::shares::Shares;
use super::span::{Span, parts, unpack_step};
use crate::formats::Codes;

/// Calls a method that is generic over BITS, WIDTH and LOOK with those of some codes: planes of
/// BITS bits (0: bytes that were unpacked before), WIDTH bits of a code (4 to 8) and whether the
/// planes hold indices.
macro_rules! for_codes {
    ($self:ident, $i:ident, $method:ident ($($argument:expr),*)) => {
        match ($self.codes.stored_bits(), $self.codes.bits, &$self.w.storage) {
            (_, ..=4, Storage::Words(..)) => $self.$method::<$i, 0, 4, false>($($argument),*),
            (_, 5, Storage::Words(..)) => $self.$method::<$i, 0, 5, false>($($argument),*),
            (_, _, Storage::Words(..)) => $self.$method::<$i, 0, 7, false>($($argument),*),
            (1, 2, _) => $self.$method::<$i, 1, 4, true>($($argument),*),
            (2, 5, _) => $self.$method::<$i, 2, 5, true>($($argument),*),
            (3, 5, _) => $self.$method::<$i, 3, 5, true>($($argument),*),
            (3, 7, _) => $self.$method::<$i, 3, 7, true>($($argument),*),
            (4, 5, _) => $self.$method::<$i, 4, 5, true>($($argument),*),
            (4, 7, _) => $self.$method::<$i, 4, 7, true>($($argument),*),
            (4, 8, _) => $self.$method::<$i, 4, 8, true>($($argument),*),
            (1, ..) => $self.$method::<$i, 1, 4, false>($($argument),*),
            (2, ..) => $self.$method::<$i, 2, 4, false>($($argument),*),
            (3, ..) => $self.$method::<$i, 3, 4, false>($($argument),*),
            (4, ..) => $self.$method::<$i, 4, 4, false>($($argument),*),
            (5, ..) => $self.$method::<$i, 5, 5, false>($($argument),*),
            (6, ..) => $self.$method::<$i, 6, 6, false>($($argument),*),
            (7, ..) => $self.$method::<$i, 7, 7, false>($($argument),*),
            _ => $self.$method::<$i, 8, 8, false>($($argument),*),
        }
    };
}

/// Rows `16 b..16 b + 16`, b in `blocks`, of the product with `n` rows of int8 activations.
///
/// # Safety
///
/// The CPU has the instruction set, `w.takes_int8()`, `acts` and `out` hold `n` rows of `w`'s
/// columns and rows, and no other thread writes the same rows of the output. `scratch` keeps what it
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
        if n == 1 {
            let (span, shares) = (scratch.span(SPAN), product.shares::<I>(1, scratch));
            if product.whole {
                product.one_whole_row::<I>(blocks, span, shares);
            } else {
                for_codes!(product, I, one_row_of(blocks, span, shares));
            }
        } else {
            product.for_rows::<I>().rows::<I>(blocks, scratch);
        }
    }
}

/// A product with int8 activations.
pub struct Product<'a> {
    pub(super) w: &'a Packed,
    pub(super) codes: Codes,
    /// Whether scales are whole numbers, see `whole.rs`, and codes have been multiplied by them.
    pub(super) whole: bool,
    pub(super) merged: bool,
    pub(super) acts: Acts,
    pub(super) n: usize,
    pub(super) out: Output,
}

/// How far ahead of a single row's product its codes are asked for, in bytes.
const AHEAD: usize = 2048;

/// Runs a block for each step of a chunk, its number a constant: shifts by it are then part of
/// the instruction.
macro_rules! each_step {
    ($step:ident => $body:block) => {
        each_step!($step => $body, 0, 1, 2, 3, 4, 5, 6, 7)
    };
    ($step:ident => $body:block, $($number:literal),*) => {
        $({ const $step: usize = $number; $body })*
    };
}

impl Product<'_> {
    #[inline(always)]
    unsafe fn one_row_of<I: Bytes, const BITS: usize, const WIDTH: usize, const LOOK: bool>(
        &self,
        blocks: Range<usize>,
        span: Span,
        shares: Shares,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if parts(&self.codes) == 2 {
                I::one_row::<BITS, WIDTH, LOOK, 2, false>(self, blocks, span, shares);
            } else {
                I::one_row::<BITS, WIDTH, LOOK, 1, false>(self, blocks, span, shares);
            }
        }
    }

    /// One row of activations: codes are multiplied as they are unpacked, a span at a time.
    ///
    /// # Safety
    ///
    /// That of `linear_int8`; `span` holds a span.
    #[inline(always)]
    pub unsafe fn one_row<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
        const WHOLE: bool,
    >(
        &self,
        blocks: Range<usize>,
        span: Span,
        shares: Shares,
    ) {
        for block in blocks {
            // SAFETY: the caller's promise.
            unsafe {
                let sum = self.spans::<I, BITS, WIDTH, LOOK, PARTS, WHOLE>(block, span, shares);
                finish::<I>(self.w, block, sum, 0, self.out);
            }
        }
    }

    #[inline(always)]
    unsafe fn spans<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
        const WHOLE: bool,
    >(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
    ) -> I::F {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let data = self.w.data.as_ptr().add(block * self.w.block_bytes);
            let mut sums = Sums::<I>::none();
            let mut first = 0;
            while first < self.acts.chunks {
                let count = (self.acts.chunks - first).min(SPAN);
                if BITS == 0 {
                    I::unpack_span(self.w, block, first, count, false, span);
                } else {
                    let source = self.w.source(block);
                    I::widen_span(&self.codes, source, first, count, WHOLE, span);
                }
                for chunk in 0..count {
                    let mut here = span.after(chunk, PARTS);
                    if BITS != 0 {
                        here.codes = data.add((first + chunk) * STEP_BYTES * BITS).cast_mut();
                        // Wider codes are read as fast as memory gives them.
                        if BITS < 7 {
                            prefetch(here.codes.wrapping_add(AHEAD), STEP_BYTES * BITS);
                        }
                    }
                    let chunk = first + chunk;
                    sums =
                        self.chunk::<I, BITS, WIDTH, LOOK, PARTS, WHOLE>(here, chunk, shares, sums);
                }
                if WHOLE {
                    sums.row = I::fma(sums.span, I::load(span.shared), sums.row);
                    sums.span = I::splat(0.0);
                }
                first += count;
            }
            sums.row
        }
    }

    /// One chunk of 16 rows of weights.
    #[inline(always)]
    unsafe fn chunk<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
        const WHOLE: bool,
    >(
        &self,
        at: Span,
        chunk: usize,
        shares: Shares,
        mut sums: Sums<I>,
    ) -> Sums<I> {
        // SAFETY: the contract of `linear_int8`; `at` holds the chunk.
        unsafe {
            let acts = self.acts.codes(0).add(chunk * CHUNK).cast_const();
            let (mut dots, mut products) = (I::splat_i(0), I::no_sums());
            each_step!(STEP => {
                let mut q = if BITS == 0 {
                    I::bytes(at.codes.add(STEP * STEP_BYTES))
                } else {
                    unpack_step::<I, BITS>(at.codes, STEP)
                };
                if LOOK {
                    q = I::look_up(q, self.w.levels.as_ptr());
                }
                let room = I::ROOM[WIDTH - 4];
                let steps = if PARTS == 2 { STEP % 4 } else { STEP };
                let part = if PARTS == 2 { STEP / 4 } else { 0 };
                let start = *shares.starts.add(chunk * PARTS + part);
                let before = match steps % room {
                    0 if WHOLE => I::sums_from(start),
                    0 => I::no_sums(),
                    _ => products,
                };
                products = I::accumulate::<WIDTH>(before, q, acts.add(4 * STEP));
                let ends = STEP == 7 || (PARTS == 2 && STEP == 3);
                if ends || (steps + 1) % room == 0 {
                    if WHOLE {
                        let scale = I::round(I::load(at.scales.add(part * LANES)));
                        dots = I::fold_by(dots, products, scale);
                    } else {
                        let before = if steps < room { I::splat_i(start) } else { dots };
                        dots = I::fold(before, products);
                    }
                    if ends {
                        sums = self.scale::<I, PARTS, WHOLE>(at, chunk, part, shares, dots, sums);
                    }
                }
            });
        }
        sums
    }

    /// Adds one part's dot products to the sums; where scales are whole, those of both parts.
    #[inline(always)]
    unsafe fn scale<I: Bytes, const PARTS: usize, const WHOLE: bool>(
        &self,
        at: Span,
        chunk: usize,
        part: usize,
        shares: Shares,
        dots: I::I,
        mut sums: Sums<I>,
    ) -> Sums<I> {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let (dots, d) = (I::float(dots), I::splat(*self.acts.scales(0).add(chunk)));
            if !WHOLE {
                let scale = I::load(at.scales.add(part * LANES));
                sums.row = I::fma(dots, I::mul(scale, d), sums.row);
            } else if part == 1 {
                sums.span = I::fma(dots, d, sums.span);
            }
            if self.codes.has_min {
                let low = I::splat(*shares.lows.add(chunk * PARTS + part));
                sums.row = I::fma(I::load(at.mins.add(part * LANES)), low, sums.row);
            }
        }
        sums
    }
}

/// What a row of activations has come to.
#[derive(Clone, Copy)]
struct Sums<I: Bytes> {
    row: I::F,
    /// Of a span, before its shared scale, where scales are whole.
    span: I::F,
}

impl<I: Bytes> Sums<I> {
    #[inline(always)]
    unsafe fn none() -> Self {
        // SAFETY: the caller's CPU has the instruction set.
        let zero = unsafe { I::splat(0.0) };
        Self { row: zero, span: zero }
    }
}

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
//! and with f32 activations (`linear_f32.rs`), for each column: `acc = fma(weight, x, acc)`. The
//! bias comes last.
//! Codes are unpacked once for a block and all rows of activations; for a single row as they are
//! multiplied.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::activations::Acts;
use super::isa::{CHUNK, Isa, LANES, STEP_BYTES};
use super::output::finish;
pub use super::output::{Output, Scratch};
use super::packed::{Packed, Storage};
use super::scales::SPAN;
use super::span::{Span, parts, unpack_step};
use crate::formats::Codes;

/// Calls a method that is generic over BITS, WIDTH and LOOK with those of some codes: planes of
/// BITS bits (0: bytes that were unpacked before), WIDTH bits of a code (4 to 8) and whether the
/// planes hold indices.
macro_rules! for_codes {
    ($self:ident, $i:ident, $method:ident ($($argument:expr),*)) => {
        match ($self.codes.stored_bits(), $self.codes.bits, &$self.w.storage) {
            (_, ..=4, Storage::Blocks(..)) => $self.$method::<$i, 0, 4, false>($($argument),*),
            (_, 5, Storage::Blocks(..)) => $self.$method::<$i, 0, 5, false>($($argument),*),
            (_, _, Storage::Blocks(..)) => $self.$method::<$i, 0, 7, false>($($argument),*),
            (1, 2, _) => $self.$method::<$i, 1, 4, true>($($argument),*),
            (4, 5, _) => $self.$method::<$i, 4, 5, true>($($argument),*),
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
/// columns and rows, and no other thread writes the same rows of the output.
#[inline(always)]
pub unsafe fn linear_int8<I: Isa>(
    w: &Packed,
    blocks: Range<usize>,
    acts: &Acts,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    let Some(codes) = w.codes() else { return };
    let product = Product { w, codes, acts: *acts, n, out };
    // SAFETY: the caller's promise.
    unsafe {
        if n == 1 {
            let span = scratch.span(SPAN);
            for_codes!(product, I, one_row_of(blocks, span));
        } else {
            product.rows::<I>(blocks, scratch.span(acts.chunks));
        }
    }
}

/// A product with int8 activations.
pub struct Product<'a> {
    w: &'a Packed,
    codes: Codes,
    acts: Acts,
    n: usize,
    out: Output,
}

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
    unsafe fn one_row_of<I: Isa, const BITS: usize, const WIDTH: usize, const LOOK: bool>(
        &self,
        blocks: Range<usize>,
        span: Span,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if parts(&self.codes) == 2 {
                I::one_row::<BITS, WIDTH, LOOK, 2>(self, blocks, span);
            } else {
                I::one_row::<BITS, WIDTH, LOOK, 1>(self, blocks, span);
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
        I: Isa,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
    >(
        &self,
        blocks: Range<usize>,
        span: Span,
    ) {
        for block in blocks {
            // SAFETY: the caller's promise.
            unsafe {
                let sum = self.spans::<I, BITS, WIDTH, LOOK, PARTS>(block, span);
                finish::<I>(self.w, block, sum, 0, self.out);
            }
        }
    }

    #[inline(always)]
    unsafe fn spans<
        I: Isa,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
    >(
        &self,
        block: usize,
        span: Span,
    ) -> I::F {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let data = self.w.data.as_ptr().add(block * self.w.block_bytes);
            let mut sums = [I::splat(0.0)];
            let mut first = 0;
            while first < self.acts.chunks {
                let count = (self.acts.chunks - first).min(SPAN);
                if BITS == 0 {
                    I::unpack_span(self.w, block, first, count, span);
                } else {
                    let source = self.w.source(block);
                    I::widen_span(&self.codes, source, first, count, span);
                }
                for chunk in 0..count {
                    let mut here = span.after(chunk, PARTS);
                    if BITS != 0 {
                        here.codes = data.add((first + chunk) * STEP_BYTES * BITS).cast_mut();
                    }
                    self.chunk::<I, BITS, WIDTH, LOOK, PARTS, 1>(here, first + chunk, 0, &mut sums);
                }
                first += count;
            }
            sums[0]
        }
    }

    /// Several rows of activations: a block is unpacked once.
    #[inline(always)]
    unsafe fn rows<I: Isa>(&self, blocks: Range<usize>, span: Span) {
        for block in blocks {
            // SAFETY: the contract of `linear_int8`.
            unsafe {
                let mut first = 0;
                while first < self.acts.chunks {
                    let count = (self.acts.chunks - first).min(SPAN);
                    let here = span.after(first, parts(&self.codes));
                    I::unpack_span(self.w, block, first, count, here);
                    first += count;
                }
                match self.codes.bits {
                    ..=4 => self.tiles_of::<I, 4>(block, span),
                    5 => self.tiles_of::<I, 5>(block, span),
                    6 => self.tiles_of::<I, 6>(block, span),
                    7 => self.tiles_of::<I, 7>(block, span),
                    _ => self.tiles_of::<I, 8>(block, span),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles_of<I: Isa, const WIDTH: usize>(&self, block: usize, span: Span) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if parts(&self.codes) == 2 {
                I::tiles::<WIDTH, 2>(self, block, span);
            } else {
                I::tiles::<WIDTH, 1>(self, block, span);
            }
        }
    }

    /// All rows of activations against an unpacked block.
    ///
    /// # Safety
    ///
    /// That of `linear_int8`; `span` holds the block.
    #[inline(always)]
    pub unsafe fn tiles<I: Isa, const WIDTH: usize, const PARTS: usize>(
        &self,
        block: usize,
        span: Span,
    ) {
        let mut row = 0;
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            while I::TILE[WIDTH - 4] == 8 && row + 8 <= self.n {
                self.tile::<I, WIDTH, PARTS, 8>(block, span, row);
                row += 8;
            }
            while I::TILE[WIDTH - 4] >= 4 && row + 4 <= self.n {
                self.tile::<I, WIDTH, PARTS, 4>(block, span, row);
                row += 4;
            }
            while row + 2 <= self.n {
                self.tile::<I, WIDTH, PARTS, 2>(block, span, row);
                row += 2;
            }
            if row < self.n {
                self.tile::<I, WIDTH, PARTS, 1>(block, span, row);
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<I: Isa, const WIDTH: usize, const PARTS: usize, const T: usize>(
        &self,
        block: usize,
        span: Span,
        row: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let mut sums = [I::splat(0.0); T];
            for chunk in 0..self.acts.chunks {
                let here = span.after(chunk, PARTS);
                self.chunk::<I, 0, WIDTH, false, PARTS, T>(here, chunk, row, &mut sums);
            }
            for (t, sum) in sums.into_iter().enumerate() {
                finish::<I>(self.w, block, sum, row + t, self.out);
            }
        }
    }

    /// One chunk of 16 rows of weights against T rows of activations from `row` on.
    #[inline(always)]
    unsafe fn chunk<
        I: Isa,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
        const T: usize,
    >(
        &self,
        at: Span,
        chunk: usize,
        row: usize,
        sums: &mut [I::F; T],
    ) {
        // SAFETY: the contract of `linear_int8`; `at` holds the chunk.
        unsafe {
            let mut acts = [std::ptr::null(); T];
            let mut dots = [I::splat_i(0); T];
            let mut products = [I::no_sums(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).add(chunk * CHUNK).cast_const();
            }
            each_step!(STEP => {
                let mut q = if BITS == 0 {
                    I::bytes(at.codes.add(STEP * STEP_BYTES))
                } else {
                    unpack_step::<I, BITS>(at.codes, STEP)
                };
                if LOOK {
                    q = I::look_up(q, self.w.levels.as_ptr());
                }
                for t in 0..T {
                    products[t] = I::accumulate::<WIDTH>(products[t], q, acts[t].add(4 * STEP));
                }
                let room = I::ROOM[WIDTH - 4];
                let steps = if PARTS == 2 { STEP % 4 } else { STEP };
                let ends = STEP == 7 || (PARTS == 2 && STEP == 3);
                if ends || (steps + 1) % room == 0 {
                    let part = if PARTS == 2 { STEP / 4 } else { 0 };
                    for t in 0..T {
                        let before = if steps < room {
                            self.start::<I, WIDTH, PARTS>(row + t, chunk, part)
                        } else {
                            dots[t]
                        };
                        dots[t] = I::fold(before, products[t]);
                        products[t] = I::no_sums();
                    }
                    if ends {
                        self.scale::<I, PARTS, T>(at, chunk, part, row, &dots, sums);
                    }
                }
            });
        }
    }

    /// The sum of the activations of part `part` of a chunk.
    #[inline(always)]
    unsafe fn total<const PARTS: usize>(&self, row: usize, chunk: usize, part: usize) -> i32 {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let halves = self.acts.halves(row).add(2 * chunk);
            if PARTS == 2 { *halves.add(part) } else { *halves + *halves.add(1) }
        }
    }

    /// What the offset of the codes takes from a dot product.
    #[inline(always)]
    unsafe fn start<I: Isa, const WIDTH: usize, const PARTS: usize>(
        &self,
        row: usize,
        chunk: usize,
        part: usize,
    ) -> I::I {
        let center = if WIDTH == 8 { I::CENTER } else { 0 };
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let total = self.total::<PARTS>(row, chunk, part);
            I::splat_i((center - i32::from(self.codes.offset)) * total)
        }
    }

    /// Adds one part's dot products to the sums.
    #[inline(always)]
    unsafe fn scale<I: Isa, const PARTS: usize, const T: usize>(
        &self,
        at: Span,
        chunk: usize,
        part: usize,
        row: usize,
        dots: &[I::I; T],
        sums: &mut [I::F; T],
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let scale = I::load(at.scales.add(part * LANES));
            for t in 0..T {
                let d = I::splat(*self.acts.scales(row + t).add(chunk));
                sums[t] = I::fma(I::float(dots[t]), I::mul(scale, d), sums[t]);
            }
            if self.codes.has_min {
                let min = I::load(at.mins.add(part * LANES));
                for t in 0..T {
                    let total = self.total::<PARTS>(row + t, chunk, part) as f32;
                    let d = *self.acts.scales(row + t).add(chunk);
                    sums[t] = I::fma(min, I::splat(d * total), sums[t]);
                }
            }
        }
    }
}

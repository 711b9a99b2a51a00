//! Few rows of activations: codes are multiplied while they are unpacked, without a way through memory,
//! by up to four rows at a time; a few rows more read a block once again, from the second cache.

#![allow(clippy::needless_range_loop)] // t counts the rows across several arrays

use std::ops::Range;

use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::floats::{CHUNK, LANES, STEP_BYTES};
use crate::kernels::layout::memory::prefetch;
use crate::kernels::layout::packed::Storage;
use crate::kernels::layout::scales::SPAN;
use crate::kernels::product::activation_terms::Shares;
use crate::kernels::product::int8::Product;
use crate::kernels::product::integer_scales::end_whole;
use crate::kernels::product::output::{Scratch, finish};
use crate::kernels::unpack::span::{Span, parts, unpack_step};

/// How far ahead codes are asked for, in bytes; twice that where a code takes 7 or 8 bits.
const AHEAD: usize = 2048;
/// How far ahead scales are asked for, in spans.
const SCALES_AHEAD: usize = 2;

/// Calls `few_of` with BITS, WIDTH and LOOK of some codes: planes of BITS bits (0: bytes that were
/// unpacked before), WIDTH bits of a code (4 to 8) and whether the planes hold indices.
macro_rules! for_codes {
    ($self:ident, $i:ident, $t:ident ($($argument:expr),*)) => {
        match ($self.codes.stored_bits(), $self.codes.bits, &$self.w.storage) {
            (_, ..=4, Storage::Words(..)) => $self.few_of::<$i, 0, 4, false, $t>($($argument),*),
            (_, 5, Storage::Words(..)) => $self.few_of::<$i, 0, 5, false, $t>($($argument),*),
            (_, _, Storage::Words(..)) => $self.few_of::<$i, 0, 7, false, $t>($($argument),*),
            (1, 2, _) => $self.few_of::<$i, 1, 4, true, $t>($($argument),*),
            (2, 5, _) => $self.few_of::<$i, 2, 5, true, $t>($($argument),*),
            (3, 7, _) => $self.few_of::<$i, 3, 7, true, $t>($($argument),*),
            (4, 5, _) => $self.few_of::<$i, 4, 5, true, $t>($($argument),*),
            (4, 7, _) => $self.few_of::<$i, 4, 7, true, $t>($($argument),*),
            (4, 8, _) => $self.few_of::<$i, 4, 8, true, $t>($($argument),*),
            (1, ..) => $self.few_of::<$i, 1, 4, false, $t>($($argument),*),
            (2, ..) => $self.few_of::<$i, 2, 4, false, $t>($($argument),*),
            (3, ..) => $self.few_of::<$i, 3, 4, false, $t>($($argument),*),
            (4, ..) => $self.few_of::<$i, 4, 4, false, $t>($($argument),*),
            (5, ..) => $self.few_of::<$i, 5, 5, false, $t>($($argument),*),
            (6, ..) => $self.few_of::<$i, 6, 6, false, $t>($($argument),*),
            (7, ..) => $self.few_of::<$i, 7, 7, false, $t>($($argument),*),
            _ => $self.few_of::<$i, 8, 8, false, $t>($($argument),*),
        }
    };
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
    /// Whether the rows of activations are so few that it is faster to unpack codes with each product.
    #[inline(always)]
    pub(crate) fn is_few<I: Bytes>(&self) -> bool {
        let passes = I::PASSES[self.width() - 4];
        let passes = if self.whole { passes.min(2) } else { passes };
        // Words are unpacked a span at a time, for one row as for several.
        let words = matches!(self.w.storage, Storage::Words(..));
        self.n == 1 || (!words && self.n <= passes * I::FEW[self.width() - 4])
    }

    /// Few rows of activations: as many at a time as registers hold.
    ///
    /// # Safety
    ///
    /// That of `linear_int8`.
    #[inline(always)]
    pub(crate) unsafe fn few_rows<I: Bytes>(&self, blocks: Range<usize>, scratch: &mut Scratch) {
        let few = I::FEW[self.width() - 4];
        let group = self.n.div_ceil(self.n.div_ceil(few));
        // SAFETY: the caller's promise.
        unsafe {
            let span = scratch.span(SPAN);
            // Generation's case is compiled for itself.
            let shares = match group {
                1 => self.shares::<I>(1, scratch),
                _ => self.shares::<I>(group, scratch),
            };
            if group == self.n {
                return self.few::<I>(blocks, span, shares, 0, group);
            }
            for block in blocks {
                for row in (0..self.n).step_by(group) {
                    let rows = group.min(self.n - row);
                    self.few::<I>(block..block + 1, span, shares, row, rows);
                }
            }
        }
    }

    /// Rows `row..row + rows` of activations.
    #[inline(always)]
    unsafe fn few<I: Bytes>(
        &self,
        blocks: Range<usize>,
        span: Span,
        shares: Shares,
        row: usize,
        rows: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            match rows {
                1 => self.few_by::<I, 1>(blocks, span, shares, row),
                2 => self.few_by::<I, 2>(blocks, span, shares, row),
                3 => self.few_by::<I, 3>(blocks, span, shares, row),
                _ => self.few_by::<I, 4>(blocks, span, shares, row),
            }
        }
    }

    #[inline(always)]
    unsafe fn few_by<I: Bytes, const T: usize>(
        &self,
        blocks: Range<usize>,
        span: Span,
        shares: Shares,
        row: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if self.whole {
                self.few_whole::<I, T>(blocks, span, shares, row);
            } else {
                for_codes!(self, I, T(blocks, span, shares, row));
            }
        }
    }

    #[inline(always)]
    unsafe fn few_of<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const T: usize,
    >(
        &self,
        blocks: Range<usize>,
        span: Span,
        shares: Shares,
        row: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            // Of formats with levels or words, NVFP4 alone has groups of 16 whose scales are not whole.
            if const { BITS > 0 && (!LOOK || (BITS == 4 && WIDTH == 5)) } && parts(&self.codes) == 2
            {
                self.part::<I, BITS, WIDTH, LOOK, 2, false, T>(blocks, span, shares, row);
            } else {
                debug_assert!(parts(&self.codes) == 1);
                self.part::<I, BITS, WIDTH, LOOK, 1, false, T>(blocks, span, shares, row);
            }
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn part<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
        const WHOLE: bool,
        const T: usize,
    >(
        &self,
        blocks: Range<usize>,
        span: Span,
        shares: Shares,
        row: usize,
    ) {
        // `few_rows` asks for no more, and no more is compiled.
        debug_assert!(T == 1 || (BITS > 0 && T <= I::FEW[WIDTH - 4]));
        if const { T == 1 || (BITS > 0 && T <= I::FEW[WIDTH - 4]) } {
            // SAFETY: the contract of `linear_int8`.
            unsafe {
                I::spans::<BITS, WIDTH, LOOK, PARTS, WHOLE, T>(self, blocks, span, shares, row);
            }
        }
    }

    /// T rows of activations against blocks of weights.
    ///
    /// # Safety
    ///
    /// That of `linear_int8`; `span` holds a span, `shares` all rows.
    #[inline(always)]
    pub unsafe fn spans<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
        const WHOLE: bool,
        const T: usize,
    >(
        &self,
        blocks: Range<usize>,
        span: Span,
        shares: Shares,
        row: usize,
    ) {
        let of_chunk = if WHOLE { 1 } else { PARTS };
        let shares = shares.of_row(row, self.acts.chunks * of_chunk);
        let scales = self.w.span_scales();
        // SAFETY: the CPU has the instruction set.
        let zero = unsafe { Sums::<I, T> { rows: [I::splat(0.0); T], dots: [I::splat_i(0); T] } };
        for block in blocks {
            // SAFETY: the caller's promise.
            unsafe {
                let (mut sums, mut shares) = (zero, shares);
                for first in (0..self.acts.chunks).step_by(SPAN) {
                    let count = (self.acts.chunks - first).min(SPAN);
                    if BITS == 0 {
                        I::unpack_span(self.w, block, first, count, WHOLE, span);
                    } else {
                        let source = self.w.source(block);
                        source.prefetch(first / SPAN + SCALES_AHEAD, scales);
                        I::widen_span(&self.codes, source, first, count, WHOLE, span);
                    }
                    let chunks = first..first + count;
                    sums = self.span::<I, BITS, WIDTH, LOOK, PARTS, WHOLE, T>(
                        block, span, shares, chunks, row, sums,
                    );
                    shares = shares.after(count * of_chunk);
                }
                for t in 0..T {
                    finish::<I>(self.w, block, sums.rows[t], row + t, self.out);
                }
            }
        }
    }

    /// Chunks of one span.
    #[inline(always)]
    unsafe fn span<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
        const WHOLE: bool,
        const T: usize,
    >(
        &self,
        block: usize,
        span: Span,
        mut shares: Shares,
        chunks: Range<usize>,
        row: usize,
        mut sums: Sums<I, T>,
    ) -> Sums<I, T> {
        let of_span = shares;
        // SAFETY: the contract of `spans`.
        unsafe {
            if WHOLE {
                sums.dots = self.begin_whole::<I, T>(span, shares, &mut sums.rows);
            }
            let data = self.w.data.as_ptr().wrapping_add(block * self.w.block_bytes);
            let mut acts = [std::ptr::null(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).add(chunks.start * CHUNK).cast_const();
            }
            for (chunk, at) in chunks.enumerate() {
                let mut here = span.after(chunk, PARTS);
                if BITS != 0 {
                    here.codes = data.wrapping_add(at * STEP_BYTES * BITS).cast_mut();
                    // A single row reads wider codes as fast as memory gives them.
                    if (T == 1 && BITS < 7) || (T > 1 && row == 0) {
                        let ahead = if BITS < 7 { AHEAD } else { 2 * AHEAD };
                        prefetch(here.codes.wrapping_add(ahead), STEP_BYTES * BITS);
                    }
                }
                let acts = acts.map(|row| row.wrapping_add(chunk * CHUNK));
                sums =
                    self.chunk::<I, BITS, WIDTH, LOOK, PARTS, WHOLE, T>(here, acts, shares, sums);
                shares = shares.after(if WHOLE { 1 } else { PARTS });
            }
            if WHOLE {
                end_whole::<I, T>(span, of_span, sums.dots, &mut sums.rows);
            }
        }
        sums
    }

    /// One chunk of 16 rows of weights; `shares` begin with the chunk's.
    #[inline(always)]
    unsafe fn chunk<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const PARTS: usize,
        const WHOLE: bool,
        const T: usize,
    >(
        &self,
        at: Span,
        acts: [*const i8; T],
        shares: Shares,
        mut sums: Sums<I, T>,
    ) -> Sums<I, T> {
        // SAFETY: the contract of `linear_int8`; `at` holds the chunk.
        unsafe {
            let mut dots = if WHOLE { sums.dots } else { [I::splat_i(0); T] };
            let mut products = [I::no_sums(); T];
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
                let starts = shares.starts.add(part * shares.group);
                for t in 0..T {
                    let before = match steps % room {
                        0 => I::no_sums(),
                        _ => products[t],
                    };
                    products[t] = I::accumulate::<WIDTH>(before, q, acts[t].add(4 * STEP));
                }
                for t in 0..T {
                    products[t] = I::settle(products[t]);
                }
                let ends = STEP == 7 || (PARTS == 2 && STEP == 3);
                if ends || (steps + 1) % room == 0 {
                    for t in 0..T {
                        if WHOLE {
                            let scale = I::words(at.scales.add(part * LANES).cast());
                            dots[t] = I::fold_by(dots[t], products[t], scale);
                        } else {
                            let start = I::splat_i(*starts.add(t));
                            dots[t] = I::fold(if steps < room { start } else { dots[t] }, products[t]);
                        }
                    }
                    if ends && !WHOLE {
                        sums = self.scale::<I, T>(at, part, shares, dots, sums);
                    }
                }
            });
            if WHOLE {
                sums.dots = dots;
            }
        }
        sums
    }

    /// Adds one part's dot products to the sums.
    #[inline(always)]
    unsafe fn scale<I: Bytes, const T: usize>(
        &self,
        at: Span,
        part: usize,
        shares: Shares,
        dots: [I::I; T],
        mut sums: Sums<I, T>,
    ) -> Sums<I, T> {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let first = part * shares.group;
            for t in 0..T {
                let (dots, d) = (I::float(dots[t]), I::splat(*shares.scales.add(first + t)));
                let scale = I::load(at.scales.add(part * LANES));
                sums.rows[t] = I::fma(dots, I::mul(scale, d), sums.rows[t]);
            }
            if self.codes.has_min {
                let min = I::load(at.mins.add(part * LANES));
                for t in 0..T {
                    let low = I::splat(*shares.lows.add(first + t));
                    sums.rows[t] = I::fma(min, low, sums.rows[t]);
                }
            }
        }
        sums
    }
}

/// What rows of activations have come to.
#[derive(Clone, Copy)]
struct Sums<I: Bytes, const T: usize> {
    rows: [I::F; T],
    /// Of a span so far, where scales are whole.
    dots: [I::I; T],
}

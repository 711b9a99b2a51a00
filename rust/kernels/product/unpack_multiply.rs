//! The inner loop of few tokens (generation): codes are multiplied while they are unpacked.
//!
//! Unpacked codes stay in registers: they are never written to memory.

#![allow(clippy::needless_range_loop)] // t counts the rows across several arrays

use std::ops::Range;

use super::integer_scales::end_integer_span;
use super::output::finish;
use crate::kernels::data::{ActivationTerms, Product, Span};
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::memory::prefetch;
use crate::kernels::outlined::Outlined;
use crate::kernels::shape::{CHUNK, LANES, SPAN, STEP_BYTES};
use crate::kernels::unpack::span::unpack_step;

/// Prefetch distance of codes in bytes; twice that for codes of 7 or 8 bits.
const AHEAD: usize = 2048;
/// Prefetch distance of scales in spans.
const SCALES_AHEAD: usize = 2;

/// Runs a block for each step of a chunk; the step's number is a constant, so that shifts by it become
/// immediate operands.
macro_rules! each_step {
    ($step:ident => $body:block) => {
        each_step!($step => $body, 0, 1, 2, 3, 4, 5, 6, 7)
    };
    ($step:ident => $body:block, $($number:literal),*) => {
        $({ const $step: usize = $number; $body })*
    };
}

impl Product<'_> {
    /// Multiplies blocks of weights with T rows of activations.
    ///
    /// # Safety
    ///
    /// As `linear_int8`; `span` has room for a span, `terms` are those of all rows.
    #[inline(always)]
    pub unsafe fn multiply_spans<
        I: Outlined,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const GROUPS: usize,
        const INTEGER_SCALES: bool,
        const T: usize,
    >(
        &self,
        blocks: Range<usize>,
        span: Span,
        terms: ActivationTerms,
        row: usize,
    ) {
        let per_chunk = if INTEGER_SCALES { 1 } else { GROUPS };
        let terms = terms.of_row(row, self.acts.chunks * per_chunk);
        let scales = self.w.span_scales();
        // SAFETY: the CPU has the instruction set.
        let zero = unsafe { Sums::<I, T> { rows: [I::splat(0.0); T], dots: [I::splat_i(0); T] } };
        for block in blocks {
            // SAFETY: the caller's promise.
            unsafe {
                let (mut sums, mut terms) = (zero, terms);
                for first in (0..self.acts.chunks).step_by(SPAN) {
                    let count = (self.acts.chunks - first).min(SPAN);
                    if BITS == 0 {
                        I::unpack_span(self.w, block, first, count, INTEGER_SCALES, span);
                    } else {
                        let source = self.w.source(block);
                        source.prefetch(first / SPAN + SCALES_AHEAD, scales);
                        I::widen_span(&self.codes, source, first, count, INTEGER_SCALES, span);
                    }
                    let chunks = first..first + count;
                    sums = self.span::<I, BITS, WIDTH, LOOK, GROUPS, INTEGER_SCALES, T>(
                        block, span, terms, chunks, row, sums,
                    );
                    terms = terms.after(count * per_chunk);
                }
                for t in 0..T {
                    finish::<I>(self.w, block, sums.rows[t], row + t, self.out);
                }
            }
        }
    }

    /// Adds the products of the chunks of one span.
    #[inline(always)]
    unsafe fn span<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const GROUPS: usize,
        const INTEGER_SCALES: bool,
        const T: usize,
    >(
        &self,
        block: usize,
        span: Span,
        mut terms: ActivationTerms,
        chunks: Range<usize>,
        row: usize,
        mut sums: Sums<I, T>,
    ) -> Sums<I, T> {
        let of_span = terms;
        // SAFETY: the contract of `multiply_spans`.
        unsafe {
            if INTEGER_SCALES {
                sums.dots = self.begin_integer_span::<I, T>(span, terms, &mut sums.rows);
            }
            let data = self.w.data.as_ptr().wrapping_add(block * self.w.block_bytes);
            let mut acts = [std::ptr::null(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).add(chunks.start * CHUNK).cast_const();
            }
            for (chunk, at) in chunks.enumerate() {
                let mut here = span.after(chunk, GROUPS);
                if BITS != 0 {
                    here.codes = data.wrapping_add(at * STEP_BYTES * BITS).cast_mut();
                    // A single row reads wider codes as fast as memory delivers them.
                    if (T == 1 && BITS < 7) || (T > 1 && row == 0) {
                        let ahead = if BITS < 7 { AHEAD } else { 2 * AHEAD };
                        prefetch(here.codes.wrapping_add(ahead), STEP_BYTES * BITS);
                    }
                }
                let acts = acts.map(|row| row.wrapping_add(chunk * CHUNK));
                sums = self.chunk::<I, BITS, WIDTH, LOOK, GROUPS, INTEGER_SCALES, T>(
                    here, acts, terms, sums,
                );
                terms = terms.after(if INTEGER_SCALES { 1 } else { GROUPS });
            }
            if INTEGER_SCALES {
                end_integer_span::<I, T>(span, of_span, sums.dots, &mut sums.rows);
            }
        }
        sums
    }

    /// Adds the products of one chunk of 16 rows of weights; `terms` begin with the chunk's.
    #[inline(always)]
    unsafe fn chunk<
        I: Bytes,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const GROUPS: usize,
        const INTEGER_SCALES: bool,
        const T: usize,
    >(
        &self,
        at: Span,
        acts: [*const i8; T],
        terms: ActivationTerms,
        mut sums: Sums<I, T>,
    ) -> Sums<I, T> {
        // SAFETY: the contract of `linear_int8`; `at` holds the chunk.
        unsafe {
            let mut dots = if INTEGER_SCALES { sums.dots } else { [I::splat_i(0); T] };
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
                let steps = if GROUPS == 2 { STEP % 4 } else { STEP };
                let group = if GROUPS == 2 { STEP / 4 } else { 0 };
                let starts = terms.starts.add(group * terms.tile);
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
                let ends = STEP == 7 || (GROUPS == 2 && STEP == 3);
                if ends || (steps + 1) % room == 0 {
                    for t in 0..T {
                        if INTEGER_SCALES {
                            let scale = I::words(at.scales.add(group * LANES).cast());
                            dots[t] = I::fold_by(dots[t], products[t], scale);
                        } else {
                            let start = I::splat_i(*starts.add(t));
                            dots[t] = I::fold(if steps < room { start } else { dots[t] }, products[t]);
                        }
                    }
                    if ends && !INTEGER_SCALES {
                        sums = self.scale::<I, T>(at, group, terms, dots, sums);
                    }
                }
            });
            if INTEGER_SCALES {
                sums.dots = dots;
            }
        }
        sums
    }

    /// Scales the dot products of one group and adds them to the sums.
    #[inline(always)]
    unsafe fn scale<I: Bytes, const T: usize>(
        &self,
        at: Span,
        group: usize,
        terms: ActivationTerms,
        dots: [I::I; T],
        mut sums: Sums<I, T>,
    ) -> Sums<I, T> {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let first = group * terms.tile;
            for t in 0..T {
                let (dots, d) = (I::float(dots[t]), I::splat(*terms.scales.add(first + t)));
                let scale = I::load(at.scales.add(group * LANES));
                sums.rows[t] = I::fma(dots, I::mul(scale, d), sums.rows[t]);
            }
            if self.codes.has_min {
                let min = I::load(at.mins.add(group * LANES));
                for t in 0..T {
                    let factor = I::splat(*terms.mins.add(first + t));
                    sums.rows[t] = I::fma(min, factor, sums.rows[t]);
                }
            }
        }
        sums
    }
}

/// The sums of T rows of activations.
#[derive(Clone, Copy)]
struct Sums<I: Bytes, const T: usize> {
    rows: [I::F; T],
    /// Integer sums of the current span; used with integer scales.
    dots: [I::I; T],
}

//! Products with many tokens (prompts): a block of 16 rows of weights is unpacked once for all of them.
//!
//! Unpacked codes are multiplied with tiles of 1 to 8 rows of activations, a step of codes at a time.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::dot_steps::{multiply, pair_steps};
use super::scratch::Scratch;
use crate::kernels::data::{ActivationTerms, Product, Span, Stretch};
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::line::grow;
use crate::kernels::layout::memory::prefetch;
use crate::kernels::layout::scales::groups_of_chunk;
use crate::kernels::outlined::Outlined;
use crate::kernels::shape::{LANES, SPAN, STEPS};

/// Most rows of activations for which a block is unpacked stretch by stretch.
const STRETCHED: usize = 16;
/// Chunks of a stretch, which stay in the first-level cache.
const STRETCH: usize = SPAN;

impl Product<'_> {
    /// Multiplies blocks with many tokens. With up to `STRETCHED` of them a block is unpacked a stretch at a
    /// time, which stays in the first-level cache; with more, all at once.
    ///
    /// # Safety
    ///
    /// As `linear_int8`.
    #[inline(always)]
    pub(super) unsafe fn many_tokens<I: Outlined>(
        &self,
        blocks: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let chunks = self.acts.chunks;
        let stretched = self.n <= STRETCHED;
        let room = if stretched { STRETCH } else { chunks };
        let chunk_bytes = self.w.block_bytes / chunks;
        let span = scratch.span(room);
        grow(&mut scratch.sums, self.n);
        let sums = scratch.sums.as_mut_ptr().cast();
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let tile = I::TILE[self.width() - 4];
            let terms = self.terms::<I>(tile, &mut scratch.terms);
            for block in blocks {
                let data = self.w.data.as_ptr().wrapping_add(block * self.w.block_bytes);
                for start in (0..chunks).step_by(room) {
                    let end = chunks.min(start + room);
                    self.unpack::<I>(block, start..end, span);
                    // Prefetch the stretch after the next, or the next block.
                    let further = if stretched { 2 * STRETCH } else { chunks };
                    let ahead = data.wrapping_add(chunk_bytes * further);
                    let at = Stretch { start, end, sums, ahead, chunk_bytes };
                    let span = span.before(start, groups_of_chunk(&self.codes));
                    self.tiles_of_codes::<I>(block, span, terms, at);
                }
            }
        }
    }

    /// Unpacks some chunks of a block in the form that tiles read.
    #[inline(always)]
    unsafe fn unpack<I: Outlined>(&self, block: usize, chunks: Range<usize>, span: Span) {
        // SAFETY: the contract of `linear_int8`; `span` has room.
        unsafe {
            for first in chunks.clone().step_by(SPAN) {
                let count = (chunks.end - first).min(SPAN);
                let here = span.after(first - chunks.start, groups_of_chunk(&self.codes));
                I::unpack_span(self.w, block, first, count, self.integer_scales, here);
            }
            if self.merged {
                self.merge(span, chunks.len());
            }
            if I::PAIRED && self.merged == self.integer_scales {
                pair_steps(span.codes, chunks.len());
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles_of_codes<I: Outlined>(
        &self,
        block: usize,
        span: Span,
        terms: ActivationTerms,
        at: Stretch,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if self.integer_scales {
                return self.integer_tiles::<I>(block, span, terms, at);
            }
            match self.codes.bits {
                ..=4 => self.tiles_of::<I, 4>(block, span, terms, at),
                5 => self.tiles_of::<I, 5>(block, span, terms, at),
                6 => self.tiles_of::<I, 6>(block, span, terms, at),
                7 => self.tiles_of::<I, 7>(block, span, terms, at),
                _ => self.tiles_of::<I, 8>(block, span, terms, at),
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles_of<I: Outlined, const WIDTH: usize>(
        &self,
        block: usize,
        span: Span,
        terms: ActivationTerms,
        at: Stretch,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if groups_of_chunk(&self.codes) == 2 {
                I::multiply_tiles::<WIDTH, 2, false>(self, block, span, terms, at);
            } else {
                I::multiply_tiles::<WIDTH, 1, false>(self, block, span, terms, at);
            }
        }
    }

    /// Multiplies an unpacked stretch of a block with all rows of activations.
    ///
    /// # Safety
    ///
    /// As `linear_int8`; `span` holds the stretch, `terms` are those of all rows.
    #[inline(always)]
    pub unsafe fn multiply_tiles<
        I: Bytes,
        const WIDTH: usize,
        const GROUPS: usize,
        const INTEGER_SCALES: bool,
    >(
        &self,
        block: usize,
        span: Span,
        terms: ActivationTerms,
        at: Stretch,
    ) {
        let mut row = 0;
        // SAFETY: the caller's promise.
        unsafe {
            while const { I::TILE[WIDTH - 4] == 8 } && row + 8 <= self.n {
                self.some_rows::<I, WIDTH, GROUPS, INTEGER_SCALES, 8>(block, span, terms, at, row);
                row += 8;
            }
            while const { I::TILE[WIDTH - 4] >= 4 } && row + 4 <= self.n {
                self.some_rows::<I, WIDTH, GROUPS, INTEGER_SCALES, 4>(block, span, terms, at, row);
                row += 4;
            }
            while row + 2 <= self.n {
                self.some_rows::<I, WIDTH, GROUPS, INTEGER_SCALES, 2>(block, span, terms, at, row);
                row += 2;
            }
            if row < self.n {
                self.some_rows::<I, WIDTH, GROUPS, INTEGER_SCALES, 1>(block, span, terms, at, row);
            }
        }
    }

    #[inline(always)]
    unsafe fn some_rows<
        I: Bytes,
        const WIDTH: usize,
        const GROUPS: usize,
        const INTEGER_SCALES: bool,
        const T: usize,
    >(
        &self,
        block: usize,
        span: Span,
        terms: ActivationTerms,
        at: Stretch,
        row: usize,
    ) {
        // SAFETY: the contract of `multiply_tiles`.
        unsafe {
            if INTEGER_SCALES {
                self.integer_tile::<I, WIDTH, GROUPS, T>(block, span, terms, at, row);
            } else {
                self.float_tile::<I, WIDTH, GROUPS, T>(block, span, terms, at, row);
            }
        }
    }

    /// Multiplies T rows of activations with weights that have float scales.
    #[inline(always)]
    unsafe fn float_tile<I: Bytes, const WIDTH: usize, const GROUPS: usize, const T: usize>(
        &self,
        block: usize,
        span: Span,
        terms: ActivationTerms,
        at: Stretch,
        row: usize,
    ) {
        let (chunks, tile) = (self.acts.chunks, I::TILE[WIDTH - 4]);
        let group_bytes = at.chunk_bytes / GROUPS;
        // SAFETY: the contract of `linear_int8`; `span` and `terms` hold the stretch.
        unsafe {
            let mut sums = at.begin::<I, T>(row);
            let mut acts = [std::ptr::null(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).cast_const();
            }
            for group in at.start * GROUPS..at.end * GROUPS {
                // The first tile prefetches later codes: memory works meanwhile.
                if row == 0 {
                    prefetch(at.ahead.wrapping_add(group * group_bytes), group_bytes);
                }
                let first = ActivationTerms::offset(row, tile, chunks * GROUPS) + group * tile;
                let starts = terms.starts.add(first);
                let steps = STEPS / GROUPS;
                let dots = multiply::<I, WIDTH, T>(span.codes, &acts, group * steps, steps, starts);
                let scale = I::load(span.scales.add(group * LANES));
                for t in 0..T {
                    let d = I::splat(*terms.scales.add(first + t));
                    sums[t] = I::fma(I::float(dots[t]), I::mul(scale, d), sums[t]);
                }
                if self.codes.has_min {
                    let min = I::load(span.mins.add(group * LANES));
                    for t in 0..T {
                        let factor = I::splat(*terms.mins.add(first + t));
                        sums[t] = I::fma(min, factor, sums[t]);
                    }
                }
            }
            self.end_stretch::<I, T>(block, row, at, &sums);
        }
    }
}

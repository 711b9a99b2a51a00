//! Products of several rows of int8 activations: a block of 16 rows of weights is unpacked once, then
//! tiles of a few rows of activations meet it, a step of codes at a time.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::floats::{LANES, STEPS};
use crate::kernels::layout::memory::prefetch;
use crate::kernels::layout::scales::SPAN;
use crate::kernels::product::activation_terms::{Shares, place};
use crate::kernels::product::dot_steps::{multiply, pair_steps};
use crate::kernels::product::int8::Product;
use crate::kernels::product::output::{Scratch, finish, grow};
use crate::kernels::unpack::span::{Span, parts};

/// Up to so many rows of activations a block is unpacked stretch by stretch.
const STRETCHED: usize = 16;
/// Chunks that they take at a time: what the first cache holds.
const STRETCH: usize = SPAN;

impl Product<'_> {
    /// Several rows of activations: a block is unpacked once, and where they are few, a stretch at a
    /// time, which stays in the first cache.
    #[inline(always)]
    pub(crate) unsafe fn rows<I: Bytes>(&self, blocks: Range<usize>, scratch: &mut Scratch) {
        let chunks = self.acts.chunks;
        let few = self.n <= STRETCHED;
        let room = if few { STRETCH } else { chunks };
        let chunk_bytes = self.w.block_bytes / chunks;
        let span = scratch.span(room);
        grow(&mut scratch.sums, self.n);
        let sums = scratch.sums.as_mut_ptr().cast();
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let group = I::TILE[self.width() - 4];
            let shares = self.shares::<I>(group, scratch);
            for block in blocks {
                let data = self.w.data.as_ptr().wrapping_add(block * self.w.block_bytes);
                for start in (0..chunks).step_by(room) {
                    let end = chunks.min(start + room);
                    self.unpack::<I>(block, start..end, span);
                    // For few rows memory works on the stretch after the next, else on the next block.
                    let further = if few { 2 * STRETCH } else { chunks };
                    let ahead = data.wrapping_add(chunk_bytes * further);
                    let at = Stretch { start, end, sums, ahead, chunk_bytes };
                    self.tiles_of_codes::<I>(
                        block,
                        span.before(start, parts(&self.codes)),
                        shares,
                        at,
                    );
                }
            }
        }
    }

    /// Unpacks some chunks of a block, as the tiles take them.
    #[inline(always)]
    unsafe fn unpack<I: Bytes>(&self, block: usize, chunks: Range<usize>, span: Span) {
        // SAFETY: the contract of `linear_int8`; `span` has room.
        unsafe {
            for first in chunks.clone().step_by(SPAN) {
                let count = (chunks.end - first).min(SPAN);
                let here = span.after(first - chunks.start, parts(&self.codes));
                I::unpack_span(self.w, block, first, count, self.whole, here);
            }
            if self.merged {
                self.merge(span, chunks.len());
            }
            if I::PAIRED && self.merged == self.whole {
                pair_steps(span.codes, chunks.len());
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles_of_codes<I: Bytes>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        at: Stretch,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if self.whole {
                return self.whole_tiles_of::<I>(block, span, shares, at);
            }
            match self.codes.bits {
                ..=4 => self.tiles_of::<I, 4>(block, span, shares, at),
                5 => self.tiles_of::<I, 5>(block, span, shares, at),
                6 => self.tiles_of::<I, 6>(block, span, shares, at),
                7 => self.tiles_of::<I, 7>(block, span, shares, at),
                _ => self.tiles_of::<I, 8>(block, span, shares, at),
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles_of<I: Bytes, const WIDTH: usize>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        at: Stretch,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if parts(&self.codes) == 2 {
                I::tiles::<WIDTH, 2, false>(self, block, span, shares, at);
            } else {
                I::tiles::<WIDTH, 1, false>(self, block, span, shares, at);
            }
        }
    }

    /// All rows of activations against an unpacked block.
    ///
    /// # Safety
    ///
    /// That of `linear_int8`; `span` holds the block, `shares` all rows.
    #[inline(always)]
    pub unsafe fn tiles<I: Bytes, const WIDTH: usize, const PARTS: usize, const WHOLE: bool>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        at: Stretch,
    ) {
        let mut row = 0;
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            while const { I::TILE[WIDTH - 4] == 8 } && row + 8 <= self.n {
                self.some::<I, WIDTH, PARTS, WHOLE, 8>(block, span, shares, at, row);
                row += 8;
            }
            while const { I::TILE[WIDTH - 4] >= 4 } && row + 4 <= self.n {
                self.some::<I, WIDTH, PARTS, WHOLE, 4>(block, span, shares, at, row);
                row += 4;
            }
            while row + 2 <= self.n {
                self.some::<I, WIDTH, PARTS, WHOLE, 2>(block, span, shares, at, row);
                row += 2;
            }
            if row < self.n {
                self.some::<I, WIDTH, PARTS, WHOLE, 1>(block, span, shares, at, row);
            }
        }
    }

    #[inline(always)]
    unsafe fn some<
        I: Bytes,
        const WIDTH: usize,
        const PARTS: usize,
        const WHOLE: bool,
        const T: usize,
    >(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        at: Stretch,
        row: usize,
    ) {
        // SAFETY: the contract of `tiles`.
        unsafe {
            if WHOLE {
                self.whole_tile::<I, WIDTH, PARTS, T>(block, span, shares, at, row);
            } else {
                self.tile::<I, WIDTH, PARTS, T>(block, span, shares, at, row);
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<I: Bytes, const WIDTH: usize, const PARTS: usize, const T: usize>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        at: Stretch,
        row: usize,
    ) {
        let (chunks, group) = (self.acts.chunks, I::TILE[WIDTH - 4]);
        let part_bytes = at.chunk_bytes / PARTS;
        // SAFETY: the contract of `linear_int8`; `span` and `shares` hold the stretch.
        unsafe {
            let mut sums = at.begin::<I, T>(row);
            let mut acts = [std::ptr::null(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).cast_const();
            }
            for part in at.start * PARTS..at.end * PARTS {
                // The first tile asks for the codes that come later, so that memory works meanwhile.
                if row == 0 {
                    prefetch(at.ahead.wrapping_add(part * part_bytes), part_bytes);
                }
                let first = place(row, group, chunks * PARTS) + part * group;
                let starts = shares.starts.add(first);
                let steps = STEPS / PARTS;
                let dots = multiply::<I, WIDTH, T>(span.codes, &acts, part * steps, steps, starts);
                let scale = I::load(span.scales.add(part * LANES));
                for t in 0..T {
                    let d = I::splat(*shares.scales.add(first + t));
                    sums[t] = I::fma(I::float(dots[t]), I::mul(scale, d), sums[t]);
                }
                if self.codes.has_min {
                    let min = I::load(span.mins.add(part * LANES));
                    for t in 0..T {
                        let low = I::splat(*shares.lows.add(first + t));
                        sums[t] = I::fma(min, low, sums[t]);
                    }
                }
            }
            self.end::<I, T>(block, row, at, &sums);
        }
    }

    /// Keeps the sums of a stretch, or adds the bias and writes them, where it is the row's last.
    #[inline(always)]
    pub(crate) unsafe fn end<I: Bytes, const T: usize>(
        &self,
        block: usize,
        row: usize,
        at: Stretch,
        sums: &[I::F; T],
    ) {
        for (t, &sum) in sums.iter().enumerate() {
            // SAFETY: the contract of `linear_int8`; `at` has room for all rows.
            unsafe {
                if at.end == self.acts.chunks {
                    finish::<I>(self.w, block, sum, row + t, self.out);
                } else {
                    I::store(at.sums.add((row + t) * LANES), sum);
                }
            }
        }
    }
}

/// Chunks of a row that tiles take at a time.
#[derive(Clone, Copy)]
pub struct Stretch {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// [rows][16] sums of the stretches before, on cache lines.
    sums: *mut f32,
    /// What to ask memory for while the stretch is multiplied, from the row's first chunk on.
    pub(crate) ahead: *const u8,
    /// Bytes of a chunk's codes.
    pub(crate) chunk_bytes: usize,
}

impl Stretch {
    /// What some rows have come to.
    #[inline(always)]
    pub(crate) unsafe fn begin<I: Bytes, const T: usize>(&self, row: usize) -> [I::F; T] {
        // SAFETY: the caller's CPU has the instruction set; `sums` holds all rows.
        unsafe {
            let mut sums = [I::splat(0.0); T];
            if self.start > 0 {
                for t in 0..T {
                    sums[t] = I::load(self.sums.add((row + t) * LANES));
                }
            }
            sums
        }
    }
}

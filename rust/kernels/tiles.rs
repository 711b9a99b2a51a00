//! Products of several rows of int8 activations: a block of 16 rows of weights is unpacked once, then
//! tiles of a few rows of activations meet it, a step of codes at a time.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::isa::{Isa, LANES, STEP_BYTES, STEPS};
use super::linear::Product;
use super::memory::prefetch;
use super::output::{Scratch, finish, grow};
use super::scales::SPAN;
use super::span::{Span, parts};

/// What depends on a row of activations and the format, but not on the weights: [n][chunks][part].
#[derive(Clone, Copy)]
pub struct Shares {
    /// (center - offset) times the sum of a part's activations: where its dot products begin.
    starts: *const i32,
    /// The scale times that sum: what a minimum is multiplied by.
    lows: *const f32,
}

impl Product<'_> {
    /// Several rows of activations: a block is unpacked once.
    #[inline(always)]
    pub(super) unsafe fn rows<I: Isa>(&self, blocks: Range<usize>, scratch: &mut Scratch) {
        let span = scratch.span(self.acts.chunks);
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let shares = self.shares::<I>(scratch);
            for block in blocks {
                let mut first = 0;
                while first < self.acts.chunks {
                    let count = (self.acts.chunks - first).min(SPAN);
                    let here = span.after(first, parts(&self.codes));
                    I::unpack_span(self.w, block, first, count, here);
                    first += count;
                }
                match self.codes.bits {
                    ..=4 => self.tiles_of::<I, 4>(block, span, shares),
                    5 => self.tiles_of::<I, 5>(block, span, shares),
                    6 => self.tiles_of::<I, 6>(block, span, shares),
                    7 => self.tiles_of::<I, 7>(block, span, shares),
                    _ => self.tiles_of::<I, 8>(block, span, shares),
                }
            }
        }
    }

    /// Works out the shares of all rows, once for all blocks.
    #[inline(always)]
    unsafe fn shares<I: Isa>(&self, scratch: &mut Scratch) -> Shares {
        let width = usize::from(self.codes.bits);
        let (parts, chunks) = (parts(&self.codes), self.n * self.acts.chunks);
        grow(&mut scratch.starts, parts * chunks);
        grow(&mut scratch.lows, if self.codes.has_min { parts * chunks } else { 0 });
        for chunk in 0..chunks {
            for part in 0..parts {
                // SAFETY: the rows lie one after the other, and `acts` holds them.
                let (total, d) =
                    unsafe { (self.total(parts, chunk, part), *self.acts.scales(0).add(chunk)) };
                scratch.starts[parts * chunk + part] = self.start::<I>(width, total);
                if self.codes.has_min {
                    scratch.lows[parts * chunk + part] = d * total as f32;
                }
            }
        }
        Shares { starts: scratch.starts.as_ptr(), lows: scratch.lows.as_ptr() }
    }

    #[inline(always)]
    unsafe fn tiles_of<I: Isa, const WIDTH: usize>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if parts(&self.codes) == 2 {
                I::tiles::<WIDTH, 2>(self, block, span, shares);
            } else {
                I::tiles::<WIDTH, 1>(self, block, span, shares);
            }
        }
    }

    /// All rows of activations against an unpacked block.
    ///
    /// # Safety
    ///
    /// That of `linear_int8`; `span` holds the block, `shares` all rows.
    #[inline(always)]
    pub unsafe fn tiles<I: Isa, const WIDTH: usize, const PARTS: usize>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
    ) {
        let mut row = 0;
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            while I::TILE[WIDTH - 4] == 8 && row + 8 <= self.n {
                self.tile::<I, WIDTH, PARTS, 8>(block, span, shares, row);
                row += 8;
            }
            while I::TILE[WIDTH - 4] >= 4 && row + 4 <= self.n {
                self.tile::<I, WIDTH, PARTS, 4>(block, span, shares, row);
                row += 4;
            }
            while row + 2 <= self.n {
                self.tile::<I, WIDTH, PARTS, 2>(block, span, shares, row);
                row += 2;
            }
            if row < self.n {
                self.tile::<I, WIDTH, PARTS, 1>(block, span, shares, row);
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<I: Isa, const WIDTH: usize, const PARTS: usize, const T: usize>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        row: usize,
    ) {
        let chunks = self.acts.chunks;
        // The first tile asks for the next block's codes, so that memory works meanwhile.
        let next = self.w.data.as_ptr().wrapping_add((block + 1) * self.w.block_bytes);
        let share = self.w.block_bytes / (chunks * PARTS);
        // SAFETY: the contract of `linear_int8`; `span` and `shares` hold all chunks.
        unsafe {
            let mut sums = [I::splat(0.0); T];
            let mut acts = [std::ptr::null(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).cast_const();
            }
            for part in 0..chunks * PARTS {
                if row == 0 {
                    prefetch(next.wrapping_add(part * share), share);
                }
                let at = row * chunks * PARTS + part;
                let mut dots = [I::splat_i(0); T];
                for t in 0..T {
                    dots[t] = I::splat_i(*shares.starts.add(at + t * chunks * PARTS));
                }
                multiply::<I, WIDTH, PARTS, T>(span.codes, &acts, part, &mut dots);
                let scale = I::load(span.scales.add(part * LANES));
                for t in 0..T {
                    let d = I::splat(*self.acts.scales(row + t).add(part / PARTS));
                    sums[t] = I::fma(I::float(dots[t]), I::mul(scale, d), sums[t]);
                }
                if self.codes.has_min {
                    let min = I::load(span.mins.add(part * LANES));
                    for t in 0..T {
                        let low = I::splat(*shares.lows.add(at + t * chunks * PARTS));
                        sums[t] = I::fma(min, low, sums[t]);
                    }
                }
            }
            for (t, sum) in sums.into_iter().enumerate() {
                finish::<I>(self.w, block, sum, row + t, self.out);
            }
        }
    }
}

/// Adds the products of part `part` of 16 rows' codes with T rows of activations to `dots`.
///
/// Each step's codes are loaded once and meet all T rows before the next: left alone, a compiler
/// takes the rows one after the other, which costs half the speed in reloads.
#[inline(always)]
unsafe fn multiply<I: Isa, const WIDTH: usize, const PARTS: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    part: usize,
    dots: &mut [I::I; T],
) {
    let (steps, room) = (STEPS / PARTS, I::ROOM[WIDTH - 4].min(STEPS / PARTS));
    // SAFETY: the contract of `tile`.
    unsafe {
        for first in (0..steps).step_by(room) {
            let mut products = [I::no_sums(); T];
            for step in first..first + room {
                let at = part * steps + step;
                let q = I::bytes(codes.add(at * STEP_BYTES));
                for t in 0..T {
                    products[t] = I::accumulate::<WIDTH>(products[t], q, acts[t].add(4 * at));
                }
                for t in 0..T {
                    products[t] = I::settle(products[t]);
                }
            }
            for t in 0..T {
                dots[t] = I::fold(dots[t], products[t]);
            }
        }
    }
}

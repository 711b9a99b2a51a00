//! Products of several rows of int8 activations: a block of 16 rows of weights is unpacked once, then
//! tiles of a few rows of activations meet it, a step of codes at a time.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::bytes::Bytes;
use super::isa::{LANES, STEP_BYTES, STEPS};
use super::linear::Product;
use super::memory::prefetch;
use super::output::{Scratch, finish};
use super::scales::SPAN;
use super::shares::Shares;
use super::span::{Span, parts};

impl Product<'_> {
    /// Several rows of activations: a block is unpacked once.
    #[inline(always)]
    pub(super) unsafe fn rows<I: Bytes>(&self, blocks: Range<usize>, scratch: &mut Scratch) {
        let span = scratch.span(self.acts.chunks);
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let group = I::TILE[usize::from(self.codes.bits).max(4) - 4];
            let shares = self.shares::<I>(group, scratch);
            for block in blocks {
                let mut first = 0;
                while first < self.acts.chunks {
                    let count = (self.acts.chunks - first).min(SPAN);
                    let here = span.after(first, parts(&self.codes));
                    I::unpack_span(self.w, block, first, count, self.whole, here);
                    first += count;
                }
                if self.merged {
                    self.merge(span);
                }
                if I::PAIRED && self.merged == self.whole {
                    pair_steps(span.codes, self.acts.chunks);
                }
                if self.whole {
                    self.whole_tiles_of::<I>(block, span, shares);
                    continue;
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

    #[inline(always)]
    unsafe fn tiles_of<I: Bytes, const WIDTH: usize>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if parts(&self.codes) == 2 {
                I::tiles::<WIDTH, 2, false>(self, block, span, shares);
            } else {
                I::tiles::<WIDTH, 1, false>(self, block, span, shares);
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
    ) {
        let mut row = 0;
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            while I::TILE[WIDTH - 4] == 8 && row + 8 <= self.n {
                self.some::<I, WIDTH, PARTS, WHOLE, 8>(block, span, shares, row);
                row += 8;
            }
            while I::TILE[WIDTH - 4] >= 4 && row + 4 <= self.n {
                self.some::<I, WIDTH, PARTS, WHOLE, 4>(block, span, shares, row);
                row += 4;
            }
            while row + 2 <= self.n {
                self.some::<I, WIDTH, PARTS, WHOLE, 2>(block, span, shares, row);
                row += 2;
            }
            if row < self.n {
                self.some::<I, WIDTH, PARTS, WHOLE, 1>(block, span, shares, row);
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
        row: usize,
    ) {
        // SAFETY: the contract of `tiles`.
        unsafe {
            if WHOLE {
                self.whole_tile::<I, WIDTH, PARTS, T>(block, span, shares, row);
            } else {
                self.tile::<I, WIDTH, PARTS, T>(block, span, shares, row);
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<I: Bytes, const WIDTH: usize, const PARTS: usize, const T: usize>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        row: usize,
    ) {
        let (chunks, group) = (self.acts.chunks, I::TILE[WIDTH - 4]);
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
                let at = row / group * group * chunks * PARTS + part * group + row % group;
                let mut dots = [I::splat_i(0); T];
                let starts = shares.starts.add(at);
                multiply::<I, WIDTH, PARTS, T>(span.codes, &acts, part, starts, &mut dots);
                let scale = I::load(span.scales.add(part * LANES));
                for t in 0..T {
                    let d = I::splat(*shares.scales.add(at + t));
                    sums[t] = I::fma(I::float(dots[t]), I::mul(scale, d), sums[t]);
                }
                if self.codes.has_min {
                    let min = I::load(span.mins.add(part * LANES));
                    for t in 0..T {
                        let low = I::splat(*shares.lows.add(at + t));
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

/// The products of part `part` of 16 rows' codes with T rows of activations, from `starts` on.
///
/// Each step's codes are loaded once and meet all T rows before the next: left alone, a compiler
/// takes the rows one after the other, which costs half the speed in reloads.
#[inline(always)]
pub(super) unsafe fn multiply<I: Bytes, const WIDTH: usize, const PARTS: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    part: usize,
    starts: *const i32,
    dots: &mut [I::I; T],
) {
    if I::PAIRED {
        // SAFETY: the contract of `tile`.
        return unsafe { multiply_pairs::<I, WIDTH, PARTS, T>(codes, acts, part, starts, dots) };
    }
    let (steps, room) = (STEPS / PARTS, I::ROOM[WIDTH - 4].min(STEPS / PARTS));
    // SAFETY: the contract of `tile`.
    unsafe {
        for first in (0..steps).step_by(room) {
            let mut products = [I::no_sums(); T];
            let at = part * steps + first;
            if room % 4 == 0 {
                for four in (0..room).step_by(4) {
                    multiply_step::<I, WIDTH, T>(codes, acts, at + four, &mut products);
                    multiply_step::<I, WIDTH, T>(codes, acts, at + four + 1, &mut products);
                    multiply_step::<I, WIDTH, T>(codes, acts, at + four + 2, &mut products);
                    multiply_step::<I, WIDTH, T>(codes, acts, at + four + 3, &mut products);
                }
            } else {
                for step in 0..room {
                    multiply_step::<I, WIDTH, T>(codes, acts, at + step, &mut products);
                }
            }
            for t in 0..T {
                let before = match first {
                    0 => I::splat_i(*starts.add(t)),
                    _ => dots[t],
                };
                dots[t] = I::fold(before, products[t]);
            }
        }
    }
}

#[inline(always)]
pub(super) unsafe fn multiply_step<I: Bytes, const WIDTH: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    step: usize,
    products: &mut [I::W; T],
) {
    // SAFETY: the contract of `tile`.
    unsafe {
        let q = I::bytes(codes.add(step * STEP_BYTES));
        for t in 0..T {
            products[t] = I::accumulate::<WIDTH>(products[t], q, acts[t].add(4 * step));
        }
        for t in 0..T {
            products[t] = I::settle(products[t]);
        }
    }
}

/// The eight codes of each row in two steps side by side, [16 rows][8], in place of [2][16 rows][4].
#[inline(always)]
pub(super) unsafe fn pair_steps(codes: *mut u8, chunks: usize) {
    for two in 0..chunks * STEPS / 2 {
        // SAFETY: the codes of all chunks are at the pointer.
        unsafe {
            let at = codes.add(two * 2 * STEP_BYTES);
            let [first, second] = at.cast::<[[u32; LANES]; 2]>().read_unaligned();
            let mut pairs = [[0; 2]; LANES];
            for lane in 0..LANES {
                pairs[lane] = [first[lane], second[lane]];
            }
            at.cast::<[[u32; 2]; LANES]>().write_unaligned(pairs);
        }
    }
}

/// `multiply` of two steps and two rows of activations at a time; a row that is left meets itself.
#[inline(always)]
unsafe fn multiply_pairs<I: Bytes, const WIDTH: usize, const PARTS: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    part: usize,
    starts: *const i32,
    dots: &mut [I::I; T],
) {
    // SAFETY: the contract of `tile`.
    unsafe {
        // One for each two rows.
        let mut sums = [[I::no_sums(); 2]; T];
        for two in 0..STEPS / PARTS / 2 {
            let step = part * STEPS / PARTS + 2 * two;
            let at = codes.add(step * STEP_BYTES);
            let q = [I::bytes(at), I::bytes(at.add(STEP_BYTES))];
            for t in (0..T).step_by(2) {
                let two = [acts[t].add(4 * step), acts[(t + 1).min(T - 1)].add(4 * step)];
                sums[t / 2] = I::accumulate_pairs::<WIDTH>(sums[t / 2], q, two);
            }
            for t in (0..T).step_by(2) {
                sums[t / 2] = [I::settle(sums[t / 2][0]), I::settle(sums[t / 2][1])];
            }
        }
        for t in 0..T {
            let row = I::unpair(sums[t / 2])[t % 2];
            dots[t] = I::fold(I::splat_i(*starts.add(t)), row);
        }
    }
}

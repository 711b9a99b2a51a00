//! Products of several rows of int8 activations: a block of 16 rows of weights is unpacked once, then
//! tiles of a few rows of activations meet it, a step of codes at a time.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::bytes::Bytes;
use super::isa::{LANES, STEP_BYTES, STEPS};
use super::linear::Product;
use super::memory::prefetch;
use super::output::{Scratch, finish, grow};
use super::scales::SPAN;
use super::shares::{Shares, place};
use super::span::{Span, parts};

/// Up to so many rows of activations a block is unpacked stretch by stretch.
const STRETCHED: usize = 16;
/// Chunks that they take at a time: what the first cache holds.
const STRETCH: usize = SPAN;

impl Product<'_> {
    /// Several rows of activations: a block is unpacked once, and where they are few, a stretch at a
    /// time, which stays in the first cache.
    #[inline(always)]
    pub(super) unsafe fn rows<I: Bytes>(&self, blocks: Range<usize>, scratch: &mut Scratch) {
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
    pub(super) unsafe fn end<I: Bytes, const T: usize>(
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
    pub(super) start: usize,
    pub(super) end: usize,
    /// [rows][16] sums of the stretches before, on cache lines.
    sums: *mut f32,
    /// What to ask memory for while the stretch is multiplied, from the row's first chunk on.
    pub(super) ahead: *const u8,
    /// Bytes of a chunk's codes.
    pub(super) chunk_bytes: usize,
}

impl Stretch {
    /// What some rows have come to.
    #[inline(always)]
    pub(super) unsafe fn begin<I: Bytes, const T: usize>(&self, row: usize) -> [I::F; T] {
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

/// The products of `count` steps of 16 rows' codes, from `first` on, with T rows of activations; `starts`
/// are what they begin at.
#[inline(always)]
unsafe fn multiply<I: Bytes, const WIDTH: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    first: usize,
    count: usize,
    starts: *const i32,
) -> [I::I; T] {
    let room = I::ROOM[WIDTH - 4].min(count);
    // SAFETY: the contract of `tile`.
    unsafe {
        let mut dots = [I::splat_i(0); T];
        for done in (0..count).step_by(room) {
            let products = add_steps::<I, WIDTH, T>(codes, acts, first + done, room);
            for t in 0..T {
                let before = match done {
                    0 => I::splat_i(*starts.add(t)),
                    _ => dots[t],
                };
                dots[t] = I::fold(before, products[t]);
            }
        }
        dots
    }
}

/// The products of `count` steps, up to what sums have room for.
///
/// Each step's codes are loaded once and meet all T rows before the next: left alone, a compiler
/// takes the rows one after the other, which costs half the speed in reloads.
#[inline(always)]
pub(super) unsafe fn add_steps<I: Bytes, const WIDTH: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    first: usize,
    count: usize,
) -> [I::W; T] {
    // SAFETY: the contract of `tile`.
    unsafe {
        if I::PAIRED {
            return add_pairs_of_steps::<I, WIDTH, T>(codes, acts, first, count);
        }
        let mut products = [I::no_sums(); T];
        if count % 4 == 0 {
            for at in (first..first + count).step_by(4) {
                multiply_step::<I, WIDTH, T>(codes, acts, at, &mut products);
                multiply_step::<I, WIDTH, T>(codes, acts, at + 1, &mut products);
                multiply_step::<I, WIDTH, T>(codes, acts, at + 2, &mut products);
                multiply_step::<I, WIDTH, T>(codes, acts, at + 3, &mut products);
            }
        } else {
            for step in 0..count {
                multiply_step::<I, WIDTH, T>(codes, acts, first + step, &mut products);
            }
        }
        products
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

/// `add_steps`, two steps and two rows of activations at a time; a row that is left meets itself.
#[inline(always)]
unsafe fn add_pairs_of_steps<I: Bytes, const WIDTH: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    first: usize,
    count: usize,
) -> [I::W; T] {
    // SAFETY: the contract of `tile`.
    unsafe {
        // One for each two rows.
        let mut sums = [[I::no_sums(); 2]; T];
        for step in (first..first + count).step_by(2) {
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
        let mut products = [I::no_sums(); T];
        for t in 0..T {
            products[t] = I::unpair(sums[t / 2])[t % 2];
        }
        products
    }
}

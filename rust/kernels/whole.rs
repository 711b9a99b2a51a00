//! Formats with two groups of 16 in a chunk whose scales are whole numbers times an f16 that 256
//! columns share: Q2_K and Q3_K. A chunk's products are then summed up as integers, scales
//! and all, and a span of 256 columns before the f16 that it shares comes in:
//!
//! ```text
//! acc = fma(min, d * float(sum a), acc)                              for each group of 16
//! span = fma(float(sum scale (code - offset) a), d, span)            for each chunk of 32
//! acc = fma(span, shared, acc)
//! ```
//!
//! A chunk's sum is far below 2^24, so that floats hold it, and it may be summed up in any way. Codes
//! times their scales fit a byte: where many rows of activations meet them, and there is a dot
//! product of bytes, they are multiplied first.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use super::bytes::Bytes;
use super::isa::{LANES, STEP_BYTES, STEPS};
use super::linear::Product;
use super::memory::prefetch;
use super::scales::SPAN;
use super::shares::{Shares, place};
use super::span::Span;
use super::tiles::{Stretch, multiply, multiply_step};
use crate::formats::Codes;

/// Groups of a span.
const GROUPS: usize = 2 * SPAN;
/// Rows of activations from which on it pays to multiply codes by their scales.
const MANY: usize = 16;

/// The codes times their scales: Q2_K's are up to 3 x 15, Q3_K's -4..=3 times -32..=31.
fn merged(codes: Codes) -> Codes {
    match codes.bits {
        2 => Codes { bits: 6, ..codes },
        _ => Codes { bits: 8, offset: 127, ..codes },
    }
}

impl Product<'_> {
    /// The product that several rows of activations take: with merged codes where that pays.
    pub(super) fn for_rows<I: Bytes>(&self) -> Product<'_> {
        // Without a dot product of bytes, codes of eight bits cost more.
        let most = if I::ROOM[8 - 4] == STEPS { 3 } else { 0 };
        let merges = self.whole && self.codes.bits <= most && self.n >= MANY;
        let codes = if merges { merged(self.codes) } else { self.codes };
        Product { codes, merged: merges, ..*self }
    }

    /// All rows of activations against an unpacked block.
    #[inline(always)]
    pub(super) unsafe fn whole_tiles_of<I: Bytes>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        at: Stretch,
    ) {
        // SAFETY: the contract of `linear_int8`; `span` holds the block.
        unsafe {
            if !self.merged {
                I::tiles::<4, 2, true>(self, block, span, shares, at);
                return;
            }
            match self.codes.bits {
                6 => I::tiles::<6, 1, true>(self, block, span, shares, at),
                _ => I::tiles::<8, 1, true>(self, block, span, shares, at),
            }
        }
    }

    /// Multiplies the codes of unpacked chunks by their scales.
    #[inline(always)]
    pub(super) unsafe fn merge(&self, span: Span, chunks: usize) {
        let offset = self.w.codes().map_or(0, |codes| codes.offset);
        for group in 0..2 * chunks {
            // SAFETY: `span` holds all groups.
            unsafe {
                let codes = span.codes.add(group * STEPS / 2 * STEP_BYTES);
                let scales = span.scales.add(group * LANES).cast_const();
                multiply_codes(codes, scales, offset.into(), self.codes.offset.into());
            }
        }
    }

    /// T rows of activations against an unpacked block; PARTS is 1 where codes are merged.
    #[inline(always)]
    pub(super) unsafe fn whole_tile<
        I: Bytes,
        const WIDTH: usize,
        const PARTS: usize,
        const T: usize,
    >(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        at: Stretch,
        row: usize,
    ) {
        let (chunks, group) = (self.acts.chunks, I::TILE[WIDTH - 4]);
        // Where a part's shares begin.
        let before = place(row, group, chunks * 2);
        // SAFETY: the contract of `linear_int8`; `span` and `shares` hold the stretch.
        unsafe {
            let mut sums = at.begin::<I, T>(row);
            let mut acts = [std::ptr::null(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).cast_const();
            }
            for first in (at.start..at.end).step_by(SPAN) {
                let here = span.after(first, 2);
                let lows = shares.lows.wrapping_add(before + 2 * first * group);
                // Before the products: so many sums as both have do not fit registers.
                self.add_minima::<I, T>(here, lows, group, &mut sums);
                let mut spans = [I::splat(0.0); T];
                for chunk in first..first + SPAN {
                    // The first tile asks for the codes that come later: memory works meanwhile.
                    if row == 0 {
                        prefetch(at.ahead.wrapping_add(chunk * at.chunk_bytes), at.chunk_bytes);
                    }
                    let part = before + 2 * chunk * group;
                    let (starts, scales) = (shares.starts.add(part), shares.scales.add(part));
                    let mut dots = [I::splat_i(0); T];
                    if PARTS == 1 {
                        multiply::<I, WIDTH, 1, T>(span.codes, &acts, chunk, starts, &mut dots);
                    } else {
                        add_part::<I, WIDTH, T>(span, &acts, 2 * chunk, starts, &mut dots);
                        let starts = starts.add(group);
                        add_part::<I, WIDTH, T>(span, &acts, 2 * chunk + 1, starts, &mut dots);
                    }
                    for t in 0..T {
                        spans[t] = I::fma(I::float(dots[t]), I::splat(*scales.add(t)), spans[t]);
                    }
                }
                let shared = I::load(here.shared);
                for t in 0..T {
                    sums[t] = I::fma(spans[t], shared, sums[t]);
                }
            }
            self.end::<I, T>(block, row, at, &sums);
        }
    }

    /// Adds a span's minima.
    #[inline(always)]
    unsafe fn add_minima<I: Bytes, const T: usize>(
        &self,
        at: Span,
        lows: *const f32,
        group: usize,
        sums: &mut [I::F; T],
    ) {
        if !self.codes.has_min {
            return;
        }
        for part in 0..GROUPS {
            // SAFETY: the contract of `whole_tile`; `at` and `lows` are of the span.
            unsafe {
                let min = I::load(at.mins.add(part * LANES));
                for t in 0..T {
                    let low = I::splat(*lows.add(part * group + t));
                    sums[t] = I::fma(min, low, sums[t]);
                }
            }
        }
    }
}

/// Adds a group's products, from `starts` on and times its scale, for T rows of activations.
#[inline(always)]
unsafe fn add_part<I: Bytes, const WIDTH: usize, const T: usize>(
    span: Span,
    acts: &[*const i8; T],
    part: usize,
    starts: *const i32,
    dots: &mut [I::I; T],
) {
    debug_assert!(I::ROOM[WIDTH - 4] >= STEPS / 2);
    // SAFETY: the contract of `whole_tile`. Starts are up to 4 x 16 x 127, products 4 x 2 x 7 x 127.
    unsafe {
        let mut sums = [I::no_sums(); T];
        for t in 0..T {
            sums[t] = I::sums_from(*starts.add(t));
        }
        let step = part * STEPS / 2;
        multiply_step::<I, WIDTH, T>(span.codes, acts, step, &mut sums);
        multiply_step::<I, WIDTH, T>(span.codes, acts, step + 1, &mut sums);
        multiply_step::<I, WIDTH, T>(span.codes, acts, step + 2, &mut sums);
        multiply_step::<I, WIDTH, T>(span.codes, acts, step + 3, &mut sums);
        let scale = I::round(I::load(span.scales.add(part * LANES)));
        for t in 0..T {
            dots[t] = I::fold_by(dots[t], sums[t], scale);
        }
    }
}

/// A group's codes of 16 rows, times their scales: (code - offset) scale + `after`, which fits a byte.
///
/// Four codes are multiplied at a time, as digits of a number that each stay below 256.
#[inline(always)]
unsafe fn multiply_codes(codes: *mut u8, scales: *const f32, offset: i32, after: i32) {
    // Loops over lanes, for a compiler to take all at once.
    let (mut by, mut digits) = ([0u32; LANES], [0u32; LANES]);
    // SAFETY: four steps of codes and 16 scales, small whole numbers, are at the pointers.
    unsafe {
        for lane in 0..LANES {
            let scale: i32 = (*scales.add(lane)).to_int_unchecked();
            by[lane] = scale as u32;
            digits[lane] = ((after - offset * scale) as u32).wrapping_mul(0x0101_0101);
        }
        for step in 0..STEPS / 2 {
            let four = codes.add(step * STEP_BYTES).cast::<[u32; LANES]>();
            let mut q = four.read_unaligned();
            for lane in 0..LANES {
                q[lane] = q[lane].wrapping_mul(by[lane]).wrapping_add(digits[lane]);
            }
            four.write_unaligned(q);
        }
    }
}

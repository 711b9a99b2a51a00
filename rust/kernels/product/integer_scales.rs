//! Formats with 16 groups in 256 columns whose scales are whole numbers times an f16 that all of them
//! share: Q2_K, Q3_K, IQ1_M, IQ2_XS and IQ2_S. The 256 activations share a scale d too, so that all
//! products of a span of 256 columns are summed up as integers, scales and all:
//!
//! ```text
//! acc = fma(float(sum min sum a), dmin d, acc)               where the format has minima
//! acc = fma(float(sum scale (code - offset) a), shared d, acc)
//! ```
//!
//! What codes are offset by is taken from the sum at once: `sum -offset scale sum a`, which looks like what
//! minima add. Both take the sums of two groups of activations and two numbers of the weights, 16 bits
//! each, at a time: these `pairs` take the place of a span's minima.
//!
//! Q2_K's and Q3_K's codes times their scales fit a byte: where many rows of activations meet them, and there
//! is a dot product of bytes, they are multiplied first.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use crate::formats::{Codes, Scales};
use crate::kernels::isa::bytes::{ANY, Bytes};
use crate::kernels::isa::floats::{LANES, STEP_BYTES, STEPS};
use crate::kernels::layout::memory::prefetch;
use crate::kernels::layout::packed::{Source, Storage};
use crate::kernels::layout::scales::{SPAN, halved};
use crate::kernels::product::activation_terms::Shares;
use crate::kernels::product::dot_steps::{add_steps, multiply_step};
use crate::kernels::product::int8::Product;
use crate::kernels::product::many_tokens::Stretch;
use crate::kernels::unpack::span::Span;

/// Steps of a group.
const GROUP: usize = STEPS / 2;
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
    pub(crate) fn for_rows<I: Bytes>(&self) -> Product<'_> {
        // Without a dot product of bytes, codes of eight bits cost more.
        let most = if I::ROOM[8 - 4] == ANY { 3 } else { 0 };
        let merges = self.whole && self.codes.bits <= most && self.n >= MANY;
        let codes = if merges { merged(self.codes) } else { self.codes };
        Product { codes, merged: merges, ..*self }
    }

    /// All rows of activations against an unpacked block.
    #[inline(always)]
    pub(crate) unsafe fn whole_tiles_of<I: Bytes>(
        &self,
        block: usize,
        span: Span,
        shares: Shares,
        at: Stretch,
    ) {
        // SAFETY: the contract of `linear_int8`; `span` holds the block.
        unsafe {
            match (self.merged, self.codes.bits) {
                (false, ..=4) => I::tiles::<4, 2, true>(self, block, span, shares, at),
                (false, 5) => I::tiles::<5, 2, true>(self, block, span, shares, at),
                (false, _) => I::tiles::<7, 2, true>(self, block, span, shares, at),
                (true, 6) => I::tiles::<6, 1, true>(self, block, span, shares, at),
                (true, _) => I::tiles::<8, 1, true>(self, block, span, shares, at),
            }
        }
    }

    /// Multiplies the codes of unpacked chunks by their scales.
    #[inline(always)]
    pub(crate) unsafe fn merge(&self, span: Span, chunks: usize) {
        let offset = self.w.codes().map_or(0, |codes| codes.offset);
        for group in 0..2 * chunks {
            // SAFETY: `span` holds all groups.
            unsafe {
                let codes = span.codes.add(group * GROUP * STEP_BYTES);
                let scales = span.scales.add(group * LANES).cast_const().cast();
                multiply_codes(codes, scales, offset.into(), self.codes.offset.into());
            }
        }
    }

    /// T rows of activations against an unpacked block; PARTS is 1 where codes are merged.
    #[inline(always)]
    pub(crate) unsafe fn whole_tile<
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
        // SAFETY: the contract of `linear_int8`; `span` and `shares` hold the stretch.
        unsafe {
            let mut sums = at.begin::<I, T>(row);
            let mut acts = [std::ptr::null(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).cast_const();
            }
            let shares = shares.of_row(row, self.acts.chunks);
            for first in (at.start..at.end).step_by(SPAN) {
                let (here, shares) = (span.after(first, 2), shares.after(first));
                let mut dots = self.begin_whole::<I, T>(here, shares, &mut sums);
                if row == 0 {
                    // The first tile asks for the codes that come later: memory works meanwhile.
                    let ahead = at.ahead.wrapping_add(first * at.chunk_bytes);
                    prefetch(ahead, SPAN * at.chunk_bytes);
                }
                if PARTS == 1 {
                    let products = add_steps::<I, WIDTH, T>(span.codes, &acts, first * STEPS, ANY);
                    for t in 0..T {
                        dots[t] = I::fold(dots[t], products[t]);
                    }
                } else {
                    for part in 2 * first..2 * (first + SPAN) {
                        add_group::<I, WIDTH, T>(span, &acts, part, &mut dots);
                    }
                }
                end_whole::<I, T>(here, shares, dots, &mut sums);
            }
            self.end::<I, T>(block, row, at, &sums);
        }
    }

    /// Where a span's dot products begin, after its minima.
    #[inline(always)]
    pub(crate) unsafe fn begin_whole<I: Bytes, const T: usize>(
        &self,
        at: Span,
        shares: Shares,
        sums: &mut [I::F; T],
    ) -> [I::I; T] {
        // SAFETY: the contract of `whole_tile`; `at` and `shares` begin with the span.
        unsafe {
            let mut dots = [I::splat_i(0); T];
            if self.merged && !self.codes.has_min {
                for t in 0..T {
                    dots[t] = I::splat_i(*shares.starts.add(t));
                }
                return dots;
            }
            for chunk in 0..SPAN {
                let pairs = I::words(at.mins.add(2 * chunk * LANES).cast());
                for t in 0..T {
                    let halves = I::splat_i(*shares.starts.add(chunk * shares.group + t));
                    dots[t] = I::dot_pairs(dots[t], pairs, halves);
                }
            }
            if !self.codes.has_min {
                return dots;
            }
            let shared = I::load(at.shared.add(LANES));
            for t in 0..T {
                let d = I::mul(shared, I::splat(*shares.scales.add(t)));
                sums[t] = I::fma(I::float(dots[t]), d, sums[t]);
            }
            [I::splat_i(0); T]
        }
    }

    /// Few rows of activations, as `few::Product::few_by`.
    #[inline(always)]
    pub(crate) unsafe fn few_whole<I: Bytes, const T: usize>(
        &self,
        blocks: Range<usize>,
        span: Span,
        shares: Shares,
        row: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            match (&self.w.storage, self.codes.bits) {
                (Storage::Words(..), 5) => {
                    self.part::<I, 0, 5, false, 2, true, T>(blocks, span, shares, row)
                }
                (Storage::Words(..), _) => {
                    self.part::<I, 0, 7, false, 2, true, T>(blocks, span, shares, row)
                }
                (_, 2) => self.part::<I, 2, 4, false, 2, true, T>(blocks, span, shares, row),
                (_, 3) => self.part::<I, 3, 4, false, 2, true, T>(blocks, span, shares, row),
                (_, 5) => self.part::<I, 3, 5, true, 2, true, T>(blocks, span, shares, row),
                _ => self.part::<I, 3, 7, true, 2, true, T>(blocks, span, shares, row),
            }
        }
    }
}

/// Adds a span's dot products.
#[inline(always)]
pub(crate) unsafe fn end_whole<I: Bytes, const T: usize>(
    at: Span,
    shares: Shares,
    dots: [I::I; T],
    sums: &mut [I::F; T],
) {
    // SAFETY: the contract of `whole_tile`; `at` and `shares` begin with the span.
    unsafe {
        let shared = I::load(at.shared);
        for t in 0..T {
            let d = I::mul(shared, I::splat(*shares.scales.add(t)));
            sums[t] = I::fma(I::float(dots[t]), d, sums[t]);
        }
    }
}

/// Adds the products of group `part`, times its scale, for T rows of activations.
#[inline(always)]
unsafe fn add_group<I: Bytes, const WIDTH: usize, const T: usize>(
    span: Span,
    acts: &[*const i8; T],
    part: usize,
    dots: &mut [I::I; T],
) {
    // SAFETY: the contract of `whole_tile`.
    unsafe {
        let scale = I::words(span.scales.add(part * LANES).cast());
        let room = I::ROOM[WIDTH - 4].min(GROUP);
        for first in (0..GROUP).step_by(room) {
            let mut products = [I::no_sums(); T];
            for step in first..first + room {
                multiply_step::<I, WIDTH, T>(span.codes, acts, part * GROUP + step, &mut products);
            }
            for t in 0..T {
                dots[t] = I::fold_by(dots[t], products[t], scale);
            }
        }
    }
}

/// Widens the scales of a span of 16 rows and leaves them whole: as `fold_by` takes them, with the f16 that
/// they share, and the pairs that the sums of activations meet.
///
/// # Safety
///
/// `source` holds the span, `codes.whole()`, `out` has room, and the CPU has the instruction set.
#[inline(always)]
pub(crate) unsafe fn widen_whole<I: Bytes>(codes: &Codes, source: Source, out: Span) {
    // SAFETY: the caller's promise.
    unsafe {
        let d = I::load_f16(source.scales.cast());
        if codes.scales == Scales::Nibbles {
            let dmin = I::load_f16(source.scales.add(2 * LANES).cast());
            I::store(out.shared, d);
            I::store(out.shared.add(LANES), I::mul(dmin, I::splat(-1.0)));
            for chunk in 0..SPAN {
                let at = source.scales.add((4 + 2 * chunk) * LANES);
                let (first, second) = (I::load_u8(at), I::load_u8(at.add(LANES)));
                let low = I::splat_i(15);
                let scales = [I::and_i(first, low), I::and_i(second, low)];
                let mins = [I::shift_right::<4>(first), I::shift_right::<4>(second)];
                write_whole::<I>(out, chunk, scales, mins);
            }
            return;
        }
        I::store(out.shared, I::mul(d, I::splat(halved(codes))));
        for chunk in 0..SPAN {
            let at = source.scales.add((2 + 2 * chunk) * LANES);
            let scales = [I::load_i8(at), I::load_i8(at.add(LANES))];
            write_whole::<I>(out, chunk, scales, less::<I>(scales, codes.offset));
        }
    }
}

/// -offset times both scales.
#[inline(always)]
pub(crate) unsafe fn less<I: Bytes>(scales: [I::I; 2], offset: u8) -> [I::I; 2] {
    // SAFETY: the CPU has the instruction set. Small whole numbers, exact as floats.
    unsafe {
        let by = I::splat(-f32::from(offset));
        [I::round(I::mul(I::float(scales[0]), by)), I::round(I::mul(I::float(scales[1]), by))]
    }
}

/// Writes the scales of a chunk's groups and the pair that their activations' sums meet.
#[inline(always)]
pub(crate) unsafe fn write_whole<I: Bytes>(
    out: Span,
    chunk: usize,
    scales: [I::I; 2],
    pair: [I::I; 2],
) {
    // SAFETY: `out` has room for the chunk, the CPU has the instruction set.
    unsafe {
        let at = out.scales.add(2 * chunk * LANES).cast();
        I::store_words(at, I::factor(scales[0]));
        I::store_words(at.add(LANES), I::factor(scales[1]));
        let low = I::and_i(pair[0], I::splat_i(0xffff));
        let both = I::add_i(low, I::shift_left::<16>(pair[1]));
        I::store_words(out.mins.add(2 * chunk * LANES).cast(), both);
    }
}

/// A group's codes of 16 rows, times their scales: (code - offset) scale + `after`, which fits a byte.
///
/// Four codes are multiplied at a time, as digits of a number that each stay below 256.
#[inline(always)]
unsafe fn multiply_codes(codes: *mut u8, scales: *const i32, offset: i32, after: i32) {
    // Loops over lanes, for a compiler to take all at once.
    let (mut by, mut digits) = ([0u32; LANES], [0u32; LANES]);
    // SAFETY: four steps of codes and 16 factors are at the pointers.
    unsafe {
        for lane in 0..LANES {
            // The lower half of a factor is the number itself, in all sets.
            let scale = i32::from(*scales.add(lane) as i16);
            by[lane] = scale as u32;
            digits[lane] = ((after - offset * scale) as u32).wrapping_mul(0x0101_0101);
        }
        for step in 0..GROUP {
            let four = codes.add(step * STEP_BYTES).cast::<[u32; LANES]>();
            let mut q = four.read_unaligned();
            for lane in 0..LANES {
                q[lane] = q[lane].wrapping_mul(by[lane]).wrapping_add(digits[lane]);
            }
            four.write_unaligned(q);
        }
    }
}

//! Products with integer scales: 256 columns are summed as integers.
//!
//! In Q2_K, Q3_K, IQ1_M, IQ2_XS and IQ2_S, all 16 scales of a super-block are integers times one f16. Its 256
//! activations share a scale d too, so that the products of a span are summed as integers, scales included:
//!
//! ```text
//! acc = fma(float(sum min sum a), dmin d, acc)               if the format has minima
//! acc = fma(float(sum scale (code - offset) a), shared d, acc)
//! ```
//!
//! The offset of codes is subtracted from the sum at once: `sum -offset scale sum a` has the form of the
//! minima's sum. Both multiply the activation sums of two groups with two numbers of the weights, 16 bits
//! each: these pairs take the place of a span's minima.
//!
//! Codes of Q2_K and Q3_K times their scales fit a byte: for many tokens, and on CPUs with a dot product of
//! bytes, they are multiplied in advance ("merged").

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use super::dot_steps::{add_steps, multiply_step};
use crate::formats::Codes;
use crate::kernels::data::{ActivationTerms, Product, Span, Stretch};
use crate::kernels::isa::bytes::{ANY, Bytes};
use crate::kernels::layout::memory::prefetch;
use crate::kernels::outlined::Outlined;
use crate::kernels::shape::{LANES, SPAN, STEP_BYTES, STEPS};

/// Steps of a group.
const GROUP: usize = STEPS / 2;
/// Fewest rows of activations for which codes are multiplied by their scales in advance.
const MANY: usize = 16;

/// The codes after merging: Q2_K's are up to 3 x 15, Q3_K's are -4..=3 times -32..=31.
fn merged(codes: Codes) -> Codes {
    match codes.bits {
        2 => Codes { bits: 6, ..codes },
        _ => Codes { bits: 8, offset: 127, ..codes },
    }
}

impl Product<'_> {
    /// The product for many tokens, with merged codes if that is faster.
    pub(super) fn for_many_tokens<I: Bytes>(&self) -> Product<'_> {
        // Without a dot product of bytes, codes of eight bits cost more.
        let most = if I::ROOM[8 - 4] == ANY { 3 } else { 0 };
        let merges = self.integer_scales && self.codes.bits <= most && self.n >= MANY;
        let codes = if merges { merged(self.codes) } else { self.codes };
        Product { codes, merged: merges, ..*self }
    }

    /// Multiplies an unpacked block with all rows of activations.
    ///
    /// # Safety
    ///
    /// As `linear_int8`; `span` holds the block.
    #[inline(always)]
    pub(super) unsafe fn integer_tiles<I: Outlined>(
        &self,
        block: usize,
        span: Span,
        terms: ActivationTerms,
        at: Stretch,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.merged, self.codes.bits) {
                (false, ..=4) => I::multiply_tiles::<4, 2, true>(self, block, span, terms, at),
                (false, 5) => I::multiply_tiles::<5, 2, true>(self, block, span, terms, at),
                (false, _) => I::multiply_tiles::<7, 2, true>(self, block, span, terms, at),
                (true, 6) => I::multiply_tiles::<6, 1, true>(self, block, span, terms, at),
                (true, _) => I::multiply_tiles::<8, 1, true>(self, block, span, terms, at),
            }
        }
    }

    /// Multiplies the codes of unpacked chunks by their scales.
    ///
    /// # Safety
    ///
    /// `span` holds the chunks.
    #[inline(always)]
    pub(super) unsafe fn merge(&self, span: Span, chunks: usize) {
        let offset = self.w.codes().map_or(0, |codes| codes.offset);
        for group in 0..2 * chunks {
            // SAFETY: the caller's promise.
            unsafe {
                let codes = span.codes.add(group * GROUP * STEP_BYTES);
                let scales = span.scales.add(group * LANES).cast_const().cast();
                multiply_codes(codes, scales, offset.into(), self.codes.offset.into());
            }
        }
    }

    /// Multiplies an unpacked stretch with T rows of activations; GROUPS is 1 if codes are merged.
    ///
    /// # Safety
    ///
    /// As `linear_int8`; `span` and `terms` hold the stretch.
    #[inline(always)]
    pub(super) unsafe fn integer_tile<
        I: Bytes,
        const WIDTH: usize,
        const GROUPS: usize,
        const T: usize,
    >(
        &self,
        block: usize,
        span: Span,
        terms: ActivationTerms,
        at: Stretch,
        row: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = at.begin::<I, T>(row);
            let mut acts = [std::ptr::null(); T];
            for t in 0..T {
                acts[t] = self.acts.codes(row + t).cast_const();
            }
            let terms = terms.of_row(row, self.acts.chunks);
            for first in (at.start..at.end).step_by(SPAN) {
                let (here, terms) = (span.after(first, 2), terms.after(first));
                let mut dots = self.begin_integer_span::<I, T>(here, terms, &mut sums);
                if row == 0 {
                    // The first tile prefetches later codes: memory works meanwhile.
                    let ahead = at.ahead.wrapping_add(first * at.chunk_bytes);
                    prefetch(ahead, SPAN * at.chunk_bytes);
                }
                if GROUPS == 1 {
                    let products = add_steps::<I, WIDTH, T>(span.codes, &acts, first * STEPS, ANY);
                    for t in 0..T {
                        dots[t] = I::fold(dots[t], products[t]);
                    }
                } else {
                    for group in 2 * first..2 * (first + SPAN) {
                        add_group::<I, WIDTH, T>(span, &acts, group, &mut dots);
                    }
                }
                end_integer_span::<I, T>(here, terms, dots, &mut sums);
            }
            self.end_stretch::<I, T>(block, row, at, &sums);
        }
    }

    /// Adds the minima of a span and returns the start values of its dot products.
    ///
    /// # Safety
    ///
    /// As `linear_int8`; `at` and `terms` begin with the span.
    #[inline(always)]
    pub(super) unsafe fn begin_integer_span<I: Bytes, const T: usize>(
        &self,
        at: Span,
        terms: ActivationTerms,
        sums: &mut [I::F; T],
    ) -> [I::I; T] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut dots = [I::splat_i(0); T];
            if self.merged && !self.codes.has_min {
                for t in 0..T {
                    dots[t] = I::splat_i(*terms.starts.add(t));
                }
                return dots;
            }
            for chunk in 0..SPAN {
                let pairs = I::words(at.mins.add(2 * chunk * LANES).cast());
                for t in 0..T {
                    let halves = I::splat_i(*terms.starts.add(chunk * terms.tile + t));
                    dots[t] = I::dot_pairs(dots[t], pairs, halves);
                }
            }
            if !self.codes.has_min {
                return dots;
            }
            let shared = I::load(at.shared.add(LANES));
            for t in 0..T {
                let d = I::mul(shared, I::splat(*terms.scales.add(t)));
                sums[t] = I::fma(I::float(dots[t]), d, sums[t]);
            }
            [I::splat_i(0); T]
        }
    }
}

/// Scales the dot products of a span and adds them to the sums.
///
/// # Safety
///
/// `at` and `terms` begin with the span, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn end_integer_span<I: Bytes, const T: usize>(
    at: Span,
    terms: ActivationTerms,
    dots: [I::I; T],
    sums: &mut [I::F; T],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let shared = I::load(at.shared);
        for t in 0..T {
            let d = I::mul(shared, I::splat(*terms.scales.add(t)));
            sums[t] = I::fma(I::float(dots[t]), d, sums[t]);
        }
    }
}

/// Adds the products of group `group`, times its scale, for T rows of activations.
#[inline(always)]
unsafe fn add_group<I: Bytes, const WIDTH: usize, const T: usize>(
    span: Span,
    acts: &[*const i8; T],
    group: usize,
    dots: &mut [I::I; T],
) {
    // SAFETY: the contract of `integer_tile`.
    unsafe {
        let scale = I::words(span.scales.add(group * LANES).cast());
        let room = I::ROOM[WIDTH - 4].min(GROUP);
        for first in (0..GROUP).step_by(room) {
            let mut products = [I::no_sums(); T];
            for step in first..first + room {
                multiply_step::<I, WIDTH, T>(span.codes, acts, group * GROUP + step, &mut products);
            }
            for t in 0..T {
                dots[t] = I::fold_by(dots[t], products[t], scale);
            }
        }
    }
}

/// Replaces the codes of a group of 16 rows by (code - offset) scale + `after`, which fits a byte.
///
/// Four codes are multiplied at a time, as digits of one number: each digit stays below 256.
#[inline(always)]
unsafe fn multiply_codes(codes: *mut u8, scales: *const i32, offset: i32, after: i32) {
    // Loops over lanes, which the compiler vectorizes.
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

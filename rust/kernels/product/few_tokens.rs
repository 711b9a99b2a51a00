//! Products with few tokens (generation): the choice of a specialized loop of `unpack_multiply.rs`.
//!
//! Up to four rows of activations are multiplied at a time; more rows read the block again, from the
//! second-level cache.

use std::ops::Range;

use super::scratch::Scratch;
use crate::kernels::data::{ActivationTerms, Product, Span};
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::packed::Storage;
use crate::kernels::layout::scales::groups_of_chunk;
use crate::kernels::outlined::Outlined;
use crate::kernels::shape::SPAN;

/// Calls `few_of` with BITS, WIDTH and LOOK for a format: planes of BITS bits (0: bytes that are
/// unpacked in advance), codes of WIDTH bits (4 to 8), LOOK if the planes hold indices of levels.
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

impl Product<'_> {
    /// True if there are so few tokens that it is faster to unpack codes with each product.
    #[inline(always)]
    pub(super) fn has_few_tokens<I: Bytes>(&self) -> bool {
        let passes = I::PASSES[self.width() - 4];
        let passes = if self.integer_scales { passes.min(2) } else { passes };
        // Words are unpacked a span at a time, for one row as for several.
        let words = matches!(self.w.storage, Storage::Words(..));
        self.n == 1 || (!words && self.n <= passes * I::FEW[self.width() - 4])
    }

    /// Multiplies blocks with few tokens, as many at a time as registers hold.
    ///
    /// # Safety
    ///
    /// As `linear_int8`.
    #[inline(always)]
    pub(super) unsafe fn few_tokens<I: Outlined>(
        &self,
        blocks: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let few = I::FEW[self.width() - 4];
        let tile = self.n.div_ceil(self.n.div_ceil(few));
        // SAFETY: the caller's promise.
        unsafe {
            let span = scratch.span(SPAN);
            // Generation's case is compiled for itself.
            let terms = match tile {
                1 => self.terms::<I>(1, &mut scratch.terms),
                _ => self.terms::<I>(tile, &mut scratch.terms),
            };
            if tile == self.n {
                return self.few_rows::<I>(blocks, span, terms, 0, tile);
            }
            for block in blocks {
                for row in (0..self.n).step_by(tile) {
                    let rows = tile.min(self.n - row);
                    self.few_rows::<I>(block..block + 1, span, terms, row, rows);
                }
            }
        }
    }

    /// Multiplies rows `row..row + rows` of activations, one to four.
    #[inline(always)]
    unsafe fn few_rows<I: Outlined>(
        &self,
        blocks: Range<usize>,
        span: Span,
        terms: ActivationTerms,
        row: usize,
        rows: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            match rows {
                1 => self.few_by::<I, 1>(blocks, span, terms, row),
                2 => self.few_by::<I, 2>(blocks, span, terms, row),
                3 => self.few_by::<I, 3>(blocks, span, terms, row),
                _ => self.few_by::<I, 4>(blocks, span, terms, row),
            }
        }
    }

    #[inline(always)]
    unsafe fn few_by<I: Outlined, const T: usize>(
        &self,
        blocks: Range<usize>,
        span: Span,
        terms: ActivationTerms,
        row: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if self.integer_scales {
                self.few_of_integer_scales::<I, T>(blocks, span, terms, row);
            } else {
                for_codes!(self, I, T(blocks, span, terms, row));
            }
        }
    }

    #[inline(always)]
    unsafe fn few_of<
        I: Outlined,
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const T: usize,
    >(
        &self,
        blocks: Range<usize>,
        span: Span,
        terms: ActivationTerms,
        row: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            // Of formats with levels or words, only NVFP4 has groups of 16 with float scales.
            if const { BITS > 0 && (!LOOK || (BITS == 4 && WIDTH == 5)) }
                && groups_of_chunk(&self.codes) == 2
            {
                self.few_with::<I, BITS, WIDTH, LOOK, 2, false, T>(blocks, span, terms, row);
            } else {
                debug_assert!(groups_of_chunk(&self.codes) == 1);
                self.few_with::<I, BITS, WIDTH, LOOK, 1, false, T>(blocks, span, terms, row);
            }
        }
    }

    #[inline(always)]
    unsafe fn few_of_integer_scales<I: Outlined, const T: usize>(
        &self,
        blocks: Range<usize>,
        span: Span,
        terms: ActivationTerms,
        row: usize,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            match (&self.w.storage, self.codes.bits) {
                (Storage::Words(..), 5) => {
                    self.few_with::<I, 0, 5, false, 2, true, T>(blocks, span, terms, row)
                }
                (Storage::Words(..), _) => {
                    self.few_with::<I, 0, 7, false, 2, true, T>(blocks, span, terms, row)
                }
                (_, 2) => self.few_with::<I, 2, 4, false, 2, true, T>(blocks, span, terms, row),
                (_, 3) => self.few_with::<I, 3, 4, false, 2, true, T>(blocks, span, terms, row),
                (_, 5) => self.few_with::<I, 3, 5, true, 2, true, T>(blocks, span, terms, row),
                _ => self.few_with::<I, 3, 7, true, 2, true, T>(blocks, span, terms, row),
            }
        }
    }

    #[inline(always)]
    unsafe fn few_with<
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
        // `few_tokens` takes no more rows at a time, and no more is compiled.
        debug_assert!(T == 1 || (BITS > 0 && T <= I::FEW[WIDTH - 4]));
        if const { T == 1 || (BITS > 0 && T <= I::FEW[WIDTH - 4]) } {
            // SAFETY: the contract of `linear_int8`.
            unsafe {
                I::multiply_spans::<BITS, WIDTH, LOOK, GROUPS, INTEGER_SCALES, T>(
                    self, blocks, span, terms, row,
                );
            }
        }
    }
}

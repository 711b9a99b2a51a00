//! Unpacking IQ2 and IQ3 formats: magnitudes from code books, and signs.
//!
//! In the XXS and XS formats, every eighth sign is the parity of the seven before it.

use super::block_words::{BlockWords, put};
use crate::formats::Format;
use crate::kernels::data::Span;
use crate::kernels::isa::look_up::{Book, LookUp};
use crate::kernels::shape::LANES;

/// For each bit, the parity of the seven bits from there up.
#[inline(always)]
unsafe fn parities<I: LookUp>(x: I::I) -> I::I {
    // SAFETY: the contract of `look_up_span`.
    unsafe {
        let two = I::xor(x, I::bits(x, 1, 31));
        let four = I::xor(two, I::bits(two, 2, 30));
        I::xor(I::xor(four, I::bits(two, 4, 28)), I::bits(x, 6, 26))
    }
}

/// Seven signs from bit `at` up, and an eighth that makes the number of minus signs even.
#[inline(always)]
unsafe fn even<I: LookUp>(x: I::I, parities: I::I, at: u32) -> I::I {
    // SAFETY: the contract of `look_up_span`.
    unsafe {
        let eighth = I::shift_left::<7>(I::bits(parities, at, 1));
        I::add_i(I::bits(x, at, 7), eighth)
    }
}

impl<I: LookUp> BlockWords<I> {
    /// Writes eight codes, from step `2 group` on: a point of eight or two of four, with signs.
    #[inline(always)]
    unsafe fn put_signed<const FOUR: bool>(
        &self,
        out: Span,
        book: Book,
        group: usize,
        signs: I::I,
    ) {
        let (four, l) = if FOUR { (group / 2, group % 2 * 2) } else { (group / 4, group % 4) };
        // SAFETY: as `put` and `points`.
        unsafe {
            let staged = self.staged.add(four * 4 * LANES);
            let [first, last] = I::signed_points::<FOUR>(book, staged, l, signs);
            put::<I>(out, 2 * group, first);
            put::<I>(out, 2 * group + 1, last);
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq2_xxs(&self, out: Span) {
        // SAFETY: 16 words: in turn four indices, and signs with a scale. Indices have 8 bits.
        unsafe {
            let (book, eighth) = (Book::of(Format::IQ2_XXS), self.scaled_d(0.125));
            for k in 0..8 {
                self.stage(book, k, self.word(2 * k), I::splat_i(0), [0, 0]);
            }
            for k in 0..8 {
                self.odd_scale(out, k, (64 * k + 60, 4), eighth);
                let signs = self.word(2 * k + 1);
                let parities = parities::<I>(signs);
                for l in 0..4 {
                    let signs = even::<I>(signs, parities, 7 * l as u32);
                    self.put_signed::<false>(out, book, 4 * k + l, signs);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq2_xs(&self, out: Span) {
        // SAFETY: 18 words: 32 halves, 8 bytes of scales. Indices have 9 bits.
        unsafe {
            let (book, eighth) = (Book::of(Format::IQ2_XS), self.scaled_d(0.125));
            for k in 0..8 {
                let words = [self.word(2 * k), self.word(2 * k + 1)];
                I::stage_halves(book, words, self.staged.add(4 * k * LANES));
                self.odd_scales::<false>(out, k, [512 + 8 * k, 516 + 8 * k], eighth);
            }
            for k in 0..16 {
                let word = self.word(k);
                let parities = parities::<I>(word);
                for l in 0..2 {
                    let signs = even::<I>(word, parities, 16 * l as u32 + 9);
                    self.put_signed::<false>(out, book, 2 * k + l, signs);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq2_s(&self, out: Span) {
        // SAFETY: 20 words: 32 bytes of indices, 32 of signs, 8 of high bits, 8 of scales.
        unsafe {
            let (book, eighth) = (Book::of(Format::IQ2_S), self.scaled_d(0.125));
            for k in 0..8 {
                self.odd_scales::<false>(out, k, [576 + 8 * k, 580 + 8 * k], eighth);
                self.stage(book, k, self.word(k), self.field(512 + 8 * k, 8), [2, 2]);
            }
            for k in 0..8 {
                let signs = self.word(8 + k);
                for l in 0..4 {
                    let signs = I::bits(signs, 8 * l as u32, 8);
                    self.put_signed::<false>(out, book, 4 * k + l, signs);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq3_xxs(&self, out: Span) {
        // SAFETY: 24 words: 64 bytes of indices, 8 words of signs with a scale.
        unsafe {
            let (book, quarter) = (Book::of(Format::IQ3_XXS), self.scaled_d(0.25));
            for k in 0..16 {
                self.stage(book, k, self.word(k), I::splat_i(0), [0, 0]);
            }
            for k in 0..8 {
                self.odd_scale(out, k, (512 + 32 * k + 28, 4), quarter);
                let signs = self.word(16 + k);
                let parities = parities::<I>(signs);
                for l in 0..4 {
                    let signs = even::<I>(signs, parities, 7 * l as u32);
                    self.put_signed::<true>(out, book, 4 * k + l, signs);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq3_s(&self, out: Span) {
        // SAFETY: 27 words: 64 bytes of indices, 8 of ninth bits, 32 of signs, 4 of scales.
        unsafe {
            let book = Book::of(Format::IQ3_S);
            for k in 0..8 {
                self.odd_scale(out, k, (832 + 4 * k, 4), self.d);
            }
            for k in 0..16 {
                self.stage(book, k, self.word(k), self.field(512 + 4 * k, 4), [1, 1]);
            }
            for k in 0..8 {
                let signs = self.word(18 + k);
                for l in 0..4 {
                    let signs = I::bits(signs, 8 * l as u32, 8);
                    self.put_signed::<true>(out, book, 4 * k + l, signs);
                }
            }
        }
    }
}

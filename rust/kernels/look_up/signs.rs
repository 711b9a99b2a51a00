//! IQ2 and IQ3: magnitudes from books, and signs, of which every eighth may follow from seven.

use super::super::isa::LANES;
use super::super::span::Span;
use super::{Book, LookUp, Rows, put};
use crate::formats::Format;

/// The parity of seven bits from each bit up.
#[inline(always)]
unsafe fn parities<I: LookUp>(x: I::I) -> I::I {
    // SAFETY: the contract of `look_up_span`.
    unsafe {
        let two = I::xor(x, I::bits(x, 1, 31));
        let four = I::xor(two, I::bits(two, 2, 30));
        I::xor(I::xor(four, I::bits(two, 4, 28)), I::bits(x, 6, 26))
    }
}

/// Seven signs from bit `at` up, and an eighth that makes their number even, in each row's bytes.
#[inline(always)]
unsafe fn even<I: LookUp>(x: I::I, parities: I::I, at: u32) -> I::B {
    // SAFETY: the contract of `look_up_span`.
    unsafe {
        let eighth = I::shift_left::<7>(I::bits(parities, at, 1));
        I::spread(I::add_i(I::bits(x, at, 7), eighth))
    }
}

impl<I: LookUp> Rows<I> {
    /// Points `2 group` and `2 group + 1` of four elements.
    #[inline(always)]
    unsafe fn pair(&self, book: Book, group: usize) -> [I::B; 2] {
        // SAFETY: as `points`.
        unsafe {
            let (at, l) = (self.staged.add(group / 2 * 4 * LANES), group % 2 * 2);
            [I::points_of_four(book, at, l), I::points_of_four(book, at, l + 1)]
        }
    }

    /// d (0.5 + s) times `by` for group `group`, s four bits from bit `at` up.
    #[inline(always)]
    unsafe fn half_scale(&self, out: Span, group: usize, at: usize, by: f32) {
        // SAFETY: as `word` and `scale`.
        unsafe {
            let s = I::add(I::splat(0.5), I::float(self.field(at, 4)));
            self.scale(out, group, I::mul(I::mul(self.d, s), I::splat(by)));
        }
    }

    /// Writes eight codes, from step `2 group` on: points of a book with signs.
    #[inline(always)]
    unsafe fn put_signed(&self, out: Span, group: usize, points: [I::B; 2], signs: I::B) {
        // SAFETY: as `put`.
        unsafe {
            put::<I>(out, 2 * group, I::signed(points[0], signs, 0));
            put::<I>(out, 2 * group + 1, I::signed(points[1], signs, 4));
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq2_xxs(&self, out: Span) {
        // SAFETY: 16 words: in turn four indices, and signs with a scale. Indices have 8 bits.
        unsafe {
            let book = Book::of(Format::IQ2_XXS);
            for k in 0..8 {
                self.stage(book, k, self.word(2 * k), I::splat_i(0), [0, 0]);
            }
            for k in 0..8 {
                self.half_scale(out, k, 64 * k + 60, 0.25);
                let signs = self.word(2 * k + 1);
                let parities = parities::<I>(signs);
                for l in 0..4 {
                    let points = self.points(book, 4 * k + l);
                    let signs = even::<I>(signs, parities, 7 * l as u32);
                    self.put_signed(out, 4 * k + l, points, signs);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq2_xs(&self, out: Span) {
        // SAFETY: 18 words: 32 halves, 8 bytes of scales. Indices have 9 bits.
        unsafe {
            let book = Book::of(Format::IQ2_XS);
            for k in 0..8 {
                let words = [self.word(2 * k), self.word(2 * k + 1)];
                I::stage_halves(book, words, self.staged.add(4 * k * LANES));
            }
            for k in 0..16 {
                self.half_scale(out, k, 512 + 4 * k, 0.25);
                let word = self.word(k);
                let parities = parities::<I>(word);
                for l in 0..2 {
                    let points = self.points(book, 2 * k + l);
                    let signs = even::<I>(word, parities, 16 * l as u32 + 9);
                    self.put_signed(out, 2 * k + l, points, signs);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq2_s(&self, out: Span) {
        // SAFETY: 20 words: 32 bytes of indices, 32 of signs, 8 of high bits, 8 of scales.
        unsafe {
            let book = Book::of(Format::IQ2_S);
            for k in 0..16 {
                self.half_scale(out, k, 576 + 4 * k, 0.25);
            }
            for k in 0..8 {
                self.stage(book, k, self.word(k), self.field(512 + 8 * k, 8), [2, 2]);
            }
            for k in 0..8 {
                let signs = self.word(8 + k);
                for l in 0..4 {
                    let signs = I::spread(I::bits(signs, 8 * l as u32, 8));
                    self.put_signed(out, 4 * k + l, self.points(book, 4 * k + l), signs);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq3_xxs(&self, out: Span) {
        // SAFETY: 24 words: 64 bytes of indices, 8 words of signs with a scale.
        unsafe {
            let book = Book::of(Format::IQ3_XXS);
            for k in 0..16 {
                self.stage(book, k, self.word(k), I::splat_i(0), [0, 0]);
            }
            for k in 0..8 {
                self.half_scale(out, k, 512 + 32 * k + 28, 0.5);
                let signs = self.word(16 + k);
                let parities = parities::<I>(signs);
                for l in 0..4 {
                    let group = 4 * k + l;
                    let signs = even::<I>(signs, parities, 7 * l as u32);
                    self.put_signed(out, group, self.pair(book, group), signs);
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
                let twice = I::mul(I::splat(2.0), I::float(self.field(832 + 4 * k, 4)));
                self.scale(out, k, I::mul(self.d, I::add(I::splat(1.0), twice)));
            }
            for k in 0..16 {
                self.stage(book, k, self.word(k), self.field(512 + 4 * k, 4), [1, 1]);
            }
            for k in 0..8 {
                let signs = self.word(18 + k);
                for l in 0..4 {
                    let signs = I::spread(I::bits(signs, 8 * l as u32, 8));
                    self.put_signed(out, 4 * k + l, self.pair(book, 4 * k + l), signs);
                }
            }
        }
    }
}

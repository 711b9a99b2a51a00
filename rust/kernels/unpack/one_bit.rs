//! Unpacking TQ1_0 (ternary digits in base 3), and IQ1_S and IQ1_M (eight ternary values a code-book point).

use super::block_words::{BlockWords, put};
use crate::formats::Format;
use crate::kernels::data::Span;
use crate::kernels::isa::look_up::{Book, LookUp};
use crate::kernels::layout::words::WORD_BYTES;
use crate::kernels::shape::LANES;

/// low + high << 8.
#[inline(always)]
unsafe fn join<I: LookUp>(low: I::I, high: I::I) -> I::I {
    // SAFETY: the contract of `look_up_span`.
    unsafe { I::add_i(low, I::shift_left::<8>(high)) }
}

impl<I: LookUp> BlockWords<I> {
    #[inline(always)]
    pub(super) unsafe fn tq1_0(&self, out: Span) {
        // (words, first word, trits of a byte, first step)
        const STRETCHES: [(usize, usize, usize, usize); 3] =
            [(8, 0, 5, 0), (4, 8, 5, 40), (1, 12, 4, 60)];
        // SAFETY: 13 words and 64 steps.
        unsafe {
            for (words, first, trits, step) in STRETCHES {
                for k in 0..words {
                    let mut x = I::bytes(self.words.add((first + k) * WORD_BYTES));
                    for n in 0..trits {
                        put::<I>(out, step + n * words + k, I::trit(x));
                        x = I::triple(x);
                    }
                }
            }
            for chunk in 0..8 {
                self.scale(out, chunk, self.d);
            }
        }
    }

    /// Writes eight codes of IQ1: eight times the point's values plus one, or minus one if `negative`.
    #[inline(always)]
    unsafe fn put_shifted(&self, out: Span, book: Book, group: usize, negative: I::I) {
        // SAFETY: indices of 11 bits are within the book.
        unsafe {
            let shift = I::shift_left::<1>(I::xor(negative, I::splat_i(1)));
            let points = self.points(book, group);
            for (half, points) in points.into_iter().enumerate() {
                put::<I>(out, 2 * group + half, I::add_bytes(points, I::spread(shift)));
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq1_s(&self, out: Span) {
        // SAFETY: 12 words: 32 bytes of indices, 8 halves of the rest.
        unsafe {
            let (book, eighth) = (Book::of(Format::IQ1_S), self.scaled_d(0.125));
            for k in 0..8 {
                let high = 256 + 16 * k;
                self.odd_scale(out, k, (high + 12, 3), eighth);
                self.stage(book, k, self.word(k), self.field(high, 12), [3, 3]);
            }
            for k in 0..8 {
                let negative = self.field(271 + 16 * k, 1);
                for l in 0..4 {
                    self.put_shifted(out, book, 4 * k + l, negative);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn iq1_m(&self, out: Span) {
        // SAFETY: 14 words: 32 bytes of indices, 16 of their high bits and signs, 8 of scales.
        unsafe {
            let book = Book::of(Format::IQ1_M);
            let d = I::mul(self.scattered(), I::splat(0.125));
            for k in 0..8 {
                let at = 384 + 16 * (k / 2) + 6 * (k % 2);
                self.odd_scales::<true>(out, k, [at, at + 3], d);
                self.stage(book, k, self.word(k), self.field(256 + 16 * k, 16), [4, 3]);
            }
            for k in 0..8 {
                let signs = self.field(256 + 16 * k, 16);
                for l in 0..4 {
                    self.put_shifted(out, book, 4 * k + l, I::bits(signs, 4 * l as u32 + 3, 1));
                }
            }
        }
    }

    /// IQ1_M's d: four bits from each of the last four halves.
    #[inline(always)]
    unsafe fn scattered(&self) -> I::F {
        let (mut words, mut halves) = ([0i32; LANES], [0u16; LANES]);
        // SAFETY: as `word`; both arrays hold 16.
        unsafe {
            let low = I::add_i(self.field(396, 4), I::shift_left::<4>(self.field(412, 4)));
            let high = I::add_i(self.field(428, 4), I::shift_left::<4>(self.field(444, 4)));
            I::store_words(words.as_mut_ptr(), join::<I>(low, high));
            for (half, word) in halves.iter_mut().zip(words) {
                *half = word as u16;
            }
            I::load_f16(halves.as_ptr())
        }
    }
}

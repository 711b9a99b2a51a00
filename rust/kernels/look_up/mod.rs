//! Formats whose codes are looked up in books of points, and TQ1_0: 256 columns of 16 rows at a time.
//!
//! The run-time layout (`words.rs`) has four bytes of each of 16 rows side by side, so a lane is a row
//! here as everywhere: fields of bits are taken out of 16 rows at once, points of the book are
//! fetched row by row, signs are put on 64 codes at once. `formats/grid.rs` says what the bytes are.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use std::mem::MaybeUninit;

use super::isa::{Isa, LANES, STEP_BYTES};
use super::span::Span;
use super::words::WORD_BYTES;
use crate::formats::{Format, grid};

/// What an instruction set offers for looked-up codes.
///
/// # Safety
///
/// That of `Isa`.
#[allow(clippy::missing_safety_doc)] // the contract above is that of every method
pub unsafe trait LookUp: Isa {
    /// 16 integers.
    unsafe fn words(p: *const u8) -> Self::I;
    /// Writes 16 integers.
    unsafe fn store_words(p: *mut i32, x: Self::I);
    /// `count` bits from bit `shift` up, fewer than 32.
    unsafe fn bits(x: Self::I, shift: u32, count: u32) -> Self::I;
    /// x ^ y.
    unsafe fn xor(x: Self::I, y: Self::I) -> Self::I;
    /// The low byte of each row's lane, in all four bytes of the row.
    unsafe fn spread(x: Self::I) -> Self::B;
    /// x + y, each byte by itself.
    unsafe fn add_bytes(x: Self::B, y: Self::B) -> Self::B;
    /// 64 plus each byte; less it where bit `first + element` of its byte of `signs` is set.
    unsafe fn signed(magnitudes: Self::B, signs: Self::B, first: u32) -> Self::B;
    /// The points of 16 rows: their first four bytes, and their last.
    unsafe fn points(book: *const u64, indices: *const i32) -> [Self::B; 2];
    /// The points of 16 rows, of four bytes.
    unsafe fn points_of_four(book: *const u32, indices: *const i32) -> Self::B;
    /// 3 x of each byte, modulo 256.
    unsafe fn triple(x: Self::B) -> Self::B;
    /// 3 x / 256 of each byte, rounded down.
    unsafe fn trit(x: Self::B) -> Self::B;
}

/// 16 rows' words, their scales d where the format has them apart, and room for indices.
struct Rows<I: Isa> {
    words: *const u8,
    d: I::F,
    /// [up to 64 points][16]: all are worked out before the first is needed, as the way from vectors
    /// to addresses is long.
    indices: *mut i32,
}

/// Looks up the codes and scales of 256 columns of 16 rows.
///
/// # Safety
///
/// `data` holds the rows' words, `out` has room for a span, the CPU has the instruction set.
#[inline(always)]
pub unsafe fn look_up_span<I: LookUp>(format: Format, data: *const u8, out: Span) {
    // SAFETY: the caller's promise.
    unsafe {
        let d = match super::words::scale_at(format) {
            Some(_) => I::load_f16(data.add(super::words::count(format) * WORD_BYTES).cast()),
            None => I::splat(0.0),
        };
        prefetch(data, LANES * format.block_bytes());
        let mut indices = MaybeUninit::<[i32; 64 * LANES]>::uninit();
        let rows = Rows::<I> { words: data, d, indices: indices.as_mut_ptr().cast() };
        match format {
            Format::TQ1_0 => rows.tq1_0(out),
            Format::IQ1_S => rows.iq1_s(out),
            Format::IQ1_M => rows.iq1_m(out),
            Format::IQ2_XXS => rows.iq2_xxs(out),
            Format::IQ2_XS => rows.iq2_xs(out),
            Format::IQ2_S => rows.iq2_s(out),
            Format::IQ3_XXS => rows.iq3_xxs(out),
            Format::IQ3_S => rows.iq3_s(out),
            _ => unreachable!("other formats are packed as planes"),
        }
    }
}

/// Asks for the span after this one: its words are not read in order, and no CPU guesses that.
#[inline(always)]
fn prefetch(data: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may be of any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.wrapping_add(bytes + line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, bytes);
}

/// Writes the codes of step `step` of 64.
#[inline(always)]
unsafe fn put<I: Isa>(out: Span, step: usize, codes: I::B) {
    // SAFETY: the caller's span has 64 steps.
    unsafe { I::store_bytes(out.codes.add(step * STEP_BYTES), codes) }
}

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

/// low + high << 8.
#[inline(always)]
unsafe fn join<I: LookUp>(low: I::I, high: I::I) -> I::I {
    // SAFETY: the contract of `look_up_span`.
    unsafe { I::add_i(low, I::shift_left::<8>(high)) }
}

impl<I: LookUp> Rows<I> {
    /// Word `k` of each row.
    #[inline(always)]
    unsafe fn word(&self, k: usize) -> I::I {
        // SAFETY: the callers stay within the format's words.
        unsafe { I::words(self.words.add(k * WORD_BYTES)) }
    }

    /// `count` bits of each row from bit `at` up; they lie in one word.
    #[inline(always)]
    unsafe fn field(&self, at: usize, count: u32) -> I::I {
        // SAFETY: as `word`.
        unsafe { I::bits(self.word(at / 32), at as u32 % 32, count) }
    }

    /// Writes the indices of point `point`.
    #[inline(always)]
    unsafe fn index(&self, point: usize, indices: I::I) {
        // SAFETY: there are at most 64 points.
        unsafe { I::store_words(self.indices.add(point * LANES), indices) }
    }

    /// Writes the indices of points `4 k..4 k + 4`: a byte of `low` each, and above it `count` bits of
    /// `high`, which has them `apart` bits from each other.
    #[inline(always)]
    unsafe fn indices(&self, k: usize, low: I::I, high: I::I, [apart, count]: [u32; 2]) {
        // SAFETY: as `index`.
        unsafe {
            for l in 0..4 {
                let low = I::bits(low, 8 * l, 8);
                let above = I::shift_left::<8>(I::bits(high, apart * l, count));
                self.index(4 * k + l as usize, I::add_i(low, above));
            }
        }
    }

    /// Point `point` of eight elements.
    #[inline(always)]
    unsafe fn points(&self, book: *const u64, point: usize) -> [I::B; 2] {
        // SAFETY: `index` wrote the indices, which are within the book.
        unsafe { I::points(book, self.indices.add(point * LANES)) }
    }

    /// Points `2 group` and `2 group + 1` of four elements.
    #[inline(always)]
    unsafe fn pair(&self, book: *const u32, group: usize) -> [I::B; 2] {
        // SAFETY: as `points`.
        unsafe {
            let at = self.indices.add(2 * group * LANES);
            [I::points_of_four(book, at), I::points_of_four(book, at.add(LANES))]
        }
    }

    /// Writes the scales of group `group`.
    #[inline(always)]
    unsafe fn scale(&self, out: Span, group: usize, scale: I::F) {
        // SAFETY: the span has as many groups as the format.
        unsafe { I::store(out.scales.add(group * LANES), scale) }
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
    unsafe fn tq1_0(&self, out: Span) {
        // Words, from which word, trits in a byte, first step.
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

    /// Eight codes of IQ1: eight times the point's values and one more, or less where `negative`.
    #[inline(always)]
    unsafe fn put_shifted(&self, out: Span, group: usize, negative: I::I) {
        // SAFETY: indices of 11 bits are within the book.
        unsafe {
            let shift = I::shift_left::<1>(I::xor(negative, I::splat_i(1)));
            let points = self.points(grid::points(Format::IQ1_S).as_ptr(), group);
            for (half, points) in points.into_iter().enumerate() {
                put::<I>(out, 2 * group + half, I::add_bytes(points, I::spread(shift)));
            }
        }
    }

    /// d (2 s + 1) / 8 for group `group`, s three bits from bit `at` up.
    #[inline(always)]
    unsafe fn odd_scale(&self, out: Span, group: usize, at: usize, d: I::F) {
        // SAFETY: as `word` and `scale`.
        unsafe {
            let odd = I::add_i(I::shift_left::<1>(self.field(at, 3)), I::splat_i(1));
            self.scale(out, group, I::mul(I::mul(d, I::float(odd)), I::splat(0.125)));
        }
    }

    #[inline(always)]
    unsafe fn iq1_s(&self, out: Span) {
        // SAFETY: 12 words: 32 bytes of indices, 8 halves of the rest.
        unsafe {
            for k in 0..8 {
                let high = 256 + 16 * k;
                self.odd_scale(out, k, high + 12, self.d);
                self.indices(k, self.word(k), self.field(high, 12), [3, 3]);
            }
            for k in 0..8 {
                let negative = self.field(271 + 16 * k, 1);
                for l in 0..4 {
                    self.put_shifted(out, 4 * k + l, negative);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn iq1_m(&self, out: Span) {
        // SAFETY: 14 words: 32 bytes of indices, 16 of their high bits and signs, 8 of scales.
        unsafe {
            let d = self.scattered();
            for k in 0..16 {
                self.odd_scale(out, k, 384 + 16 * (k / 4) + 3 * (k % 4), d);
            }
            for k in 0..8 {
                self.indices(k, self.word(k), self.field(256 + 16 * k, 16), [4, 3]);
            }
            for k in 0..8 {
                let signs = self.field(256 + 16 * k, 16);
                for l in 0..4 {
                    self.put_shifted(out, 4 * k + l, I::bits(signs, 4 * l as u32 + 3, 1));
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

    #[inline(always)]
    unsafe fn iq2_xxs(&self, out: Span) {
        // SAFETY: 16 words: in turn four indices, and signs with a scale. Indices have 8 bits.
        unsafe {
            let book = grid::points(Format::IQ2_XXS).as_ptr();
            for k in 0..8 {
                self.indices(k, self.word(2 * k), I::splat_i(0), [0, 0]);
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
    unsafe fn iq2_xs(&self, out: Span) {
        // SAFETY: 18 words: 32 halves, 8 bytes of scales. Indices have 9 bits.
        unsafe {
            let book = grid::points(Format::IQ2_XS).as_ptr();
            for k in 0..16 {
                let word = self.word(k);
                self.index(2 * k, I::bits(word, 0, 9));
                self.index(2 * k + 1, I::bits(word, 16, 9));
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
    unsafe fn iq2_s(&self, out: Span) {
        // SAFETY: 20 words: 32 bytes of indices, 32 of signs, 8 of high bits, 8 of scales.
        unsafe {
            let book = grid::points(Format::IQ2_S).as_ptr();
            for k in 0..16 {
                self.half_scale(out, k, 576 + 4 * k, 0.25);
            }
            for k in 0..8 {
                self.indices(k, self.word(k), self.field(512 + 8 * k, 8), [2, 2]);
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
    unsafe fn iq3_xxs(&self, out: Span) {
        // SAFETY: 24 words: 64 bytes of indices, 8 words of signs with a scale.
        unsafe {
            let book = grid::points_of_four(Format::IQ3_XXS).as_ptr();
            for k in 0..16 {
                self.indices(k, self.word(k), I::splat_i(0), [0, 0]);
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
    unsafe fn iq3_s(&self, out: Span) {
        // SAFETY: 27 words: 64 bytes of indices, 8 of ninth bits, 32 of signs, 4 of scales.
        unsafe {
            let book = grid::points_of_four(Format::IQ3_S).as_ptr();
            for k in 0..8 {
                let twice = I::mul(I::splat(2.0), I::float(self.field(832 + 4 * k, 4)));
                self.scale(out, k, I::mul(self.d, I::add(I::splat(1.0), twice)));
            }
            for k in 0..16 {
                self.indices(k, self.word(k), self.field(512 + 4 * k, 4), [1, 1]);
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

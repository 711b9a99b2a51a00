//! Formats whose codes are looked up in books of points, and TQ1_0, where they are kept small: 256 columns
//! of 16 rows at a time.
//!
//! The run-time layout (`words.rs`) has four bytes of each of 16 rows side by side, so a lane is a row
//! here as everywhere: fields of bits are taken out of 16 rows at once, points of the book are
//! fetched row by row, signs are put on 64 codes at once. `formats/grid.rs` says what the bytes are.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod books;
#[cfg(target_arch = "aarch64")]
mod neon;
mod one_bit;
#[cfg(target_arch = "x86_64")]
mod planes;
mod scalar;
mod signs;
#[cfg(target_arch = "x86_64")]
mod vbmi;

use std::mem::MaybeUninit;

use super::bytes::Bytes;
use super::isa::{LANES, STEP_BYTES};
use super::memory::prefetch;
use super::output::Line;
use super::span::Span;
use super::whole::{less, write_whole};
use super::words::WORD_BYTES;
use crate::formats::{Format, grid};

/// What an instruction set offers for looked-up codes.
///
/// # Safety
///
/// That of `Isa`.
#[allow(clippy::missing_safety_doc)] // the contract above is that of every method
pub unsafe trait LookUp: Bytes {
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
    /// Prepares four points of 16 rows, 128 bytes or more at `staged`: all are prepared before the first
    /// is needed, as the way from vectors to addresses is long. Their indices are the bytes of `low` and
    /// above each `count` bits of `high`, which has them `apart` bits from each other.
    #[inline(always)]
    unsafe fn stage(_book: Book, low: Self::I, high: Self::I, fields: [u32; 2], staged: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { stage::<Self>(low, high, fields, staged) }
    }
    /// The same for points whose indices are the lower nine bits of the halves of two words.
    #[inline(always)]
    unsafe fn stage_halves(_book: Book, words: [Self::I; 2], staged: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { stage_halves::<Self>(words, staged) }
    }
    /// Point `l` of 16 rows, of four that are staged: its first four bytes, and its last.
    unsafe fn points(book: Book, staged: *const i32, l: usize) -> [Self::B; 2];
    /// Point `l` of 16 rows, of four bytes.
    unsafe fn points_of_four(book: Book, staged: *const i32, l: usize) -> Self::B;
    /// Eight codes of 16 rows, their first four and their last: 64 plus the magnitudes of point `l` (of
    /// points `l` and `l + 1`, where FOUR says that they are of four), or less them where a bit of the
    /// row's low byte of `signs` is set.
    #[inline(always)]
    unsafe fn signed_points<const FOUR: bool>(
        book: Book,
        staged: *const i32,
        l: usize,
        signs: Self::I,
    ) -> [Self::B; 2] {
        // SAFETY: the caller's promise.
        unsafe { signed_points::<Self, FOUR>(book, staged, l, signs) }
    }
    /// 3 x of each byte, modulo 256.
    unsafe fn triple(x: Self::B) -> Self::B;
    /// 3 x / 256 of each byte, rounded down.
    unsafe fn trit(x: Self::B) -> Self::B;
}

/// A format's code book, as each instruction set likes it.
#[derive(Clone, Copy)]
pub struct Book {
    /// Points of eight bytes or of four; one of them is empty.
    eight: &'static [u64],
    four: &'static [u32],
    #[cfg(target_arch = "x86_64")]
    planes: &'static planes::Planes,
}

impl Book {
    fn of(format: Format) -> Self {
        let of_four = matches!(format, Format::IQ3_XXS | Format::IQ3_S);
        Self {
            eight: if of_four { &[] } else { books::points(format) },
            four: if of_four { books::points_of_four(format) } else { &[] },
            #[cfg(target_arch = "x86_64")]
            planes: planes::planes(format),
        }
    }
}

/// `LookUp::stage` for points that are fetched one by one: their indices, [4][16].
#[inline(always)]
unsafe fn stage<I: LookUp>(low: I::I, high: I::I, [apart, count]: [u32; 2], staged: *mut i32) {
    // SAFETY: the trait's contract.
    unsafe {
        for l in 0..4 {
            let low = I::bits(low, 8 * l, 8);
            let above = I::shift_left::<8>(I::bits(high, apart * l, count));
            I::store_words(staged.add(l as usize * LANES), I::add_i(low, above));
        }
    }
}

/// `LookUp::stage_halves`, likewise.
#[inline(always)]
unsafe fn stage_halves<I: LookUp>(words: [I::I; 2], staged: *mut i32) {
    // SAFETY: the trait's contract.
    unsafe {
        for (i, word) in words.into_iter().enumerate() {
            I::store_words(staged.add(2 * i * LANES), I::bits(word, 0, 9));
            I::store_words(staged.add((2 * i + 1) * LANES), I::bits(word, 16, 9));
        }
    }
}

/// `LookUp::signed_points`, step by step.
#[inline(always)]
unsafe fn signed_points<I: LookUp, const FOUR: bool>(
    book: Book,
    staged: *const i32,
    l: usize,
    signs: I::I,
) -> [I::B; 2] {
    // SAFETY: the trait's contract.
    unsafe {
        let points = if FOUR {
            [I::points_of_four(book, staged, l), I::points_of_four(book, staged, l + 1)]
        } else {
            I::points(book, staged, l)
        };
        let signs = I::spread(signs);
        [I::signed(points[0], signs, 0), I::signed(points[1], signs, 4)]
    }
}

/// 16 rows' words, their scales d where the format has them apart, and room for indices.
struct Rows<I: Bytes> {
    words: *const u8,
    d: I::F,
    /// Whether whole scales are left so.
    whole: bool,
    /// [up to 16 fours of points][4][16] on cache lines, see `stage`.
    staged: *mut i32,
}

/// Looks up the codes and scales of 256 columns of 16 rows; whole scales can be left so, see
/// `widen_whole`.
///
/// # Safety
///
/// `data` holds the rows' words, `out` has room for a span, the CPU has the instruction set.
#[inline(always)]
pub unsafe fn look_up_span<I: LookUp>(format: Format, data: *const u8, whole: bool, out: Span) {
    // SAFETY: the caller's promise.
    unsafe {
        let d = match super::words::scale_at(format) {
            Some(_) => I::load_f16(data.add(super::words::count(format) * WORD_BYTES).cast()),
            None => I::splat(0.0),
        };
        // Words are not read in order: no CPU guesses which come next.
        let bytes = LANES * format.block_bytes();
        prefetch(data.wrapping_add(bytes), bytes);
        let mut staged = MaybeUninit::<[Line; 64]>::uninit();
        let rows = Rows::<I> { words: data, d, whole, staged: staged.as_mut_ptr().cast() };
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

/// Writes the codes of step `step` of 64.
#[inline(always)]
unsafe fn put<I: Bytes>(out: Span, step: usize, codes: I::B) {
    // SAFETY: the caller's span has 64 steps.
    unsafe { I::store_bytes(out.codes.add(step * STEP_BYTES), codes) }
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

    /// Stages points `4 k..4 k + 4`.
    #[inline(always)]
    unsafe fn stage(&self, book: Book, k: usize, low: I::I, high: I::I, fields: [u32; 2]) {
        // SAFETY: there are at most 16 fours of points.
        unsafe { I::stage(book, low, high, fields, self.staged.add(4 * k * LANES)) }
    }

    /// Point `point` of eight elements.
    #[inline(always)]
    unsafe fn points(&self, book: Book, point: usize) -> [I::B; 2] {
        // SAFETY: `stage` prepared it from indices within the book.
        unsafe { I::points(book, self.staged.add(point / 4 * 4 * LANES), point % 4) }
    }

    /// d times a power of two.
    #[inline(always)]
    unsafe fn part(&self, by: f32) -> I::F {
        // SAFETY: the CPU has the instruction set.
        unsafe { I::mul(self.d, I::splat(by)) }
    }

    /// d (2 s + 1) for group `group`, s `count` bits from bit `at` up.
    #[inline(always)]
    unsafe fn odd_scale(&self, out: Span, group: usize, (at, count): (usize, u32), d: I::F) {
        // SAFETY: as `word` and `scale`. An f16 twice is exact, and the sum is rounded once.
        unsafe {
            let scale = I::fma(I::float(self.field(at, count)), I::add(d, d), d);
            self.scale(out, group, scale);
        }
    }

    /// The same for groups `2 chunk` and `2 chunk + 1`, whose scales may be left whole; s is of 4 bits, or
    /// of 3 where the format is of one bit.
    #[inline(always)]
    unsafe fn odd_scales<const ONE: bool>(&self, out: Span, chunk: usize, at: [usize; 2], d: I::F) {
        let (count, offset) = if ONE { (3, grid::OFFSET_1) } else { (4, grid::OFFSET) };
        // SAFETY: as `odd_scale`.
        unsafe {
            if !self.whole {
                self.odd_scale(out, 2 * chunk, (at[0], count), d);
                self.odd_scale(out, 2 * chunk + 1, (at[1], count), d);
                return;
            }
            let one = I::splat_i(1);
            let scales = [
                I::add_i(I::shift_left::<1>(self.field(at[0], count)), one),
                I::add_i(I::shift_left::<1>(self.field(at[1], count)), one),
            ];
            I::store(out.shared, d);
            write_whole::<I>(out, chunk, scales, less::<I>(scales, offset));
        }
    }

    /// Writes the scales of group `group`.
    #[inline(always)]
    unsafe fn scale(&self, out: Span, group: usize, scale: I::F) {
        // SAFETY: the span has as many groups as the format.
        unsafe { I::store(out.scales.add(group * LANES), scale) }
    }
}

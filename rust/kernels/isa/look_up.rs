//! The vector operations for formats with code books, and for TQ1_0.

#[cfg(target_arch = "x86_64")]
use super::book_planes::{Planes, planes};
use super::books;
use super::bytes::Bytes;
use crate::formats::Format;
use crate::kernels::shape::LANES;

/// The vector operations on points of code books.
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
    /// The low byte of each lane in all four bytes of the lane.
    unsafe fn spread(x: Self::I) -> Self::B;
    /// x + y of each byte.
    unsafe fn add_bytes(x: Self::B, y: Self::B) -> Self::B;
    /// 64 plus each byte, or 64 minus it if bit `first + element` of its byte of `signs` is set.
    unsafe fn signed(magnitudes: Self::B, signs: Self::B, first: u32) -> Self::B;
    /// Prepares four points of 16 rows, in 128 bytes or more at `staged`. All points of a span are prepared
    /// before the first is used, because moving indices from vectors to addresses has a long latency. The
    /// indices are the bytes of `low`, extended by fields of `high`: `fields` are their distance and their
    /// width in bits.
    #[inline(always)]
    unsafe fn stage(_book: Book, low: Self::I, high: Self::I, fields: [u32; 2], staged: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { stage::<Self>(low, high, fields, staged) }
    }
    /// `stage` for indices that are the lower nine bits of the halves of two words.
    #[inline(always)]
    unsafe fn stage_halves(_book: Book, words: [Self::I; 2], staged: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { stage_halves::<Self>(words, staged) }
    }
    /// Point `l` of four staged points, for 16 rows: its first four bytes, and its last four.
    unsafe fn points(book: Book, staged: *const i32, l: usize) -> [Self::B; 2];
    /// Point `l` of four staged points of four bytes, for 16 rows.
    unsafe fn points_of_four(book: Book, staged: *const i32, l: usize) -> Self::B;
    /// Eight codes of 16 rows, the first four and the last four: 64 plus the magnitudes of point `l` (of points
    /// `l` and `l + 1` if they are of four bytes, FOUR), or 64 minus them if the bit of the row's low byte of
    /// `signs` is set.
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

/// A format's code book, in the forms that instruction sets read.
#[derive(Clone, Copy)]
pub struct Book {
    /// Points of eight bytes, and points of four bytes; one of the two is empty.
    pub eight: &'static [u64],
    pub four: &'static [u32],
    #[cfg(target_arch = "x86_64")]
    pub planes: &'static Planes,
}

impl Book {
    /// The code book of `format`.
    pub fn of(format: Format) -> Self {
        let of_four = matches!(format, Format::IQ3_XXS | Format::IQ3_S);
        Self {
            eight: if of_four { &[] } else { books::points(format) },
            four: if of_four { books::points_of_four(format) } else { &[] },
            #[cfg(target_arch = "x86_64")]
            planes: planes(format),
        }
    }
}

/// `LookUp::stage` for points that are loaded one by one: writes their indices, [4][16].
///
/// # Safety
///
/// That of the trait.
#[inline(always)]
pub unsafe fn stage<I: LookUp>(
    low: I::I,
    high: I::I,
    [distance, count]: [u32; 2],
    staged: *mut i32,
) {
    // SAFETY: the trait's contract.
    unsafe {
        for l in 0..4 {
            let low = I::bits(low, 8 * l, 8);
            let above = I::shift_left::<8>(I::bits(high, distance * l, count));
            I::store_words(staged.add(l as usize * LANES), I::add_i(low, above));
        }
    }
}

/// `LookUp::stage_halves` for points that are loaded one by one.
///
/// # Safety
///
/// That of the trait.
#[inline(always)]
pub unsafe fn stage_halves<I: LookUp>(words: [I::I; 2], staged: *mut i32) {
    // SAFETY: the trait's contract.
    unsafe {
        for (i, word) in words.into_iter().enumerate() {
            I::store_words(staged.add(2 * i * LANES), I::bits(word, 0, 9));
            I::store_words(staged.add((2 * i + 1) * LANES), I::bits(word, 16, 9));
        }
    }
}

/// `LookUp::signed_points` by the other methods of the trait.
///
/// # Safety
///
/// That of the trait.
#[inline(always)]
pub unsafe fn signed_points<I: LookUp, const FOUR: bool>(
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

//! The words of 16 code-book blocks, and the fields, points and scales read from them.

use super::integer_scales::{offset_pair, write_integer_scales};
use crate::formats::grid;
use crate::kernels::data::Span;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::look_up::{Book, LookUp};
use crate::kernels::layout::words::WORD_BYTES;
use crate::kernels::shape::{LANES, STEP_BYTES};

/// The words of one block of each of 16 rows, their scales d, and room for the points' indices.
pub struct BlockWords<I: Bytes> {
    pub words: *const u8,
    /// Zero for IQ1_M, which spreads d over its words.
    pub d: I::F,
    /// True if scales are written as integers.
    pub integer_scales: bool,
    /// [up to 16 times four points][4][16], aligned to cache lines, see `LookUp::stage`.
    pub staged: *mut i32,
}

/// Writes the codes of step `step` of 64.
///
/// # Safety
///
/// `out` has room for a span, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn put<I: Bytes>(out: Span, step: usize, codes: I::B) {
    // SAFETY: the caller's promise.
    unsafe { I::store_bytes(out.codes.add(step * STEP_BYTES), codes) }
}

#[allow(clippy::missing_safety_doc)] // the contract of all methods: `words` hold the format's blocks
impl<I: LookUp> BlockWords<I> {
    /// Word `k` of each row.
    #[inline(always)]
    pub unsafe fn word(&self, k: usize) -> I::I {
        // SAFETY: the callers stay within the format's words.
        unsafe { I::words(self.words.add(k * WORD_BYTES)) }
    }

    /// `count` bits of each row from bit `at` up; they must lie in one word.
    #[inline(always)]
    pub unsafe fn field(&self, at: usize, count: u32) -> I::I {
        // SAFETY: as `word`.
        unsafe { I::bits(self.word(at / 32), at as u32 % 32, count) }
    }

    /// Stages points `4 k..4 k + 4`.
    #[inline(always)]
    pub unsafe fn stage(&self, book: Book, k: usize, low: I::I, high: I::I, fields: [u32; 2]) {
        // SAFETY: there are at most 16 fours of points.
        unsafe { I::stage(book, low, high, fields, self.staged.add(4 * k * LANES)) }
    }

    /// Point `point` of eight elements.
    #[inline(always)]
    pub unsafe fn points(&self, book: Book, point: usize) -> [I::B; 2] {
        // SAFETY: `stage` prepared it from indices within the book.
        unsafe { I::points(book, self.staged.add(point / 4 * 4 * LANES), point % 4) }
    }

    /// d times a power of two.
    #[inline(always)]
    pub unsafe fn scaled_d(&self, by: f32) -> I::F {
        // SAFETY: the CPU has the instruction set.
        unsafe { I::mul(self.d, I::splat(by)) }
    }

    /// Writes the scale of group `group`: d (2 s + 1), s being `count` bits from bit `at` up.
    #[inline(always)]
    pub unsafe fn odd_scale(&self, out: Span, group: usize, (at, count): (usize, u32), d: I::F) {
        // SAFETY: as `word` and `scale`. An f16 twice is exact, and the sum is rounded once.
        unsafe {
            let scale = I::fma(I::float(self.field(at, count)), I::add(d, d), d);
            self.scale(out, group, scale);
        }
    }

    /// Writes the scales of groups `2 chunk` and `2 chunk + 1`, as integers if `integer_scales`: s has 4 bits,
    /// or 3 in one-bit formats (ONE).
    #[inline(always)]
    pub unsafe fn odd_scales<const ONE: bool>(
        &self,
        out: Span,
        chunk: usize,
        at: [usize; 2],
        d: I::F,
    ) {
        let (count, offset) = if ONE { (3, grid::OFFSET_1) } else { (4, grid::OFFSET) };
        // SAFETY: as `odd_scale`.
        unsafe {
            if !self.integer_scales {
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
            write_integer_scales::<I>(out, chunk, scales, offset_pair::<I>(scales, offset));
        }
    }

    /// Writes the scales of group `group`.
    #[inline(always)]
    pub unsafe fn scale(&self, out: Span, group: usize, scale: I::F) {
        // SAFETY: the span has as many groups as the format.
        unsafe { I::store(out.scales.add(group * LANES), scale) }
    }
}

//! Formats whose codes are looked up in books of points, and TQ1_0, where they are kept small: 256 columns
//! of 16 rows at a time.
//!
//! The run-time layout (`words.rs`) has four bytes of each of 16 rows side by side, so a lane is a row
//! here as everywhere: fields of bits are taken out of 16 rows at once, points of the book are
//! fetched row by row, signs are put on 64 codes at once. `formats/grid.rs` says what the bytes are.

use std::mem::MaybeUninit;

use crate::formats::{Format, grid};
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::floats::{LANES, STEP_BYTES};
use crate::kernels::isa::look_up::{Book, LookUp};
use crate::kernels::layout::memory::prefetch;
use crate::kernels::layout::words::WORD_BYTES;
use crate::kernels::product::integer_scales::{less, write_whole};
use crate::kernels::product::output::Line;
use crate::kernels::unpack::span::Span;

/// 16 rows' words, their scales d where the format has them apart, and room for indices.
pub struct Rows<I: Bytes> {
    pub words: *const u8,
    pub d: I::F,
    /// Whether whole scales are left so.
    whole: bool,
    /// [up to 16 fours of points][4][16] on cache lines, see `stage`.
    pub staged: *mut i32,
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
        let d = match crate::kernels::layout::words::scale_at(format) {
            Some(_) => I::load_f16(
                data.add(crate::kernels::layout::words::count(format) * WORD_BYTES).cast(),
            ),
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
pub unsafe fn put<I: Bytes>(out: Span, step: usize, codes: I::B) {
    // SAFETY: the caller's span has 64 steps.
    unsafe { I::store_bytes(out.codes.add(step * STEP_BYTES), codes) }
}

impl<I: LookUp> Rows<I> {
    /// Word `k` of each row.
    #[inline(always)]
    pub unsafe fn word(&self, k: usize) -> I::I {
        // SAFETY: the callers stay within the format's words.
        unsafe { I::words(self.words.add(k * WORD_BYTES)) }
    }

    /// `count` bits of each row from bit `at` up; they lie in one word.
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
    pub unsafe fn part(&self, by: f32) -> I::F {
        // SAFETY: the CPU has the instruction set.
        unsafe { I::mul(self.d, I::splat(by)) }
    }

    /// d (2 s + 1) for group `group`, s `count` bits from bit `at` up.
    #[inline(always)]
    pub unsafe fn odd_scale(&self, out: Span, group: usize, (at, count): (usize, u32), d: I::F) {
        // SAFETY: as `word` and `scale`. An f16 twice is exact, and the sum is rounded once.
        unsafe {
            let scale = I::fma(I::float(self.field(at, count)), I::add(d, d), d);
            self.scale(out, group, scale);
        }
    }

    /// The same for groups `2 chunk` and `2 chunk + 1`, whose scales may be left whole; s is of 4 bits, or
    /// of 3 where the format is of one bit.
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
    pub unsafe fn scale(&self, out: Span, group: usize, scale: I::F) {
        // SAFETY: the span has as many groups as the format.
        unsafe { I::store(out.scales.add(group * LANES), scale) }
    }
}

//! Unpacking code-book formats and TQ1_0 stored at file size: 256 columns of 16 rows at a time.
//!
//! In the run-time layout (`layout/words.rs`) four bytes of each of 16 rows lie side by side, so that a vector
//! lane is a row, as everywhere: bit fields are extracted for 16 rows at once, points of the book are
//! loaded row by row, signs are applied to 64 codes at once. `formats/grid.rs` describes the bytes.

use std::mem::MaybeUninit;

use super::block_words::BlockWords;
use crate::formats::Format;
use crate::kernels::data::Span;
use crate::kernels::isa::look_up::LookUp;
use crate::kernels::layout::line::Line;
use crate::kernels::layout::memory::prefetch;
use crate::kernels::layout::words::{WORD_BYTES, count, scale_at};
use crate::kernels::shape::LANES;

/// Unpacks the codes and scales of 256 columns of 16 rows; with `integer_scales`, writes scales as integers, see
/// `widen_integer_scales`.
///
/// # Safety
///
/// `data` holds the rows' words, `out` has room for a span, the CPU has the instruction set.
#[inline(always)]
pub unsafe fn look_up_span<I: LookUp>(
    format: Format,
    data: *const u8,
    integer_scales: bool,
    out: Span,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let d = match scale_at(format) {
            Some(_) => I::load_f16(data.add(count(format) * WORD_BYTES).cast()),
            None => I::splat(0.0),
        };
        // Words are not read in order, so that no CPU prefetches them by itself.
        let bytes = LANES * format.block_bytes();
        prefetch(data.wrapping_add(bytes), bytes);
        let mut staged = MaybeUninit::<[Line; 64]>::uninit();
        let rows =
            BlockWords::<I> { words: data, d, integer_scales, staged: staged.as_mut_ptr().cast() };
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

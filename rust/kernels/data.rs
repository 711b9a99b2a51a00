//! The structs that kernels take and pass on: activations, outputs, a matrix product, unpacked weights.

use super::isa::floats::Isa;
use super::layout::packed::Packed;
use super::shape::{CHUNK, CHUNK_BYTES, LANES, SPAN};
use crate::formats::Codes;

/// Rows of activations rounded to int8; pointers, because several threads fill different rows.
#[derive(Clone, Copy)]
pub struct Acts {
    /// [n][32 x chunks] codes within -127..=127, zero past the columns.
    pub q: *mut i8,
    /// [n][chunks] f32 scales; chunks that share a scale each have a copy of it.
    pub d: *mut f32,
    /// [n][2 x chunks] sums of the codes of each half chunk.
    pub sums: *mut i32,
    /// Chunks of one row.
    pub chunks: usize,
    /// Chunks that share a scale: 1, or `SPAN` for weights with integer scales.
    pub sharing: usize,
}

impl Acts {
    /// The codes of row `row`.
    ///
    /// # Safety
    ///
    /// The row must be allocated.
    #[inline(always)]
    pub unsafe fn codes(&self, row: usize) -> *mut i8 {
        // SAFETY: the caller's promise.
        unsafe { self.q.add(row * self.chunks * CHUNK) }
    }

    /// The scales of row `row`.
    ///
    /// # Safety
    ///
    /// The row must be allocated.
    #[inline(always)]
    pub unsafe fn scales(&self, row: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.d.add(row * self.chunks) }
    }

    /// The sums of the half chunks of row `row`.
    ///
    /// # Safety
    ///
    /// The row must be allocated.
    #[inline(always)]
    pub unsafe fn halves(&self, row: usize) -> *mut i32 {
        // SAFETY: the caller's promise.
        unsafe { self.sums.add(2 * row * self.chunks) }
    }
}

/// Where results go: row `n` of [n, stride] f32, and an optional bias of one f32 a column.
#[derive(Clone, Copy)]
pub struct Output {
    pub data: *mut f32,
    pub stride: usize,
    pub bias: Option<*const f32>,
}

/// A product of packed weights with int8 activations.
pub struct Product<'a> {
    pub(super) w: &'a Packed,
    pub(super) codes: Codes,
    /// True if all 16 scales of a super-block are integers times one f16, see `integer_scales.rs`.
    pub(super) integer_scales: bool,
    /// True if codes have been multiplied by their integer scales.
    pub(super) merged: bool,
    pub(super) acts: Acts,
    /// Rows of activations.
    pub(super) n: usize,
    pub(super) out: Output,
}

impl Product<'_> {
    /// Bits of a code, at least 4.
    #[inline(always)]
    pub(super) fn width(&self) -> usize {
        usize::from(self.codes.bits).max(4)
    }
}

/// Terms that depend only on the activations and the format, computed once per product:
/// [n / tile][chunks x groups][tile], so that the terms of one tile are adjacent.
#[derive(Clone, Copy)]
pub struct ActivationTerms {
    /// Start values of dot products: (center - offset) times the sum of a group's activations. With
    /// integer scales, the sums of a chunk's halves, 16 bits each; with merged codes and no minima,
    /// the first chunk of a span has the start value of the entire span.
    pub(super) starts: *const i32,
    /// The activation scale of the group's chunk.
    pub(super) scales: *const f32,
    /// The activation scale times the sum of the group's activations: the factor of a minimum.
    pub(super) mins: *const f32,
    /// Rows of activations whose terms lie side by side.
    pub(super) tile: usize,
}

impl ActivationTerms {
    /// Offset of the terms of row `row` if tiles have `tile` rows and a row has `per_row` terms.
    #[inline(always)]
    pub(super) fn offset(row: usize, tile: usize, per_row: usize) -> usize {
        row / tile * tile * per_row + row % tile
    }

    /// The terms from row `row` on if a row has `per_row` terms.
    #[inline(always)]
    pub(super) fn of_row(self, row: usize, per_row: usize) -> Self {
        self.skip(Self::offset(row, self.tile, per_row))
    }

    /// The terms `groups` groups further on.
    #[inline(always)]
    pub(super) fn after(self, groups: usize) -> Self {
        self.skip(groups * self.tile)
    }

    #[inline(always)]
    fn skip(self, n: usize) -> Self {
        Self {
            starts: self.starts.wrapping_add(n),
            scales: self.scales.wrapping_add(n),
            mins: self.mins.wrapping_add(n),
            tile: self.tile,
        }
    }
}

/// Pointers to unpacked weights: spans of 256 columns of 16 rows, one byte a code, one f32 a scale.
///
/// ```text
/// codes    [chunk][step][16 rows][4] bytes
/// scales   [chunk][group][16] f32, minima likewise: one group a chunk, or two if groups have 16 columns
/// ```
///
/// Formats with integer scales keep them as i32 for integer sums (`integer_scales.rs`):
///
/// ```text
/// scales   [chunk][2][16] i32, as `Bytes::fold_by` takes them
/// minima   [chunk][2][16] i32; the first 16 hold two numbers of 16 bits each, the others are unused
/// shared   [span][2][16] f32: the factors of all scales and of all minima
/// ```
#[derive(Clone, Copy)]
pub struct Span {
    pub codes: *mut u8,
    pub scales: *mut f32,
    pub mins: *mut f32,
    pub shared: *mut f32,
}

impl Span {
    /// The pointers `chunks` chunks further on if a chunk has `groups` groups.
    #[inline(always)]
    pub fn after(self, chunks: usize, groups: usize) -> Self {
        Self {
            codes: self.codes.wrapping_add(chunks * CHUNK_BYTES),
            scales: self.scales.wrapping_add(chunks * groups * LANES),
            mins: self.mins.wrapping_add(chunks * groups * LANES),
            shared: self.shared.wrapping_add(chunks / SPAN * 2 * LANES),
        }
    }

    /// The pointers `chunks` chunks further back, so that `after(chunks)` gives these.
    #[inline(always)]
    pub fn before(self, chunks: usize, groups: usize) -> Self {
        Self {
            codes: self.codes.wrapping_sub(chunks * CHUNK_BYTES),
            scales: self.scales.wrapping_sub(chunks * groups * LANES),
            mins: self.mins.wrapping_sub(chunks * groups * LANES),
            shared: self.shared.wrapping_sub(chunks / SPAN * 2 * LANES),
        }
    }
}

/// Consecutive chunks of a block that tiles multiply before the next chunks are unpacked.
#[derive(Clone, Copy)]
pub struct Stretch {
    pub(super) start: usize,
    pub(super) end: usize,
    /// [rows][16] f32 sums of the stretches before, aligned to cache lines.
    pub(super) sums: *mut f32,
    /// Codes to prefetch while the stretch is multiplied, counted from the row's first chunk.
    pub(super) ahead: *const u8,
    /// Bytes of a chunk's codes.
    pub(super) chunk_bytes: usize,
}

impl Stretch {
    /// The sums so far of `T` rows from row `row` on.
    ///
    /// # Safety
    ///
    /// `sums` holds all rows, and the CPU has the instruction set.
    #[allow(clippy::needless_range_loop)] // t counts rows in both buffers
    #[inline(always)]
    pub(super) unsafe fn begin<I: Isa, const T: usize>(&self, row: usize) -> [I::F; T] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [I::splat(0.0); T];
            if self.start > 0 {
                for t in 0..T {
                    sums[t] = I::load(self.sums.add((row + t) * LANES));
                }
            }
            sums
        }
    }
}

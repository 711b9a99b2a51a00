//! Products of weights of any format with f32 activations.
//!
//! Weights are widened to f32, a span of columns at a time; then each column adds
//! `acc = fma(weight, x, acc)` to the sums of all rows of activations.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::activation_tiles::{ActivationTiles, Activations, ROWS, lay_out, multiply_all};
use super::bf16_rounding::Rounding;
use super::output::finish;
use super::scratch::Scratch;
use crate::formats::{Codes, Format};
use crate::kernels::data::{Output, Span};
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::line::{Line, grow};
use crate::kernels::layout::memory::prefetch;
use crate::kernels::layout::packed::{Packed, Storage};
use crate::kernels::layout::scales::groups_of_chunk;
use crate::kernels::outlined::Outlined;
use crate::kernels::shape::{CHUNK, LANES, SPAN, SPAN_COLUMNS, STEP_BYTES};
use crate::kernels::unpack::scales::widen;

/// Most rows of activations that float weights are widened for again and again; with more rows it is
/// faster to widen them once, to memory.
pub const DIRECT: usize = 24;

/// Multiplies rows `16 b..16 b + 16` of `w`, b in `blocks`, with `n` rows of f32 activations at `x`, one
/// every `w.columns` floats.
///
/// # Safety
///
/// As `linear_int8`, with the rows at `x`.
#[inline(always)]
pub unsafe fn linear_f32<I: Outlined>(
    w: &Packed,
    blocks: Range<usize>,
    x: *const f32,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match &w.storage {
            Storage::Floats(format) if n <= DIRECT => {
                few_tokens::<I>(w, *format, blocks, x, n, out)
            }
            _ => {
                let columns = w.columns;
                let activations = Activations { x, n, columns, rounding: Rounding::None };
                many_tokens::<I, false>(w, blocks, activations, out, scratch);
            }
        }
    }
}

/// Multiplies with many rows of activations: weights are widened to memory, activations laid out in
/// tiles. `PAIRS` is true if activations are rounded to `Rounding::Bf16Pairs`.
///
/// # Safety
///
/// As `linear_f32`; with PAIRS, `I::PAIRS` must be true.
#[inline(always)]
pub unsafe fn many_tokens<I: Outlined, const PAIRS: bool>(
    w: &Packed,
    blocks: Range<usize>,
    activations: Activations,
    out: Output,
    scratch: &mut Scratch,
) {
    let (span, n) = (scratch.span(SPAN), activations.n);
    grow(&mut scratch.weights, SPAN_COLUMNS);
    grow(&mut scratch.sums, blocks.len() * n.min(ROWS));
    // SAFETY: the caller's promise; the scratch holds a span and the sums of `ROWS` rows.
    unsafe {
        let x = lay_out::<I>(activations, &mut scratch.tiles);
        for first in (0..n).step_by(ROWS) {
            let rows = first..n.min(first + ROWS);
            some_rows::<I, PAIRS>(w, blocks.clone(), x, rows, out, span, scratch);
        }
    }
}

/// Up to `ROWS` rows: a span of columns is multiplied with all blocks before the next span, while the
/// second-level cache holds it.
#[inline(always)]
unsafe fn some_rows<I: Outlined, const PAIRS: bool>(
    w: &Packed,
    blocks: Range<usize>,
    x: ActivationTiles,
    rows: Range<usize>,
    out: Output,
    span: Span,
    scratch: &mut Scratch,
) {
    let n = rows.len();
    scratch.sums[..blocks.len() * n].fill(Line::default());
    let weights: *mut f32 = scratch.weights.as_mut_ptr().cast();
    let sums: *mut f32 = scratch.sums.as_mut_ptr().cast();
    let per = if PAIRS { 2 } else { 1 };
    // SAFETY: the contract of `linear_f32`.
    unsafe {
        for start in (0..w.columns).step_by(SPAN_COLUMNS) {
            let columns = start..w.columns.min(start + SPAN_COLUMNS);
            let x = x.span(rows.start, start / per);
            for (i, block) in blocks.clone().enumerate() {
                let weights = if PAIRS {
                    pair_columns::<I>(w, block, columns.clone(), weights)
                } else {
                    widen_columns::<I>(w, block, columns.clone(), span, weights)
                };
                // Memory loads the next block while the columns are multiplied.
                let bytes = w.block_bytes / w.columns * SPAN_COLUMNS;
                let next = (block + 1) * w.block_bytes + w.block_bytes / w.columns * start;
                prefetch(w.data.as_ptr().wrapping_add(next), bytes);
                let sums = sums.add(i * n * LANES);
                let words = columns.len().div_ceil(per);
                multiply_all::<I, PAIRS>(weights, x, words, n, sums);
            }
        }
        for (i, block) in blocks.enumerate() {
            for (k, row) in rows.clone().enumerate() {
                let sum = I::load(sums.add((i * n + k) * LANES));
                finish::<I>(w, block, sum, row, out);
            }
        }
    }
}

/// Multiplies up to `DIRECT` rows of activations with float weights, which are widened while they are
/// multiplied: a tile of rows at a time; later tiles find the block in a cache.
///
/// # Safety
///
/// As `linear_f32`.
#[inline(always)]
pub unsafe fn few_tokens<I: Bytes>(
    w: &Packed,
    format: Format,
    blocks: Range<usize>,
    x: *const f32,
    n: usize,
    out: Output,
) {
    let few = FewTokens { w, format, x, out };
    let tile = n.div_ceil(n.div_ceil(I::TILE_F32));
    // SAFETY: the caller's promise.
    unsafe {
        if tile == n {
            return few.rows::<I>(blocks, 0, n);
        }
        for block in blocks {
            for row in (0..n).step_by(tile) {
                few.rows::<I>(block..block + 1, row, tile.min(n - row));
            }
        }
    }
}

/// A product of float weights with few rows of activations.
struct FewTokens<'a> {
    w: &'a Packed,
    format: Format,
    x: *const f32,
    out: Output,
}

impl FewTokens<'_> {
    /// Rows `row..row + n` of activations, n at most `TILE_F32`.
    #[inline(always)]
    unsafe fn rows<I: Bytes>(&self, blocks: Range<usize>, row: usize, n: usize) {
        // SAFETY: the contract of `linear_f32`.
        unsafe {
            match n {
                1 => self.by::<I, 4, 1>(blocks, row),
                2 => self.by::<I, 2, 2>(blocks, row),
                3 => self.by::<I, 2, 3>(blocks, row),
                5 if I::TILE_F32 > 4 => self.by::<I, 1, 5>(blocks, row),
                6 if I::TILE_F32 > 4 => self.by::<I, 1, 6>(blocks, row),
                7 if I::TILE_F32 > 6 => self.by::<I, 1, 7>(blocks, row),
                8 if I::TILE_F32 > 6 => self.by::<I, 1, 8>(blocks, row),
                _ => self.by::<I, 1, 4>(blocks, row),
            }
        }
    }

    /// T rows, N blocks at a time: enough independent sums to hide the latency of an FMA.
    #[inline(always)]
    unsafe fn by<I: Bytes, const N: usize, const T: usize>(
        &self,
        mut blocks: Range<usize>,
        row: usize,
    ) {
        // SAFETY: the contract of `linear_f32`.
        unsafe {
            while blocks.len() >= N {
                self.blocks::<I, N, T>(blocks.start, row);
                blocks.start += N;
            }
            for block in blocks {
                self.blocks::<I, 1, T>(block, row);
            }
        }
    }

    #[inline(always)]
    unsafe fn blocks<I: Bytes, const N: usize, const T: usize>(&self, first: usize, row: usize) {
        let Self { w, format, x, out } = *self;
        // SAFETY: the contract of `linear_f32`.
        unsafe {
            let data = w.data.as_ptr().add(first * w.block_bytes);
            let x = x.add(row * w.columns);
            let sums = match format {
                Format::F32 => sum_columns::<I, N, T, 0>(w, data, x),
                Format::F16 => sum_columns::<I, N, T, 1>(w, data, x),
                _ => sum_columns::<I, N, T, 2>(w, data, x),
            };
            for i in 0..N {
                for t in 0..T {
                    finish::<I>(w, first + i, sums[i][t], row + t, out);
                }
            }
        }
    }
}

/// `FORMAT` is 0 for F32, 1 for F16, 2 for BF16.
#[inline(always)]
unsafe fn sum_columns<I: Bytes, const N: usize, const T: usize, const FORMAT: usize>(
    w: &Packed,
    data: *const u8,
    x: *const f32,
) -> [[I::F; T]; N] {
    // SAFETY: the contract of `linear_f32`.
    unsafe {
        let mut sums = [[I::splat(0.0); T]; N];
        for k in 0..w.columns {
            for i in 0..N {
                let block = data.add(i * w.block_bytes);
                let weights = match FORMAT {
                    0 => I::load(block.cast::<f32>().add(k * LANES)),
                    1 => I::load_f16(block.cast::<u16>().add(k * LANES)),
                    _ => I::load_bf16(block.cast::<u16>().add(k * LANES)),
                };
                for t in 0..T {
                    sums[i][t] = I::fma(weights, I::splat(*x.add(t * w.columns + k)), sums[i][t]);
                }
            }
        }
        sums
    }
}

/// The weights of some columns as f32 [column][16]: widened into `out`; f32 weights are used in place.
#[inline(always)]
unsafe fn widen_columns<I: Outlined>(
    w: &Packed,
    block: usize,
    columns: Range<usize>,
    span: Span,
    out: *mut f32,
) -> *const f32 {
    // SAFETY: the columns lie within `w`, `span` and `out` hold a span.
    unsafe {
        let data = w.data.as_ptr().add(block * w.block_bytes);
        match w.storage {
            Storage::Floats(Format::F32) => return data.cast::<f32>().add(columns.start * LANES),
            Storage::Floats(format) => {
                let data = data.cast::<u16>().add(columns.start * LANES);
                for k in 0..columns.len() {
                    let source = data.add(k * LANES);
                    let half = if format == Format::F16 {
                        I::load_f16(source)
                    } else {
                        I::load_bf16(source)
                    };
                    I::store(out.add(k * LANES), half);
                }
            }
            Storage::Planes(codes) | Storage::Words(_, codes) => {
                let (first, count) = (columns.start / CHUNK, columns.len().div_ceil(CHUNK));
                I::unpack_span(w, block, first, count, false, span);
                widen_codes::<I>(w, &codes, block, columns, span, out);
            }
        }
        out
    }
}

/// The partner of an odd last column: zeros.
static NONE: [u16; LANES] = [0; LANES];

/// The bfloat16 weights of some columns in pairs: [pair][16] words of 32 bits.
#[inline(always)]
unsafe fn pair_columns<I: Bytes>(
    w: &Packed,
    block: usize,
    columns: Range<usize>,
    out: *mut f32,
) -> *const f32 {
    // SAFETY: the columns lie within `w`, `out` holds a span.
    unsafe {
        let data = w.data.as_ptr().add(block * w.block_bytes).cast::<u16>();
        for k in columns.clone().step_by(2) {
            let first = data.add(k * LANES);
            let second = if k + 1 < columns.end { first.add(LANES) } else { NONE.as_ptr() };
            I::store(out.add((k - columns.start) / 2 * LANES), I::pair(first, second));
        }
        out
    }
}

/// Writes scale (code - offset) + min of each column.
#[inline(always)]
unsafe fn widen_codes<I: Bytes>(
    w: &Packed,
    codes: &Codes,
    block: usize,
    columns: Range<usize>,
    span: Span,
    out: *mut f32,
) {
    // SAFETY: the contract of `widen_columns`.
    unsafe {
        let offset = I::splat(f32::from(codes.offset));
        let size = CHUNK / groups_of_chunk(codes);
        let (mut scale, mut min, mut end) = (I::splat(0.0), I::splat(0.0), 0);
        for k in 0..columns.len() {
            if k >= end {
                if w.takes_int8() {
                    scale = I::load(span.scales.add(k / size * LANES));
                    if codes.has_min {
                        min = I::load(span.mins.add(k / size * LANES));
                    }
                    end = k + size;
                } else {
                    let group = (columns.start + k) / codes.group;
                    (scale, min) = widen::<I>(codes, w.source(block), group);
                    end = (group + 1) * codes.group - columns.start;
                }
            }
            let q = I::code(I::bytes(span.codes.add(k / 4 * STEP_BYTES)), (k % 4) as u32);
            let mut value = I::mul(scale, I::sub(q, offset));
            if codes.has_min {
                value = I::add(value, min);
            }
            I::store(out.add(k * LANES), value);
        }
    }
}

//! Matrix products with f32 activations: weights are widened to f32 a span of columns at a time, and
//! each column adds `acc = fma(weight, x, acc)` to the sums of all rows of activations.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use crate::formats::{Codes, Format};
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::floats::{CHUNK, LANES, STEP_BYTES};
use crate::kernels::layout::memory::prefetch;
use crate::kernels::layout::packed::{Packed, Storage};
use crate::kernels::layout::scales::{SPAN, widen};
use crate::kernels::product::activation_tiles::{
    Arranged, COLUMNS, Kind, ROWS, Rows, arranged, multiply_all,
};
use crate::kernels::product::output::{Line, Output, Scratch, finish, grow};
use crate::kernels::unpack::span::{Span, parts};

/// Up to so many rows of activations meet floats while these are widened. With more, widening them
/// once, to memory, is faster.
pub(crate) const DIRECT: usize = 24;

/// Rows `16 b..16 b + 16`, b in `blocks`, of the product with `n` rows of f32 activations at `x`,
/// one every `w.columns` floats.
///
/// # Safety
///
/// As `linear_int8`, with the rows at `x`.
#[inline(always)]
pub unsafe fn linear_f32<I: Bytes>(
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
            Storage::Floats(format) if n <= DIRECT => few_rows::<I>(w, *format, blocks, x, n, out),
            _ => {
                let rows = Rows { x, n, columns: w.columns, kind: Kind::Floats };
                all_rows::<I, false>(w, blocks, rows, out, scratch);
            }
        }
    }
}

/// More rows: weights are widened to memory, rows laid out as their kind says; `PAIRS` where that is
/// `Pairs`.
///
/// # Safety
///
/// As `linear_f32`; for pairs `I::PAIRS`, and the CPU has what that takes.
#[inline(always)]
pub(crate) unsafe fn all_rows<I: Bytes, const PAIRS: bool>(
    w: &Packed,
    blocks: Range<usize>,
    rows: Rows,
    out: Output,
    scratch: &mut Scratch,
) {
    let (span, n) = (scratch.span(SPAN), rows.n);
    grow(&mut scratch.weights, COLUMNS);
    grow(&mut scratch.sums, blocks.len() * n.min(ROWS));
    // SAFETY: the caller's promise; the scratch holds a span and the sums of a group of rows.
    unsafe {
        let x = arranged::<I>(rows, scratch);
        for first in (0..n).step_by(ROWS) {
            let rows = first..n.min(first + ROWS);
            many_rows::<I, PAIRS>(w, blocks.clone(), x, rows, out, span, scratch);
        }
    }
}

/// A group of rows: a span of columns meets all blocks before the next, while the second cache holds it.
#[inline(always)]
unsafe fn many_rows<I: Bytes, const PAIRS: bool>(
    w: &Packed,
    blocks: Range<usize>,
    x: Arranged,
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
        for start in (0..w.columns).step_by(COLUMNS) {
            let columns = start..w.columns.min(start + COLUMNS);
            let x = x.span(rows.start, start / per);
            for (i, block) in blocks.clone().enumerate() {
                let weights = if PAIRS {
                    pair_span::<I>(w, block, columns.clone(), weights)
                } else {
                    widen_span::<I>(w, block, columns.clone(), span, weights)
                };
                // Memory works while the columns are multiplied.
                let bytes = w.block_bytes / w.columns * COLUMNS;
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

/// Up to `DIRECT` rows against floats, which are widened while they are multiplied: as many at a time as
/// registers hold. The others take a block from a cache.
///
/// # Safety
///
/// As `linear_f32`.
#[inline(always)]
pub(crate) unsafe fn few_rows<I: Bytes>(
    w: &Packed,
    format: Format,
    blocks: Range<usize>,
    x: *const f32,
    n: usize,
    out: Output,
) {
    let few = Few { w, format, x, out };
    let group = n.div_ceil(n.div_ceil(I::TILE_F32));
    // SAFETY: the caller's promise.
    unsafe {
        if group == n {
            return few.rows::<I>(blocks, 0, n);
        }
        for block in blocks {
            for row in (0..n).step_by(group) {
                few.rows::<I>(block..block + 1, row, group.min(n - row));
            }
        }
    }
}

/// A product of floats with few rows.
struct Few<'a> {
    w: &'a Packed,
    format: Format,
    x: *const f32,
    out: Output,
}

impl Few<'_> {
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

    /// T rows, N blocks at a time: so many sums do not wait for each other.
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

/// The weights of some columns as f32 [column][16]: widened into `out`, or in place if they are.
#[inline(always)]
unsafe fn widen_span<I: Bytes>(
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

/// What stands beside an odd last column.
static NONE: [u16; LANES] = [0; LANES];

/// The bfloat16 weights of some columns in pairs, [pair][16] of 32 bits.
#[inline(always)]
unsafe fn pair_span<I: Bytes>(
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

/// scale (code - offset) + min of each column.
#[inline(always)]
unsafe fn widen_codes<I: Bytes>(
    w: &Packed,
    codes: &Codes,
    block: usize,
    columns: Range<usize>,
    span: Span,
    out: *mut f32,
) {
    // SAFETY: the contract of `widen_span`.
    unsafe {
        let offset = I::splat(f32::from(codes.offset));
        let part = CHUNK / parts(codes);
        let (mut scale, mut min, mut end) = (I::splat(0.0), I::splat(0.0), 0);
        for k in 0..columns.len() {
            if k >= end {
                if w.takes_int8() {
                    scale = I::load(span.scales.add(k / part * LANES));
                    if codes.has_min {
                        min = I::load(span.mins.add(k / part * LANES));
                    }
                    end = k + part;
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

//! Matrix products with f32 activations: weights are widened to f32 a span of columns at a time, and
//! each column adds `acc = fma(weight, x, acc)` to the sums of all rows of activations.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::isa::{CHUNK, Isa, LANES, STEP_BYTES};
use super::output::{Output, Scratch, finish, grow};
use super::packed::{Packed, Storage};
use super::scales::{SPAN, widen};
use super::span::{Span, parts};
use crate::formats::{Codes, Format};

/// Columns whose weights are widened to f32 at a time: 16 KiB.
const COLUMNS: usize = SPAN * CHUNK;
/// Blocks of floats that meet a single row at a time: their sums do not wait for each other.
const STREAMS: usize = 4;

/// Rows `16 b..16 b + 16`, b in `blocks`, of the product with `n` rows of f32 activations at `x`,
/// one every `w.columns` floats.
///
/// # Safety
///
/// As `linear_int8`.
#[inline(always)]
pub unsafe fn linear_f32<I: Isa>(
    w: &Packed,
    mut blocks: Range<usize>,
    x: *const f32,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    if let (Storage::Floats(format), 1) = (&w.storage, n) {
        while blocks.len() >= STREAMS {
            // SAFETY: the caller's promise.
            unsafe { one_row::<I, STREAMS>(w, *format, blocks.start, x, out) }
            blocks.start += STREAMS;
        }
        for block in blocks {
            // SAFETY: the caller's promise.
            unsafe { one_row::<I, 1>(w, *format, block, x, out) }
        }
        return;
    }
    let span = scratch.span(SPAN);
    grow(&mut scratch.weights, COLUMNS * LANES);
    grow(&mut scratch.sums, n * LANES);
    let (weights, sums) = (scratch.weights.as_mut_ptr(), scratch.sums.as_mut_ptr());
    for block in blocks {
        scratch.sums[..n * LANES].fill(0.0);
        for start in (0..w.columns).step_by(COLUMNS) {
            let columns = start..w.columns.min(start + COLUMNS);
            // SAFETY: the caller's promise; the scratch holds a span and n sums.
            unsafe {
                let weights = widen_span::<I>(w, block, columns.clone(), span, weights);
                multiply_all::<I>(weights, x, w.columns, columns, n, sums);
            }
        }
        for row in 0..n {
            // SAFETY: the caller's promise.
            unsafe { finish::<I>(w, block, I::load(sums.add(row * LANES)), row, out) };
        }
    }
}

/// `N` blocks of floats from `first` on against one row.
#[inline(always)]
unsafe fn one_row<I: Isa, const N: usize>(
    w: &Packed,
    format: Format,
    first: usize,
    x: *const f32,
    out: Output,
) {
    // SAFETY: the contract of `linear_f32`.
    unsafe {
        let data = w.data.as_ptr().add(first * w.block_bytes);
        let sums = match format {
            Format::F32 => sum_columns::<I, N, 0>(w, data, x),
            Format::F16 => sum_columns::<I, N, 1>(w, data, x),
            _ => sum_columns::<I, N, 2>(w, data, x),
        };
        for (i, sum) in sums.into_iter().enumerate() {
            finish::<I>(w, first + i, sum, 0, out);
        }
    }
}

/// `FORMAT` is 0 for F32, 1 for F16, 2 for BF16.
#[inline(always)]
unsafe fn sum_columns<I: Isa, const N: usize, const FORMAT: usize>(
    w: &Packed,
    data: *const u8,
    x: *const f32,
) -> [I::F; N] {
    // SAFETY: the contract of `linear_f32`.
    unsafe {
        let mut sums = [I::splat(0.0); N];
        for k in 0..w.columns {
            let x = I::splat(*x.add(k));
            for i in 0..N {
                let block = data.add(i * w.block_bytes);
                let weights = match FORMAT {
                    0 => I::load(block.cast::<f32>().add(k * LANES)),
                    1 => I::load_f16(block.cast::<u16>().add(k * LANES)),
                    _ => I::load_bf16(block.cast::<u16>().add(k * LANES)),
                };
                sums[i] = I::fma(weights, x, sums[i]);
            }
        }
        sums
    }
}

/// The weights of some columns as f32 [column][16]: widened into `out`, or in place if they are.
#[inline(always)]
unsafe fn widen_span<I: Isa>(
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
                I::unpack_span(w, block, first, count, span);
                widen_codes::<I>(w, &codes, block, columns, span, out);
            }
        }
        out
    }
}

/// scale (code - offset) + min of each column.
#[inline(always)]
unsafe fn widen_codes<I: Isa>(
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

/// Adds the products of some columns to the sums of all rows of activations.
#[inline(always)]
unsafe fn multiply_all<I: Isa>(
    weights: *const f32,
    x: *const f32,
    stride: usize,
    columns: Range<usize>,
    n: usize,
    sums: *mut f32,
) {
    let mut row = 0;
    // SAFETY: the contract of `linear_f32`.
    unsafe {
        while I::TILE[0] == 8 && row + 8 <= n {
            multiply::<I, 8>(weights, x, stride, columns.clone(), row, sums);
            row += 8;
        }
        while row + 4 <= n {
            multiply::<I, 4>(weights, x, stride, columns.clone(), row, sums);
            row += 4;
        }
        while row < n {
            multiply::<I, 1>(weights, x, stride, columns.clone(), row, sums);
            row += 1;
        }
    }
}

/// Adds the products of some columns to the sums of T rows of activations.
#[inline(always)]
unsafe fn multiply<I: Isa, const T: usize>(
    weights: *const f32,
    x: *const f32,
    stride: usize,
    columns: Range<usize>,
    row: usize,
    sums: *mut f32,
) {
    // SAFETY: the contract of `linear_f32`.
    unsafe {
        let mut acc = [I::splat(0.0); T];
        let mut rows = [std::ptr::null(); T];
        for t in 0..T {
            acc[t] = I::load(sums.add((row + t) * LANES));
            rows[t] = x.add((row + t) * stride + columns.start);
        }
        for k in 0..columns.len() {
            let w = I::load(weights.add(k * LANES));
            for t in 0..T {
                acc[t] = I::fma(w, I::splat(*rows[t].add(k)), acc[t]);
            }
        }
        for t in 0..T {
            I::store(sums.add((row + t) * LANES), acc[t]);
        }
    }
}

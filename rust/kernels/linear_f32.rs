//! Matrix products with f32 activations: weights are widened to f32 a slab of columns at a time, and
//! each column adds `acc = fma(weight, x, acc)` to the sums of all rows of activations.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::isa::{CHUNK, Isa, LANES, STEP_BYTES};
use super::linear::{Buffer, Output, Scratch, finish, load_scales, unpack};
use super::packed::{Packed, Storage};
use crate::formats::{Codes, Format};

/// Columns whose weights are widened to f32 at a time: 32 KiB, the first-level cache.
const SLAB: usize = 512;

/// Rows `16 b..16 b + 16`, b in `blocks`, of the product with `n` rows of f32 activations at `x`,
/// one every `w.columns` floats.
///
/// # Safety
///
/// As `linear_int8`.
#[inline(always)]
pub unsafe fn linear_f32<I: Isa>(
    w: &Packed,
    blocks: Range<usize>,
    x: *const f32,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    scratch.weights.resize((SLAB + CHUNK) * LANES, 0.0);
    scratch.sums.resize(n * LANES, 0.0);
    let sums = scratch.sums.as_mut_ptr();
    for block in blocks {
        scratch.sums.fill(0.0);
        let mut start = 0;
        while start < w.columns {
            let end = w.columns.min(start + SLAB);
            // SAFETY: the caller's promise; the scratch holds a slab and n sums.
            unsafe {
                let weights = widen::<I>(w, block, start..end, scratch.weights.as_mut_ptr());
                let mut row = 0;
                while row + 4 <= n {
                    multiply::<I, 4>(weights, x, w.columns, start..end, row, sums);
                    row += 4;
                }
                while row < n {
                    multiply::<I, 1>(weights, x, w.columns, start..end, row, sums);
                    row += 1;
                }
            }
            start = end;
        }
        for row in 0..n {
            // SAFETY: the caller's promise.
            unsafe { finish::<I>(w, block, I::load(sums.add(row * LANES)), row, out) };
        }
    }
}

/// The weights of some columns as f32 [column][16]: widened into `out`, or in place if they are.
#[inline(always)]
unsafe fn widen<I: Isa>(
    w: &Packed,
    block: usize,
    columns: Range<usize>,
    out: *mut f32,
) -> *const f32 {
    // SAFETY: the columns lie within `w`, `out` holds a slab and one chunk.
    unsafe {
        let data = w.data.as_ptr().add(block * w.block_bytes);
        match w.storage {
            Storage::Floats(Format::F32) => return data.cast::<f32>().add(columns.start * LANES),
            Storage::Floats(format) => {
                let data = data.cast::<u16>();
                for k in columns.clone() {
                    let source = data.add(k * LANES);
                    let half = if format == Format::F16 {
                        I::load_f16(source)
                    } else {
                        I::load_bf16(source)
                    };
                    I::store(out.add((k - columns.start) * LANES), half);
                }
            }
            Storage::Codes(codes) => {
                for start in columns.clone().step_by(CHUNK) {
                    let target = out.add((start - columns.start) * LANES);
                    widen_chunk::<I>(w, codes, block, data, start, target);
                }
            }
        }
        out
    }
}

/// scale (code - offset) + min for 32 columns from `start` on, a multiple of 32.
#[inline(always)]
unsafe fn widen_chunk<I: Isa>(
    w: &Packed,
    codes: Codes,
    block: usize,
    data: *const u8,
    start: usize,
    out: *mut f32,
) {
    // SAFETY: the contract of `widen`.
    unsafe {
        let mut buffer = Buffer([0; CHUNK * LANES]);
        let bits = usize::from(codes.bits);
        let target = buffer.0.as_mut_ptr();
        unpack_any::<I>(bits, data.add(start / CHUNK * STEP_BYTES * bits), target);
        let offset = I::splat(f32::from(codes.offset));
        for e in 0..CHUNK {
            let group = (start + e) / codes.group;
            let at = (block * w.groups + group) * LANES;
            let q = I::code(I::bytes(target.add(e / 4 * STEP_BYTES)), (e % 4) as u32);
            let scale = load_scales::<I>(w.scales.as_ptr(), codes.f16_scales, at);
            let mut value = I::mul(scale, I::sub(q, offset));
            if codes.has_min {
                value = I::add(value, load_scales::<I>(w.mins.as_ptr(), codes.f16_scales, at));
            }
            I::store(out.add(e * LANES), value);
        }
    }
}

#[inline(always)]
unsafe fn unpack_any<I: Isa>(bits: usize, data: *const u8, out: *mut u8) {
    // SAFETY: the contract of `unpack`.
    unsafe {
        match bits {
            1 => unpack::<I, 1>(data, out),
            2 => unpack::<I, 2>(data, out),
            3 => unpack::<I, 3>(data, out),
            4 => unpack::<I, 4>(data, out),
            5 => unpack::<I, 5>(data, out),
            6 => unpack::<I, 6>(data, out),
            7 => unpack::<I, 7>(data, out),
            _ => unpack::<I, 8>(data, out),
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

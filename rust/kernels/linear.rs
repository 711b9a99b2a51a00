//! Matrix products: a block of 16 rows of weights against rows of activations.
//!
//! An output is the sum over its row in order, whatever the vector width, the tile or the number
//! of threads. With int8 activations, for each group within each chunk of 32:
//!
//! ```text
//! acc = fma(float(sum (code - offset) a), scale * d, acc)
//! acc = fma(min, d * float(sum a), acc)                     where the format has minima
//! ```
//!
//! and with f32 activations (`linear_f32.rs`), for each column: `acc = fma(weight, x, acc)`. The
//! bias comes last.
//! Codes are unpacked once for a block and all rows of activations, at once for a single row.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use super::activations::Acts;
use super::isa::{CHUNK, Isa, LANES, STEP_BYTES, STEPS};
use super::packed::{Packed, Storage, planes};
use crate::formats::Codes;

/// Where the results go: row `n` of [n, stride], an optional bias of one float a column.
#[derive(Clone, Copy)]
pub struct Output {
    pub data: *mut f32,
    pub stride: usize,
    pub bias: Option<*const f32>,
}

/// Working memory of one thread.
#[derive(Default)]
pub struct Scratch {
    codes: Vec<u8>,
    pub(super) weights: Vec<f32>,
    pub(super) sums: Vec<f32>,
}

/// Rows `16 b..16 b + 16`, b in `blocks`, of the product with `n` rows of int8 activations.
///
/// # Safety
///
/// The CPU has the instruction set, `w.takes_int8()`, `acts` and `out` hold `n` rows of `w`'s
/// columns and rows, and no other thread writes the same rows of the output.
#[inline(always)]
pub unsafe fn linear_int8<I: Isa>(
    w: &Packed,
    blocks: Range<usize>,
    acts: &Acts,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    let Storage::Codes(codes) = w.storage else { return };
    // SAFETY: the caller's promise.
    unsafe {
        match codes.bits {
            1 => int8_bits::<I, 1>(w, codes, blocks, acts, n, out, scratch),
            2 => int8_bits::<I, 2>(w, codes, blocks, acts, n, out, scratch),
            3 => int8_bits::<I, 3>(w, codes, blocks, acts, n, out, scratch),
            4 => int8_bits::<I, 4>(w, codes, blocks, acts, n, out, scratch),
            5 => int8_bits::<I, 5>(w, codes, blocks, acts, n, out, scratch),
            6 => int8_bits::<I, 6>(w, codes, blocks, acts, n, out, scratch),
            7 => int8_bits::<I, 7>(w, codes, blocks, acts, n, out, scratch),
            _ => int8_bits::<I, 8>(w, codes, blocks, acts, n, out, scratch),
        }
    }
}

#[inline(always)]
unsafe fn int8_bits<I: Isa, const BITS: usize>(
    w: &Packed,
    codes: Codes,
    blocks: Range<usize>,
    acts: &Acts,
    n: usize,
    out: Output,
    scratch: &mut Scratch,
) {
    let expanded = acts.chunks * CHUNK * LANES;
    if n > 1 && scratch.codes.len() < expanded {
        scratch.codes.resize(expanded, 0);
    }
    for block in blocks {
        // SAFETY: the caller's promise; a block's codes and scales lie within `w`.
        unsafe {
            let tile = Tile {
                w,
                codes,
                block,
                data: w.data.as_ptr().add(block * w.block_bytes),
                acts: *acts,
            };
            if n == 1 {
                tile.run::<I, BITS, true, 1>(0, out);
                continue;
            }
            for chunk in 0..acts.chunks {
                let target = scratch.codes.as_mut_ptr().add(chunk * CHUNK * LANES);
                unpack::<I, BITS>(tile.data.add(chunk * STEP_BYTES * BITS), target);
            }
            let tile = Tile { data: scratch.codes.as_ptr(), ..tile };
            let mut row = 0;
            while row + 4 <= n {
                tile.run::<I, BITS, false, 4>(row, out);
                row += 4;
            }
            while row < n {
                tile.run::<I, BITS, false, 1>(row, out);
                row += 1;
            }
        }
    }
}

/// One block of 16 rows of weights, packed or unpacked to a byte a code.
struct Tile<'a> {
    w: &'a Packed,
    codes: Codes,
    block: usize,
    data: *const u8,
    acts: Acts,
}

impl Tile<'_> {
    /// T rows of activations from `row` on.
    #[inline(always)]
    unsafe fn run<I: Isa, const BITS: usize, const PACKED: bool, const T: usize>(
        &self,
        row: usize,
        out: Output,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            if self.codes.group < CHUNK {
                self.chunks::<I, BITS, PACKED, T, 2>(row, out);
            } else {
                self.chunks::<I, BITS, PACKED, T, 1>(row, out);
            }
        }
    }

    /// `PARTS` groups lie in a chunk: 1 (a group is one chunk or more) or 2 (groups of 16).
    #[inline(always)]
    unsafe fn chunks<
        I: Isa,
        const BITS: usize,
        const PACKED: bool,
        const T: usize,
        const PARTS: usize,
    >(
        &self,
        row: usize,
        out: Output,
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let mut sums = [I::splat(0.0); T];
            let mut buffer = Buffer([0; CHUNK * LANES]);
            let chunks_per_group = (self.codes.group / CHUNK).max(1);
            for chunk in 0..self.acts.chunks {
                let data = if PACKED {
                    unpack::<I, BITS>(
                        self.data.add(chunk * STEP_BYTES * BITS),
                        buffer.0.as_mut_ptr(),
                    );
                    buffer.0.as_ptr()
                } else {
                    self.data.add(chunk * CHUNK * LANES)
                };
                if PARTS == 2 {
                    self.part::<I, BITS, T, 4>(data, chunk, 0, 2 * chunk, row, &mut sums);
                    let high = data.add(4 * STEP_BYTES);
                    self.part::<I, BITS, T, 4>(high, chunk, 1, 2 * chunk + 1, row, &mut sums);
                } else {
                    let group = chunk / chunks_per_group;
                    self.part::<I, BITS, T, STEPS>(data, chunk, 0, group, row, &mut sums);
                }
            }
            for (t, sum) in sums.into_iter().enumerate() {
                finish::<I>(self.w, self.block, sum, row + t, out);
            }
        }
    }

    /// `N` steps of one chunk, from half `half` on, which share the scale of `group`.
    #[inline(always)]
    unsafe fn part<I: Isa, const BITS: usize, const T: usize, const N: usize>(
        &self,
        codes: *const u8,
        chunk: usize,
        half: usize,
        group: usize,
        row: usize,
        sums: &mut [I::F; T],
    ) {
        // SAFETY: the contract of `linear_int8`.
        unsafe {
            let mut q = [std::ptr::null(); T];
            for (t, q) in q.iter_mut().enumerate() {
                *q = self.acts.codes(row + t).add(chunk * CHUNK + half * CHUNK / 2).cast_const();
            }
            let dots = I::dot::<BITS, N, T>(codes, q);
            let at = (self.block * self.w.groups + group) * LANES;
            let f16 = self.codes.f16_scales;
            let scale = load_scales::<I>(self.w.scales.as_ptr(), f16, at);
            let center = if BITS == 8 { I::CENTER } else { 0 };
            for t in 0..T {
                let d = *self.acts.scales(row + t).add(chunk);
                let halves = self.acts.halves(row + t).add(2 * chunk);
                let total = if N == STEPS { *halves + *halves.add(1) } else { *halves.add(half) };
                let shift = (center - i32::from(self.codes.offset)) * total;
                let dot = I::float(I::add_i(dots[t], I::splat_i(shift)));
                sums[t] = I::fma(dot, I::mul(scale, I::splat(d)), sums[t]);
                if self.codes.has_min {
                    let min = load_scales::<I>(self.w.mins.as_ptr(), f16, at);
                    sums[t] = I::fma(min, I::splat(d * total as f32), sums[t]);
                }
            }
        }
    }
}

/// One chunk's codes, a byte each.
#[repr(align(64))]
pub(super) struct Buffer(pub(super) [u8; CHUNK * LANES]);

/// Unpacks one chunk's planes to a byte a code: 8 steps of 64 bytes.
#[inline(always)]
pub(super) unsafe fn unpack<I: Isa, const BITS: usize>(data: *const u8, out: *mut u8) {
    // SAFETY: a chunk takes 64 BITS bytes, its codes 8 x 64.
    unsafe {
        for step in 0..STEPS {
            let split = planes(BITS);
            let first = I::bytes(data.add(step * split[0] / 8 * STEP_BYTES));
            let mut q = field::<I>(first, step, split[0]);
            let (mut low, mut at) = (split[0], STEP_BYTES * split[0]);
            for plane in split.into_iter().skip(1) {
                if plane > 0 {
                    let bytes = I::bytes(data.add(at + step * plane / 8 * STEP_BYTES));
                    q = I::or(q, I::raise(field::<I>(bytes, step, plane), low as u32));
                }
                low += plane;
                at += STEP_BYTES * plane;
            }
            I::store_bytes(out.add(step * STEP_BYTES), q);
        }
    }
}

#[inline(always)]
unsafe fn field<I: Isa>(bytes: I::B, step: usize, plane: usize) -> I::B {
    if plane == 8 {
        return bytes;
    }
    // SAFETY: the CPU has the instruction set.
    unsafe { I::field(bytes, (step * plane % 8) as u32, plane as u32) }
}

#[inline(always)]
pub(super) unsafe fn load_scales<I: Isa>(scales: *const u8, f16: bool, at: usize) -> I::F {
    // SAFETY: `at` is the first lane of a group.
    unsafe {
        if f16 {
            I::load_f16(scales.cast::<u16>().add(at))
        } else {
            I::load(scales.cast::<f32>().add(at))
        }
    }
}

/// Adds the bias and writes the block's 16 results (fewer in the last block) of row `row`.
#[inline(always)]
pub(super) unsafe fn finish<I: Isa>(w: &Packed, block: usize, sum: I::F, row: usize, out: Output) {
    // SAFETY: the contract of `linear_int8`.
    unsafe {
        let first = block * LANES;
        let count = (w.rows - first).min(LANES);
        let target = out.data.add(row * out.stride + first);
        if count == LANES && out.bias.is_none() {
            I::store(target, sum);
            return;
        }
        let mut lanes = [0f32; LANES];
        I::store(lanes.as_mut_ptr(), sum);
        for (lane, value) in lanes.iter().enumerate().take(count) {
            *target.add(lane) = match out.bias {
                Some(bias) => *value + *bias.add(first + lane),
                None => *value,
            };
        }
    }
}

//! A loop of int8 multiply-adds and nothing else, which `peak.rs` times.

use std::hint::black_box;

use super::dot_steps::pair_steps;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::shape::{CHUNK, STEP_BYTES, STEPS};

/// Rows of activations: enough independent sums to hide the latency of an instruction.
pub const ROWS: usize = 4;
/// Chunks of one call, read from buffers in the first-level cache.
pub const CHUNKS: usize = 4096;

/// Multiplies `CHUNKS` chunks of 16 rows of 4-bit codes with `ROWS` rows of activations; returns the sum of
/// all products, which keeps the compiler from removing the loop.
///
/// # Safety
///
/// `codes` holds a chunk, `acts` `ROWS` chunks, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn peak<I: Bytes>(codes: *const u8, acts: *const i8) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut dots = [I::splat_i(0); ROWS];
        let mut paired = [0; STEPS * STEP_BYTES];
        let codes = if I::PAIRED {
            std::ptr::copy_nonoverlapping(codes, paired.as_mut_ptr(), paired.len());
            pair_steps(paired.as_mut_ptr(), 1);
            paired.as_ptr()
        } else {
            codes
        };
        for _ in 0..CHUNKS {
            // The compiler must not see that all rounds are the same.
            let (codes, acts) = (black_box(codes), black_box(acts));
            let mut sums = [I::no_sums(); ROWS];
            if I::PAIRED {
                pairs::<I>(codes, acts, &mut dots);
                continue;
            }
            for step in 0..STEPS {
                let q = I::bytes(codes.add(step * STEP_BYTES));
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = I::accumulate::<4>(*sum, q, acts.add(row * CHUNK + 4 * step));
                }
                for sum in &mut sums {
                    *sum = I::settle(*sum);
                }
            }
            for (dot, sum) in dots.iter_mut().zip(sums) {
                *dot = I::fold(*dot, sum);
            }
        }
        dots.into_iter().map(|dot| I::sum_i(dot)).fold(0, i32::wrapping_add)
    }
}

/// One chunk of `peak` for instruction sets that multiply two rows of activations at a time.
#[inline(always)]
unsafe fn pairs<I: Bytes>(codes: *const u8, acts: *const i8, dots: &mut [I::I; ROWS]) {
    // SAFETY: the contract of `peak`.
    unsafe {
        let mut sums = [[I::no_sums(); 2]; ROWS / 2];
        for step in (0..STEPS).step_by(2) {
            let at = codes.add(step * STEP_BYTES);
            let q = [I::bytes(at), I::bytes(at.add(STEP_BYTES))];
            for (pair, sums) in sums.iter_mut().enumerate() {
                let row = acts.add(2 * pair * CHUNK + 4 * step);
                *sums = I::accumulate_pairs::<4>(*sums, q, [row, row.add(CHUNK)]);
            }
            for sums in &mut sums {
                *sums = [I::settle(sums[0]), I::settle(sums[1])];
            }
        }
        for (pair, sums) in sums.into_iter().enumerate() {
            let [first, second] = I::unpair(sums);
            dots[2 * pair] = I::fold(dots[2 * pair], first);
            dots[2 * pair + 1] = I::fold(dots[2 * pair + 1], second);
        }
    }
}

//! The most multiply-adds of int8 that an instruction set makes when nothing but them is done: the
//! ceiling of prompts, as the memory's read rate is that of generation.

use std::hint::black_box;
use std::time::Instant;

use super::Kernels;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::floats::{CHUNK, LANES, STEP_BYTES, STEPS};
use crate::kernels::product::dot_steps::pair_steps;

/// Rows of activations: as many sums at once as hide an instruction's latency.
const ROWS: usize = 4;
/// Chunks of one call, from buffers that the first cache holds.
const CHUNKS: usize = 4096;
const CALLS: usize = 40;

/// `CHUNKS` chunks of 16 rows of 4-bit codes against `ROWS` rows of activations.
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
            // The compiler must not know that every round is the same.
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

/// A chunk of `peak` where two rows of activations are multiplied at a time.
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

/// What `peak` reads, on cache lines.
#[repr(align(64))]
struct Lines([u8; STEPS * STEP_BYTES], [i8; ROWS * CHUNK]);

/// Billions of multiply-adds a second of `threads` threads (0: all cores) together: the best of
/// several calls. Takes some milliseconds.
pub fn peak_rate(kernels: &'static Kernels, threads: usize) -> f64 {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    let Lines(codes, acts) = Lines([1; STEPS * STEP_BYTES], [1; ROWS * CHUNK]);
    let call = || {
        let start = Instant::now();
        // SAFETY: the buffers are as long as `peak` needs; the CPU has what its kernels need.
        black_box(unsafe { (kernels.peak)(codes.as_ptr(), acts.as_ptr()) });
        start.elapsed().as_secs_f64()
    };
    let best = |_| (0..CALLS).map(|_| call()).fold(f64::INFINITY, f64::min);
    let rate: f64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|i| scope.spawn(move || best(i))).collect();
        let work = (CHUNKS * CHUNK * LANES * ROWS) as f64;
        workers.into_iter().map(|w| work / w.join().unwrap_or(f64::INFINITY)).sum()
    });
    rate / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{available, find};

    #[test]
    fn every_set_makes_the_same_products() {
        let codes: Vec<u8> = (0..STEPS * STEP_BYTES).map(|i| (i % 16) as u8).collect();
        let acts: Vec<i8> = (0..ROWS * CHUNK).map(|i| (i % 255) as i8).collect();
        // SAFETY: the buffers are as long as `peak` needs.
        let run = |kernels: &Kernels| unsafe { (kernels.peak)(codes.as_ptr(), acts.as_ptr()) };
        let want = run(find(Some("scalar")).unwrap());
        assert_ne!(want, 0);
        for kernels in available() {
            assert_eq!(run(kernels), want, "{}", kernels.name);
        }
    }
}

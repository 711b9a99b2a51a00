//! The highest rate of int8 multiply-adds that an instruction set reaches: the upper bound of prompt speed.
//!
//! The read rate of memory (`rust/read_rate.rs`) is the upper bound of generation speed.

use std::hint::black_box;
use std::time::Instant;

use super::product::peak_loop::{CHUNKS, ROWS};
use super::shape::{CHUNK, LANES, STEP_BYTES, STEPS};
use super::table::Kernels;

/// Calls that are timed; the fastest counts.
const CALLS: usize = 40;

/// The inputs of `peak`, aligned to cache lines.
#[repr(align(64))]
struct Lines([u8; STEPS * STEP_BYTES], [i8; ROWS * CHUNK]);

/// Billions of multiply-adds a second of `threads` threads (0: all cores) together: each thread's fastest of
/// 40 calls. Takes some milliseconds.
pub fn peak_rate(kernels: &'static Kernels, threads: usize) -> f64 {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    let Lines(codes, acts) = Lines([1; STEPS * STEP_BYTES], [1; ROWS * CHUNK]);
    let call = || {
        let start = Instant::now();
        // SAFETY: the buffers are as long as `peak` needs; `available` has detected the instruction set.
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

//! The read rate of memory, which limits generation: each token reads every weight once.

use crate::error::{Error, Result};
use std::hint::black_box;
use std::time::Instant;

/// Bytes of the buffer: several times any cache that a processor has for itself.
const BYTES: usize = 512 << 20;
const PASSES: usize = 4;
/// Independent sums, so that no addition waits for the one before.
const LANES: usize = 32;

/// GB/s (10^9 bytes) that `threads` threads together read from memory: the best of four passes
/// over 512 MiB. Zero threads means as many as the machine has. Takes about half a second.
///
/// # Errors
/// The buffer does not fit in memory.
pub fn read_rate(threads: usize) -> Result<f64> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    let mut buffer: Vec<u64> = Vec::new();
    buffer.try_reserve_exact(BYTES / 8).map_err(|_| {
        Error::input("measuring the memory's read rate needs 512 MiB that are not free")
    })?;
    // Written, not zeroed by the system: untouched pages would all be one page of zeros.
    buffer.extend((0..BYTES / 8).map(|i| i as u64));
    let best = (0..PASSES).map(|_| pass(&buffer, threads)).fold(f64::INFINITY, f64::min);
    Ok(BYTES as f64 / best / 1e9)
}

/// Seconds in which `threads` threads read their pieces of the buffer once.
fn pass(buffer: &[u64], threads: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for piece in buffer.chunks(buffer.len().div_ceil(threads)) {
            scope.spawn(move || black_box(sum(piece)));
        }
    });
    start.elapsed().as_secs_f64()
}

fn sum(values: &[u64]) -> u64 {
    let mut lanes = [0u64; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*value);
        }
    }
    rest.iter().chain(&lanes).fold(0, |a, b| a.wrapping_add(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_read() {
        let values: Vec<u64> = (0..1000).collect();
        assert_eq!(sum(&values), 499_500);
        assert_eq!(sum(&values[..LANES + 1]), 528);
    }

    #[test]
    fn a_pass_takes_longer_over_more() {
        let buffer = vec![1u64; 8 << 20];
        let small = (0..5).map(|_| pass(&buffer[..1 << 16], 1)).fold(f64::INFINITY, f64::min);
        let large = (0..5).map(|_| pass(&buffer, 1)).fold(f64::INFINITY, f64::min);
        assert!(large > small, "64 MiB in {large} s, 512 KiB in {small} s");
    }
}

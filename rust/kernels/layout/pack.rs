//! Packing: rows of a file format into the bit planes and scales of the run-time layout.

use crate::formats::{Codes, Format};
use crate::kernels::layout::scales;
use crate::kernels::shape::{CHUNK, LANES, STEP_BYTES};

/// The planes of a code of `bits` bits, low bits first.
pub const fn planes(bits: usize) -> [usize; 4] {
    match bits {
        1 => [1, 0, 0, 0],
        2 => [2, 0, 0, 0],
        3 => [2, 1, 0, 0],
        4 => [4, 0, 0, 0],
        5 => [4, 1, 0, 0],
        6 => [4, 2, 0, 0],
        7 => [4, 2, 1, 0],
        _ => [8, 0, 0, 0],
    }
}

/// Working memory of one thread that packs 16 rows at a time.
pub struct Packer {
    format: Format,
    codes: Codes,
    columns: usize,
    /// [16][stride] codes; zero for missing rows and columns.
    q: Vec<u8>,
    stride: usize,
    scale: Vec<f32>,
    min: Vec<f32>,
}

impl Packer {
    /// For rows of `columns` elements in `groups` groups.
    pub fn new(format: Format, columns: usize, groups: usize) -> Self {
        let codes = format.codes().expect("floats have none");
        // One more cache line, because rows at distances of a power of two compete for the same cache sets.
        let stride = columns.next_multiple_of(CHUNK) + 64;
        let (scale, min) = (vec![0.0; groups], vec![0.0; groups]);
        Self { format, codes, columns, q: vec![0; LANES * stride], stride, scale, min }
    }

    /// Packs up to 16 rows; returns whether all their scales are finite.
    pub fn pack(
        &mut self,
        rows: &[u8],
        row_bytes: usize,
        out: &mut [u8],
        scales: &mut [u8],
        mins: &mut [u8],
    ) -> bool {
        let count = rows.len() / row_bytes;
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let q = &mut self.q[lane * self.stride..][..self.columns];
            self.format.unpack_stored(row, self.columns, q, &mut self.scale, &mut self.min);
            let floats = (&self.scale[..], &self.min[..]);
            scales::write_row(self.format, &self.codes, row, lane, floats, (scales, mins));
        }
        self.q[count * self.stride..].fill(0);
        let bits = self.codes.stored_bits();
        let mut side_by_side = [0; CHUNK * LANES];
        for (chunk, out) in out.chunks_exact_mut(STEP_BYTES * bits).enumerate() {
            for lane in 0..LANES {
                let row = &self.q[lane * self.stride + chunk * CHUNK..][..CHUNK];
                for (step, four) in row.as_chunks::<4>().0.iter().enumerate() {
                    side_by_side[step * STEP_BYTES + 4 * lane..][..4].copy_from_slice(four);
                }
            }
            split(&side_by_side, bits, out);
        }
        scales::finite(&self.codes, scales, mins)
    }
}

/// Splits the codes of one chunk into planes.
fn split(codes: &[u8; CHUNK * LANES], bits: usize, mut out: &mut [u8]) {
    let mut low = 0;
    for plane in planes(bits).into_iter().take_while(|&plane| plane > 0) {
        let (here, rest) = out.split_at_mut(STEP_BYTES * plane);
        match plane {
            8 => here.copy_from_slice(codes),
            4 => merge::<4>(codes, low, here),
            2 => merge::<2>(codes, low, here),
            _ => merge::<1>(codes, low, here),
        }
        (low, out) = (low + plane, rest);
    }
}

/// Writes a plane: `BITS` bits of each code from bit `low` up, `8 / BITS` steps in a vector. Memory is only
/// written, because reading fresh memory costs one more page fault.
fn merge<const BITS: usize>(codes: &[u8; CHUNK * LANES], low: usize, out: &mut [u8]) {
    let mask = (1u8 << BITS) - 1;
    let vectors = out.as_chunks_mut::<STEP_BYTES>().0;
    for (vector, steps) in vectors.iter_mut().zip(codes.chunks_exact(STEP_BYTES * 8 / BITS)) {
        let mut merged = [0; STEP_BYTES];
        for (step, q) in steps.as_chunks::<STEP_BYTES>().0.iter().enumerate() {
            for (byte, q) in merged.iter_mut().zip(q) {
                *byte |= (q >> low & mask) << (step * BITS);
            }
        }
        *vector = merged;
    }
}

/// The code of column `k` in lane `lane` of a block.
pub fn read_code(block: &[u8], bits: usize, lane: usize, k: usize) -> u8 {
    let chunk = &block[k / CHUNK * STEP_BYTES * bits..][..STEP_BYTES * bits];
    let (step, i) = (k % CHUNK / 4, k % 4);
    let (mut low, mut at, mut q) = (0, 0, 0);
    for plane in planes(bits).into_iter().take_while(|&plane| plane > 0) {
        let byte = chunk[at + step * plane / 8 * STEP_BYTES + 4 * lane + i];
        q |= ((byte >> (step * plane % 8)) & (0xff >> (8 - plane))) << low;
        low += plane;
        at += STEP_BYTES * plane;
    }
    q
}

//! Helpers of kernel tests: random numbers, the scalar kernels, a comparison of bits.

use fewbit::kernels::{Kernels, find};

/// A reproducible stream of numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About -4..4, with a few outliers and zeros.
    pub fn float(&mut self) -> f32 {
        let x = (self.next() >> 40) as f32 / (1 << 21) as f32 - 4.0;
        match self.next() % 40 {
            0 => 50.0 * x,
            1 => 0.0,
            _ => x,
        }
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// The kernels in plain Rust, which define the results of all instruction sets.
#[allow(dead_code)] // not every test file uses it
pub fn scalar() -> &'static Kernels {
    find(Some("scalar")).unwrap()
}

/// Fails unless both have the same bits.
pub fn same_bits(what: &str, got: &[f32], want: &[f32]) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            got.to_bits() == want.to_bits(),
            "{what}: element {i}: {got:e} ({:#010x}), expected {want:e} ({:#010x})",
            got.to_bits(),
            want.to_bits()
        );
    }
    assert_eq!(got.len(), want.len(), "{what}");
}

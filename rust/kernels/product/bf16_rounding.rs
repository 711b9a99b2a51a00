//! Rounding activations from f32 to bfloat16.

use crate::kernels::layout::line::grow;
use crate::kernels::layout::packed::LEAST_BF16;

/// How rows of activations are rounded and stored, in words of 32 bits.
#[derive(Clone, Copy, PartialEq)]
pub enum Rounding {
    /// Floats as they are.
    None,
    /// bfloat16, widened to f32.
    Bf16,
    /// Two bfloat16 of adjacent columns in a word, the first in the higher half.
    Bf16Pairs,
}

impl Rounding {
    /// Columns of a word.
    #[inline(always)]
    pub fn columns(self) -> usize {
        if self == Self::Bf16Pairs { 2 } else { 1 }
    }
}

/// The rows that one thread rounded last.
#[derive(Default)]
pub struct Memory {
    words: Vec<u32>,
    /// Address and number of the floats.
    key: Option<(usize, usize)>,
}

impl Memory {
    /// Forgets the rows.
    pub fn forget(&mut self) {
        self.key = None;
    }

    /// `x` rounded to bfloat16 and widened to f32, from memory if it has the same rows.
    #[inline(always)]
    pub fn rounded(&mut self, x: &[f32]) -> *const f32 {
        let key = Some((x.as_ptr().addr(), x.len()));
        if self.key != key {
            self.key = key;
            grow(&mut self.words, x.len());
            round_row(x, Rounding::Bf16, &mut self.words);
        }
        self.words.as_ptr().cast()
    }
}

/// Rounds floats into words; `rounding` is not `None`.
#[inline(always)]
pub fn round_row(x: &[f32], rounding: Rounding, out: &mut [u32]) {
    if rounding != Rounding::Bf16Pairs {
        for (bits, x) in out.iter_mut().zip(x) {
            *bits = round(*x);
        }
        return;
    }
    let (twos, rest) = x.as_chunks::<2>();
    for (bits, [first, second]) in out.iter_mut().zip(twos) {
        *bits = round(*first) | round(*second) >> 16;
    }
    if let (Some(bits), [last]) = (out.last_mut(), rest) {
        *bits = round(*last);
    }
}

/// The bits of the bfloat16 nearest to `x`, widened to f32: ties to even, magnitudes below 2^-54 become
/// zero, NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        0x7fc0_0000
    } else if nearest & 0x7fff_ffff < LEAST_BF16 {
        0
    } else {
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even_and_drops_tiny_numbers() {
        let least = f32::from_bits(LEAST_BF16);
        let cases = [
            (1.0, 1.0),
            (1.0 + 2f32.powi(-8), 1.0),
            (1.0 + 3.0 * 2f32.powi(-8), 1.0 + 2f32.powi(-6)),
            (-1.0 - 2f32.powi(-8) - 2f32.powi(-20), -1.0 - 2f32.powi(-7)),
            (least, least),
            (least.next_down(), least),
            (-least * 0.99, 0.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ];
        for (x, want) in cases {
            assert_eq!(f32::from_bits(round(x)), want, "{x:e}");
        }
        assert!(f32::from_bits(round(f32::from_bits(0x7fff_ffff))).is_nan());
    }
}

//! The values that a code can stand for, in order, and the one nearest to a number.

use super::codes::Codes;
use super::table::Format;

/// The values of a format's codes in units of the scale, in ascending order; none twice.
pub struct Levels {
    /// At most 256 values.
    pub values: Vec<f32>,
    /// The stored code of each value.
    pub codes: Vec<u8>,
    /// By stored code its place in `values`.
    pub places: [u8; 256],
    /// The midpoints of neighbouring values.
    pub middles: Vec<f64>,
    /// True for consecutive integers.
    pub uniform: bool,
}

impl Levels {
    /// The levels of a format with a code per element. Codes that its encoder never writes are
    /// left out: -128 of Q8_0, the code above the highest of symmetric affine formats.
    pub fn new(format: Format, codes: &Codes) -> Self {
        let stored = 1usize << codes.stored_bits();
        let offset = i32::from(codes.offset);
        let value = |code: usize| match codes.levels {
            [] => code as i32 - offset,
            levels => i32::from(levels[code]) - offset,
        };
        let used = match format {
            Format::Q8_0 => 1..stored,
            Format::Affine(affine) if affine.symmetric && affine.bits > 1 => 0..stored - 1,
            _ => 0..stored,
        };
        let mut pairs: Vec<_> = used.map(|code| (value(code), code as u8)).collect();
        pairs.sort_unstable();
        pairs.dedup_by_key(|pair| pair.0);
        let mut places = [0; 256];
        for (code, place) in places.iter_mut().enumerate().take(stored) {
            let value = value(code);
            *place = pairs.partition_point(|pair| pair.0 < value).min(pairs.len() - 1) as u8;
        }
        let middle = |pair: &[(i32, u8)]| f64::from(pair[0].0 + pair[1].0) / 2.0;
        Self {
            middles: pairs.windows(2).map(middle).collect(),
            uniform: pairs.windows(2).all(|pair| pair[1].0 - pair[0].0 == 1),
            values: pairs.iter().map(|pair| pair.0 as f32).collect(),
            codes: pairs.iter().map(|pair| pair.1).collect(),
            places,
        }
    }

    /// The place of the value nearest to x; of two at the same distance the even integer, or the
    /// higher one of a table.
    #[inline(always)]
    pub fn nearest(&self, x: f64) -> usize {
        if self.uniform {
            let (low, high) = self.ends();
            // Adding 1.5 * 2^52 rounds to an integer, ties to even.
            let rounded = x.max(low).min(high) + 6_755_399_441_055_744.0 - 6_755_399_441_055_744.0;
            return (rounded - low) as usize;
        }
        self.middles.iter().map(|&middle| usize::from(x >= middle)).sum()
    }

    /// The lowest and the highest value.
    #[inline(always)]
    pub fn ends(&self) -> (f64, f64) {
        (f64::from(self.values[0]), f64::from(self.values[self.values.len() - 1]))
    }
}

//! Formats whose codes are points of a code book for 8 or 4 elements: what each point is worth,
//! and reading and changing the points of a block.

use super::grid::{THREE_BITS, THREE_BITS_XXS, TWO_BITS};
use super::grids::{Grid, IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use super::table::Format;

/// How the eight elements of a format's block that share signs are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signs {
    /// One bit each.
    Free,
    /// Seven bits: the number of minus signs is even.
    Even,
    /// In the points themselves; a bit moves all eight up or down by 1/8 of the step.
    Shift,
    /// As `Shift`, but the bit is shared with other elements.
    Shared,
}

/// The points of a code book, in units of the scale.
pub struct Points {
    pub format: Format,
    /// Elements of a point, 8 or 4.
    pub size: usize,
    /// [size][points], magnitudes or (IQ1) values before the shift.
    pub values: Vec<Vec<f32>>,
    pub signs: Signs,
}

/// Eight elements of a block as stored: one or two indices, and a byte of signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Eight {
    pub indices: [u16; 2],
    /// A bit for each minus sign; of IQ1 the first bit: moved down.
    pub signs: u8,
}

impl Points {
    /// The code book of `format`; None where codes stand for single elements.
    pub fn of(format: Format) -> Option<Self> {
        let (grid, size, signs): (&Grid, _, _) = match format {
            Format::IQ2_XXS => (&IQ2_XXS, 8, Signs::Even),
            Format::IQ2_XS => (&IQ2_XS, 8, Signs::Even),
            Format::IQ2_S => (&IQ2_S, 8, Signs::Free),
            Format::IQ3_XXS => (&IQ3_XXS, 4, Signs::Even),
            Format::IQ3_S => (&IQ3_S, 4, Signs::Free),
            Format::IQ1_S => (&IQ1, 8, Signs::Shared),
            Format::IQ1_M => (&IQ1, 8, Signs::Shift),
            _ => return None,
        };
        let value = |level: u8| match format {
            Format::IQ3_XXS => f32::from(THREE_BITS_XXS[usize::from(level)]),
            Format::IQ3_S => f32::from(THREE_BITS[usize::from(level)]),
            Format::IQ1_S | Format::IQ1_M => 8.0 * (f32::from(level) - 1.0),
            _ => f32::from(TWO_BITS[usize::from(level)]),
        };
        let values =
            (0..size).map(|j| grid.points.iter().map(|point| value(point[j])).collect()).collect();
        Some(Self { format, size, values, signs })
    }

    /// Eight elements of a block, `l` of 32.
    pub fn read(&self, block: &[u8], l: usize) -> Eight {
        let byte = |at: usize| u16::from(block[at]);
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        let seven = |word: u32| {
            let seven = (word >> (7 * (l % 4)) & 127) as u8;
            seven | ((seven.count_ones() & 1) as u8) << 7
        };
        let (indices, signs) = match self.format {
            Format::IQ2_XXS => ([byte(2 + 8 * (l / 4) + l % 4), 0], seven(word(6 + 8 * (l / 4)))),
            Format::IQ2_XS => {
                let stored = byte(2 + 2 * l) | byte(3 + 2 * l) << 8;
                let seven = (stored >> 9) as u8;
                ([stored & 511, 0], seven | ((seven.count_ones() & 1) as u8) << 7)
            }
            Format::IQ2_S => {
                let high = byte(66 + l / 4) >> (2 * (l % 4)) & 3;
                ([byte(2 + l) | high << 8, 0], block[34 + l])
            }
            Format::IQ3_XXS => ([byte(2 + 2 * l), byte(3 + 2 * l)], seven(word(66 + 4 * (l / 4)))),
            Format::IQ3_S => {
                let ninth = byte(66 + l / 4) >> (2 * (l % 4));
                let indices =
                    [byte(2 + 2 * l) | (ninth & 1) << 8, byte(3 + 2 * l) | (ninth & 2) << 7];
                (indices, block[74 + l])
            }
            Format::IQ1_S => {
                let high = byte(34 + l / 4 * 2) | byte(35 + l / 4 * 2) << 8;
                ([byte(2 + l) | (high >> (3 * (l % 4)) & 7) << 8, 0], (high >> 15) as u8)
            }
            _ => {
                let high = byte(32 + l / 2) >> (4 * (l % 2));
                ([byte(l) | (high & 7) << 8, 0], (high >> 3 & 1) as u8)
            }
        };
        Eight { indices, signs }
    }

    /// Stores eight elements of a block; a shared shift stays.
    pub fn write(&self, block: &mut [u8], l: usize, eight: Eight) {
        let [a, b] = eight.indices;
        match self.format {
            Format::IQ2_XXS => {
                block[2 + 8 * (l / 4) + l % 4] = a as u8;
                put(block, 6 + 8 * (l / 4), 7 * (l % 4), 7, u32::from(eight.signs));
            }
            Format::IQ2_XS => {
                let stored = a | u16::from(eight.signs & 127) << 9;
                block[2 + 2 * l..][..2].copy_from_slice(&stored.to_le_bytes());
            }
            Format::IQ2_S => {
                block[2 + l] = a as u8;
                put(block, 66 + l / 4, 2 * (l % 4), 2, u32::from(a >> 8));
                block[34 + l] = eight.signs;
            }
            Format::IQ3_XXS => {
                (block[2 + 2 * l], block[3 + 2 * l]) = (a as u8, b as u8);
                put(block, 66 + 4 * (l / 4), 7 * (l % 4), 7, u32::from(eight.signs));
            }
            Format::IQ3_S => {
                (block[2 + 2 * l], block[3 + 2 * l]) = (a as u8, b as u8);
                put(block, 66 + l / 4, 2 * (l % 4), 2, u32::from(a >> 8 | b >> 8 << 1));
                block[74 + l] = eight.signs;
            }
            Format::IQ1_S => {
                block[2 + l] = a as u8;
                put(block, 34 + l / 4 * 2, 3 * (l % 4), 3, u32::from(a >> 8));
            }
            _ => {
                block[l] = a as u8;
                let nibble = u32::from(a >> 8) | u32::from(eight.signs & 1) << 3;
                put(block, 32 + l / 2, 4 * (l % 2), 4, nibble);
            }
        }
    }

    /// The eight levels, in units of the scale that `unpack_row` gives.
    pub fn levels(&self, eight: Eight) -> [f32; 8] {
        std::array::from_fn(|j| {
            let value = self.values[j % self.size][usize::from(eight.indices[j / self.size])];
            match self.signs {
                Signs::Free | Signs::Even if eight.signs >> j & 1 == 1 => -value,
                Signs::Free | Signs::Even => value,
                Signs::Shift | Signs::Shared if eight.signs & 1 == 1 => value - 1.0,
                Signs::Shift | Signs::Shared => value + 1.0,
            }
        })
    }
}

/// Replaces `bits` bits from bit `from` on of the bytes that start at `at`.
fn put(block: &mut [u8], at: usize, from: usize, bits: usize, value: u32) {
    for i in 0..bits {
        let (byte, bit) = (at + (from + i) / 8, (from + i) % 8);
        block[byte] = block[byte] & !(1 << bit) | ((value >> i & 1) as u8) << bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [Format; 7] = [
        Format::IQ1_S,
        Format::IQ1_M,
        Format::IQ2_XXS,
        Format::IQ2_XS,
        Format::IQ2_S,
        Format::IQ3_XXS,
        Format::IQ3_S,
    ];

    /// Blocks of random bits, which are all valid.
    fn blocks(format: Format) -> Vec<Vec<u8>> {
        let mut state = 3u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..20).map(|_| (0..format.block_bytes()).map(|_| next()).collect()).collect()
    }

    #[test]
    fn levels_are_those_that_the_row_unpacks_to() {
        for format in FORMATS {
            let (points, codes) = (Points::of(format).unwrap(), format.codes().unwrap());
            for block in blocks(format) {
                let (mut q, mut scale, mut min) = ([0; 256], [0.0; 16], [0.0; 16]);
                format.unpack_row(&block, 256, &mut q, &mut scale, &mut min);
                for l in 0..32 {
                    let eight = points.read(&block, l);
                    let mut levels = points.levels(eight);
                    if format == Format::IQ1_S && eight.signs == 1 {
                        // Turned over, as its scale is.
                        levels = levels.map(|level| -level);
                    }
                    for j in 0..8 {
                        let level = f32::from(q[8 * l + j]) - f32::from(codes.offset);
                        assert_eq!(level, levels[j], "{format:?} {l} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn eights_are_stored_as_they_were_read() {
        for format in FORMATS {
            let points = Points::of(format).unwrap();
            let [from, mut to] = [0, 1].map(|i| blocks(format)[i].clone());
            for l in 0..32 {
                let others: Vec<_> =
                    (0..32).filter(|&k| k != l).map(|k| points.read(&to, k)).collect();
                let mut eight = points.read(&from, l);
                if points.signs == Signs::Shared {
                    eight.signs = points.read(&to, l).signs;
                }
                points.write(&mut to, l, eight);
                assert_eq!(points.read(&to, l), eight, "{format:?} {l}");
                let still: Vec<_> =
                    (0..32).filter(|&k| k != l).map(|k| points.read(&to, k)).collect();
                assert_eq!(still, others, "{format:?} {l}");
            }
        }
    }
}

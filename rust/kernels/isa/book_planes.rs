//! The code books as two planes of bytes, for lookups by permutations of bytes (VBMI).
//!
//! A point is 16 bits: two for each of eight levels, or four for each of four levels.

use std::sync::LazyLock;

use crate::formats::Format;
use crate::formats::grid::{OFFSET, THREE_BITS, THREE_BITS_XXS, TWO_BITS};
use crate::formats::grids::{Grid, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use crate::kernels::layout::line::Line;

/// A book's points in planes.
pub struct Planes {
    /// Codes by a level in the lower bits and a sign in bit 5: `OFFSET` plus or minus the magnitude.
    signed: Line,
    /// [2][points] bytes: the low half of each point's 16 bits, then the high half.
    lines: Vec<Line>,
}

impl Planes {
    fn new(grid: &Grid, bits: usize, magnitudes: [u8; 8]) -> Self {
        let points = grid.points.len();
        let mut lines = vec![Line::default(); 2 * points / 64];
        for (i, point) in grid.points.iter().enumerate() {
            let word = point
                .iter()
                .take(16 / bits)
                .rev()
                .fold(0u16, |word, &level| word << bits | u16::from(level));
            for (plane, byte) in word.to_le_bytes().into_iter().enumerate() {
                let at = plane * points + i;
                lines[at / 64].0[at % 64] = byte;
            }
        }
        let mut signed = [0; 64];
        for (i, code) in signed.iter_mut().enumerate() {
            let magnitude = magnitudes[i & ((1 << bits) - 1) & 7];
            *code = if i & 32 == 0 { OFFSET + magnitude } else { OFFSET - magnitude };
        }
        Self { signed: Line(signed), lines }
    }

    /// 64 codes, on a cache line.
    pub fn signed(&self) -> *const u8 {
        (&raw const self.signed).cast()
    }

    /// Both planes, on a cache line.
    pub fn as_ptr(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }
}

/// No points.
static NONE: Planes = Planes { signed: Line([0; 64]), lines: Vec::new() };

/// The planes of a format's book; none for IQ1, whose points are faster to load.
pub fn planes(format: Format) -> &'static Planes {
    macro_rules! planes {
        ($grid:ident, $bits:literal, $magnitudes:expr) => {{
            static PLANES: LazyLock<Planes> =
                LazyLock::new(|| Planes::new(&$grid, $bits, $magnitudes));
            &PLANES
        }};
    }
    match format {
        Format::IQ2_XXS => planes!(IQ2_XXS, 2, TWO_BITS),
        Format::IQ2_XS => planes!(IQ2_XS, 2, TWO_BITS),
        Format::IQ2_S => planes!(IQ2_S, 2, TWO_BITS),
        Format::IQ3_XXS => planes!(IQ3_XXS, 4, THREE_BITS_XXS),
        Format::IQ3_S => planes!(IQ3_S, 4, THREE_BITS),
        _ => &NONE,
    }
}

//! The code books' points as bytes: magnitudes, or 8 times the levels of IQ1.

use std::sync::LazyLock;

use crate::formats::Format;
use crate::formats::grid::{THREE_BITS, THREE_BITS_XXS, TWO_BITS};
use crate::formats::grids::{Grid, IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};

const ONE_BIT: [u8; 8] = [0, 8, 16, 0, 0, 0, 0, 0];

fn book(grid: &Grid, magnitudes: [u8; 8]) -> Vec<u64> {
    let value = |level: u8| magnitudes[usize::from(level)];
    grid.points.iter().map(|point| u64::from_le_bytes(point.map(value))).collect()
}

fn book_of_four(grid: &Grid, magnitudes: [u8; 8]) -> Vec<u32> {
    book(grid, magnitudes).into_iter().map(|point| point as u32).collect()
}

/// The points of a format with eight elements a point, the first in the lowest byte.
pub fn points(format: Format) -> &'static [u64] {
    static BOOK_2_XXS: LazyLock<Vec<u64>> = LazyLock::new(|| book(&IQ2_XXS, TWO_BITS));
    static BOOK_2_XS: LazyLock<Vec<u64>> = LazyLock::new(|| book(&IQ2_XS, TWO_BITS));
    static BOOK_2_S: LazyLock<Vec<u64>> = LazyLock::new(|| book(&IQ2_S, TWO_BITS));
    static BOOK_1: LazyLock<Vec<u64>> = LazyLock::new(|| book(&IQ1, ONE_BIT));
    match format {
        Format::IQ2_XXS => &BOOK_2_XXS,
        Format::IQ2_XS => &BOOK_2_XS,
        Format::IQ2_S => &BOOK_2_S,
        _ => &BOOK_1,
    }
}

/// The points of a format with four elements a point.
pub fn points_of_four(format: Format) -> &'static [u32] {
    static BOOK_XXS: LazyLock<Vec<u32>> = LazyLock::new(|| book_of_four(&IQ3_XXS, THREE_BITS_XXS));
    static BOOK_S: LazyLock<Vec<u32>> = LazyLock::new(|| book_of_four(&IQ3_S, THREE_BITS));
    if format == Format::IQ3_XXS { &BOOK_XXS } else { &BOOK_S }
}

//! IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S: code books for 8 or 4 elements at a time.
//!
//! ```text
//! IQ2_XXS   66 bytes  d; per 32: four 8-bit indices, four 7-bit signs, 4-bit s    d (0.5 + s) / 4
//! IQ2_XS    74 bytes  d; per 8: 9-bit index, 7-bit signs; 4-bit s per 16          d (0.5 + s) / 4
//! IQ2_S     82 bytes  d; 32 of indices; 32 of signs; 8 of index bits 8-9; 8 of s  d (0.5 + s) / 4
//! IQ3_XXS   98 bytes  d; 64 indices; per 32: four 7-bit signs, 4-bit s            d (0.5 + s) / 2
//! IQ3_S    110 bytes  d; 64 of indices; 8 of index bit 8; 32 of signs; 4 of s     d (1 + 2 s)
//! IQ1_S     50 bytes  d; 32 of indices; per 32: 4 x 3 index bits, s, sign         d (2 s + 1)
//! IQ1_M     56 bytes  32 of indices; 16 of index bits and signs; 8 of s and d     d (2 s + 1)
//! ```
//!
//! IQ2 and IQ3 multiply magnitudes with signs: seven are stored where their product is known to be
//! even. IQ1 adds 1/8 of the step, or takes it away, by one sign for 32 (IQ1_S) or 8 (IQ1_M)
//! elements; codes here are 8 times the value, so that they are integers.

#![allow(clippy::needless_range_loop)] // k counts stretches of 32 across several arrays

use std::sync::LazyLock;

use super::Format;
use super::bits::byte_masks;
use super::grids::{Grid, IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use crate::floats::{from_f16, read_f16};

/// What is added to signed values of IQ2 and IQ3.
pub const OFFSET: u8 = 64;
/// What is added to 8 times the values of IQ1.
pub const OFFSET_1: u8 = 9;

/// A book's points: eight magnitudes in the bytes of an integer, the first in the lowest.
type Book = Vec<u64>;
/// As `Book`, of four magnitudes.
type BookOfFour = Vec<u32>;

/// The book of a format of eight elements a point.
pub fn points(format: Format) -> &'static [u64] {
    match format {
        Format::IQ2_XXS => &BOOK_2_XXS,
        Format::IQ2_XS => &BOOK_2_XS,
        Format::IQ2_S => &BOOK_2_S,
        _ => &BOOK_1,
    }
}

/// The book of a format of four.
pub fn points_of_four(format: Format) -> &'static [u32] {
    if format == Format::IQ3_XXS { &BOOK_3_XXS } else { &BOOK_3_S }
}

fn book(grid: &Grid, magnitudes: [u8; 8]) -> Book {
    let value = |level: u8| magnitudes[usize::from(level)];
    grid.points.iter().map(|point| u64::from_le_bytes(point.map(value))).collect()
}

/// The four magnitudes of a point of IQ3.
fn book_of_four(grid: &Grid, magnitudes: [u8; 8]) -> BookOfFour {
    book(grid, magnitudes).into_iter().map(|point| point as u32).collect()
}

pub(crate) const TWO_BITS: [u8; 8] = [8, 25, 43, 0, 0, 0, 0, 0];
pub(crate) const THREE_BITS_XXS: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
pub(crate) const THREE_BITS: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
/// 8 times the levels of IQ1.
const ONE_BIT: [u8; 8] = [0, 8, 16, 0, 0, 0, 0, 0];
static BOOK_2_XXS: LazyLock<Book> = LazyLock::new(|| book(&IQ2_XXS, TWO_BITS));
static BOOK_2_XS: LazyLock<Book> = LazyLock::new(|| book(&IQ2_XS, TWO_BITS));
static BOOK_2_S: LazyLock<Book> = LazyLock::new(|| book(&IQ2_S, TWO_BITS));
static BOOK_3_XXS: LazyLock<BookOfFour> = LazyLock::new(|| book_of_four(&IQ3_XXS, THREE_BITS_XXS));
static BOOK_3_S: LazyLock<BookOfFour> = LazyLock::new(|| book_of_four(&IQ3_S, THREE_BITS));
static BOOK_1: LazyLock<Book> = LazyLock::new(|| book(&IQ1, ONE_BIT));

const EACH: u64 = 0x0101_0101_0101_0101;

/// Writes codes `8 l..8 l + 8`, the bytes of an integer.
fn put(q: &mut [u8], l: usize, codes: u64) {
    q[8 * l..8 * l + 8].copy_from_slice(&codes.to_le_bytes());
}

/// `OFFSET` plus the magnitudes, or less those with a set bit in `signs`: 64 - m is 63 ^ m and 1.
fn signed(magnitudes: u64, signs: u8) -> u64 {
    let mask = byte_masks(signs);
    (magnitudes ^ mask & (63 * EACH)) + (mask & EACH | !mask & (64 * EACH))
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Seven signs and an eighth that makes their number even.
fn even(signs: u32) -> u8 {
    let seven = (signs & 127) as u8;
    seven | ((seven.count_ones() & 1) as u8) << 7
}

fn read_u16(bytes: &[u8], k: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * k], bytes[2 * k + 1]])
}

fn read_u32(bytes: &[u8], k: usize) -> u32 {
    u32::from(read_u16(bytes, 2 * k)) | u32::from(read_u16(bytes, 2 * k + 1)) << 16
}

/// Nibble `k`, the low one of a byte first.
fn nibble(bytes: &[u8], k: usize) -> f32 {
    f32::from(bytes[k / 2] >> (4 * (k % 2)) & 15)
}

pub fn unpack_iq2_xxs(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let (d, book) = (read_f16(block), &BOOK_2_XXS[..256]);
    for k in 0..8 {
        let (indices, signs) = (&block[2 + 8 * k..], read_u32(&block[2..], 2 * k + 1));
        scale[k] = d * (0.5 + (signs >> 28) as f32) * 0.25;
        for l in 0..4 {
            let point = book[usize::from(indices[l])];
            put(q, 4 * k + l, signed(point, even(signs >> (7 * l))));
        }
    }
}

pub fn unpack_iq2_xs(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let (d, book) = (read_f16(block), &BOOK_2_XS[..512]);
    for (k, scale) in scale.iter_mut().enumerate().take(16) {
        *scale = d * (0.5 + nibble(&block[66..], k)) * 0.25;
    }
    for l in 0..32 {
        let word = read_u16(&block[2..], l);
        put(q, l, signed(book[usize::from(word & 511)], even(u32::from(word >> 9))));
    }
}

pub fn unpack_iq2_s(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let (d, book) = (read_f16(block), &BOOK_2_S[..1024]);
    for (k, scale) in scale.iter_mut().enumerate().take(16) {
        *scale = d * (0.5 + nibble(&block[74..], k)) * 0.25;
    }
    for l in 0..32 {
        let high = usize::from(block[66 + l / 4] >> (2 * (l % 4)) & 3);
        put(q, l, signed(book[usize::from(block[2 + l]) | high << 8], block[34 + l]));
    }
}

pub fn unpack_iq3_xxs(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let (d, book) = (read_f16(block), &BOOK_3_XXS[..256]);
    for k in 0..8 {
        let signs = read_u32(&block[66..], k);
        scale[k] = d * (0.5 + (signs >> 28) as f32) * 0.5;
        for l in 4 * k..4 * k + 4 {
            let (low, high) = (block[2 + 2 * l], block[3 + 2 * l]);
            let points = join(book[usize::from(low)], book[usize::from(high)]);
            put(q, l, signed(points, even(signs >> (7 * (l % 4)))));
        }
    }
}

pub fn unpack_iq3_s(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let (d, book) = (read_f16(block), &BOOK_3_S[..512]);
    for (k, scale) in scale.iter_mut().enumerate().take(8) {
        *scale = d * (1.0 + 2.0 * nibble(&block[106..], k));
    }
    for l in 0..32 {
        let ninth = usize::from(block[66 + l / 4] >> (2 * (l % 4)));
        let low = usize::from(block[2 + 2 * l]) | (ninth & 1) << 8;
        let high = usize::from(block[3 + 2 * l]) | (ninth >> 1 & 1) << 8;
        put(q, l, signed(join(book[low], book[high]), block[74 + l]));
    }
}

/// 8 times the point's values and 1 added or, where `negative`, taken away; plus `OFFSET_1`.
fn shifted(point: u64, negative: bool) -> u64 {
    point + EACH * (u64::from(OFFSET_1) - 8 + if negative { 0 } else { 2 } - 1)
}

pub fn unpack_iq1_s(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let (d, book) = (read_f16(block), &BOOK_1[..2048]);
    for k in 0..8 {
        let high = read_u16(&block[34..], k);
        scale[k] = d * f32::from(2 * (high >> 12 & 7) + 1) * 0.125;
        for l in 0..4 {
            let index = u16::from(block[2 + 4 * k + l]) | (high >> (3 * l) & 7) << 8;
            put(q, 4 * k + l, shifted(book[usize::from(index)], high >> 15 == 1));
        }
    }
}

pub fn unpack_iq1_m(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let words: [u16; 4] = std::array::from_fn(|k| read_u16(&block[48..], k));
    let d = words.iter().enumerate().fold(0, |d, (k, word)| d | word >> 12 << (4 * k));
    for (k, scale) in scale.iter_mut().enumerate().take(16) {
        let s = words[k / 4] >> (3 * (k % 4)) & 7;
        *scale = from_f16(d) * f32::from(2 * s + 1) * 0.125;
    }
    let book = &BOOK_1[..2048];
    for l in 0..32 {
        let high = block[32 + l / 2] >> (4 * (l % 2));
        let index = usize::from(block[l]) | usize::from(high & 7) << 8;
        put(q, l, shifted(book[index], high & 8 != 0));
    }
}

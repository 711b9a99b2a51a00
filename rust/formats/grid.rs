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
//!
//! Rows unpack to indices of levels, with the sign in them: the kernels keep these, 2 to 4 bits
//! each, as points of a book cost more to find than their bits to read (`kernels/layout/words.rs` where
//! memory is short). IQ1_S needs no sign: where it takes 1/8 away, its levels are turned over, and
//! its scale.

use std::sync::LazyLock;

use super::bits::byte_masks;
use super::codes::ScaleBytes;
use super::grids::{Grid, IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use crate::floats::read_f16;

/// What is added to the values of IQ2 and IQ3_XXS.
pub const OFFSET: u8 = 64;
/// What is added to the values of IQ3_S.
pub const OFFSET_3_S: u8 = 16;
/// What is added to 8 times the values of IQ1.
pub const OFFSET_1: u8 = 9;

/// Magnitudes, then less them.
pub const LEVELS_2: [u8; 8] = with_signs([8, 25, 43, 43], OFFSET);
pub const LEVELS_3_XXS: [u8; 16] = with_signs(THREE_BITS_XXS, OFFSET);
pub const LEVELS_3_S: [u8; 16] = with_signs(THREE_BITS, OFFSET_3_S);
/// 8 times -1, 0 and 1, and 1 added.
pub const LEVELS_1_S: [u8; 4] = [2, 10, 18, 18];
/// The same with 1 taken away, and added.
pub const LEVELS_1_M: [u8; 8] = [0, 2, 8, 10, 16, 18, 16, 18];

const fn with_signs<const M: usize, const N: usize>(magnitudes: [u8; M], offset: u8) -> [u8; N] {
    let (mut out, mut i) = ([0; N], 0);
    while i < M {
        (out[i], out[M + i]) = (offset + magnitudes[i], offset - magnitudes[i]);
        i += 1;
    }
    out
}

/// Magnitudes by level, for books that kernels look up.
pub(crate) const TWO_BITS: [u8; 8] = [8, 25, 43, 0, 0, 0, 0, 0];
pub(crate) const THREE_BITS_XXS: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
pub(crate) const THREE_BITS: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// A book's points: eight levels in the bytes of an integer, the first in the lowest; of four
/// levels in the lower half.
type Book = Vec<u64>;

fn book(grid: &Grid) -> Book {
    grid.points.iter().map(|point| u64::from_le_bytes(*point)).collect()
}

static BOOK_2_XXS: LazyLock<Book> = LazyLock::new(|| book(&IQ2_XXS));
static BOOK_2_XS: LazyLock<Book> = LazyLock::new(|| book(&IQ2_XS));
static BOOK_2_S: LazyLock<Book> = LazyLock::new(|| book(&IQ2_S));
static BOOK_3_XXS: LazyLock<Book> = LazyLock::new(|| book(&IQ3_XXS));
static BOOK_3_S: LazyLock<Book> = LazyLock::new(|| book(&IQ3_S));
static BOOK_1: LazyLock<Book> = LazyLock::new(|| book(&IQ1));

const EACH: u64 = 0x0101_0101_0101_0101;

/// Writes eight indices.
fn put(q: &mut [u8], eighth: usize, indices: u64) {
    q[8 * eighth..][..8].copy_from_slice(&indices.to_le_bytes());
}

/// Indices of `LEVELS_2`.
fn signed(point: u64, signs: u8) -> u64 {
    point | byte_masks(signs) & (4 * EACH)
}

/// Indices of `LEVELS_3_XXS` and `LEVELS_3_S` from two points of four.
fn signed_fours(low: u64, high: u64, signs: u8) -> u64 {
    low | high << 32 | byte_masks(signs) & (8 * EACH)
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

/// 2 s + 1 of nibble `k`, the low one of a byte first.
fn odd_nibble(bytes: &[u8], k: usize) -> u8 {
    2 * (bytes[k / 2] >> (4 * (k % 2)) & 15) + 1
}

/// d and `scale` of each group.
fn scales(d: &[u8], scale: impl Fn(usize) -> u8, groups: usize) -> ScaleBytes {
    let mut out = ScaleBytes { d: [d[0], d[1]], ..Default::default() };
    for (k, out) in out.scale[..groups].iter_mut().enumerate() {
        *out = scale(k);
    }
    out
}

/// The floats of scales: d over `divisor`, times their signed bytes.
fn widen(bytes: &ScaleBytes, divisor: f32, scale: &mut [f32]) {
    let d = read_f16(&bytes.d) / divisor;
    for (scale, &byte) in scale.iter_mut().zip(&bytes.scale) {
        *scale = d * f32::from(byte as i8);
    }
}

pub fn scale_bytes_iq2_xxs(block: &[u8]) -> ScaleBytes {
    scales(block, |k| (read_u32(&block[2..], 2 * k + 1) >> 28) as u8 * 2 + 1, 8)
}

pub fn unpack_iq2_xxs(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    widen(&scale_bytes_iq2_xxs(block), 8.0, scale);
    let book = &BOOK_2_XXS[..256];
    for k in 0..8 {
        let (indices, signs) = (&block[2 + 8 * k..], read_u32(&block[2..], 2 * k + 1));
        for l in 0..4 {
            let point = book[usize::from(indices[l])];
            put(q, 4 * k + l, signed(point, even(signs >> (7 * l))));
        }
    }
}

pub fn scale_bytes_iq2_xs(block: &[u8]) -> ScaleBytes {
    scales(block, |k| odd_nibble(&block[66..], k), 16)
}

pub fn unpack_iq2_xs(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    widen(&scale_bytes_iq2_xs(block), 8.0, scale);
    let book = &BOOK_2_XS[..512];
    for l in 0..32 {
        let word = read_u16(&block[2..], l);
        put(q, l, signed(book[usize::from(word & 511)], even(u32::from(word >> 9))));
    }
}

pub fn scale_bytes_iq2_s(block: &[u8]) -> ScaleBytes {
    scales(block, |k| odd_nibble(&block[74..], k), 16)
}

pub fn unpack_iq2_s(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    widen(&scale_bytes_iq2_s(block), 8.0, scale);
    let book = &BOOK_2_S[..1024];
    for l in 0..32 {
        let high = usize::from(block[66 + l / 4] >> (2 * (l % 4)) & 3);
        put(q, l, signed(book[usize::from(block[2 + l]) | high << 8], block[34 + l]));
    }
}

pub fn scale_bytes_iq3_xxs(block: &[u8]) -> ScaleBytes {
    scales(block, |k| (read_u32(&block[66..], k) >> 28) as u8 * 2 + 1, 8)
}

pub fn unpack_iq3_xxs(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    widen(&scale_bytes_iq3_xxs(block), 4.0, scale);
    let book = &BOOK_3_XXS[..256];
    for l in 0..32 {
        let signs = even(read_u32(&block[66..], l / 4) >> (7 * (l % 4)));
        let (low, high) = (block[2 + 2 * l], block[3 + 2 * l]);
        put(q, l, signed_fours(book[usize::from(low)], book[usize::from(high)], signs));
    }
}

pub fn scale_bytes_iq3_s(block: &[u8]) -> ScaleBytes {
    scales(block, |k| odd_nibble(&block[106..], k), 8)
}

pub fn unpack_iq3_s(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    widen(&scale_bytes_iq3_s(block), 1.0, scale);
    let book = &BOOK_3_S[..512];
    for l in 0..32 {
        let ninth = usize::from(block[66 + l / 4] >> (2 * (l % 4)));
        let low = usize::from(block[2 + 2 * l]) | (ninth & 1) << 8;
        let high = usize::from(block[3 + 2 * l]) | (ninth >> 1 & 1) << 8;
        put(q, l, signed_fours(book[low], book[high], block[74 + l]));
    }
}

/// Negative where 1/8 is taken away.
pub fn scale_bytes_iq1_s(block: &[u8]) -> ScaleBytes {
    let scale = |k| {
        let high = read_u16(&block[34..], k);
        let odd = (high >> 12 & 7) as u8 * 2 + 1;
        if high >> 15 == 1 { odd.wrapping_neg() } else { odd }
    };
    scales(block, scale, 8)
}

pub fn unpack_iq1_s(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    widen(&scale_bytes_iq1_s(block), 8.0, scale);
    let book = &BOOK_1[..2048];
    for l in 0..32 {
        let high = read_u16(&block[34..], l / 4);
        let index = usize::from(block[2 + l]) | usize::from(high >> (3 * (l % 4)) & 7) << 8;
        put(q, l, if high >> 15 == 1 { 2 * EACH - book[index] } else { book[index] });
    }
}

/// d is scattered over the last four halves, s of four groups below it in each.
pub fn scale_bytes_iq1_m(block: &[u8]) -> ScaleBytes {
    let words: [u16; 4] = std::array::from_fn(|k| read_u16(&block[48..], k));
    let d = words.iter().enumerate().fold(0, |d, (k, word)| d | word >> 12 << (4 * k));
    let scale = |k: usize| (words[k / 4] >> (3 * (k % 4)) & 7) as u8 * 2 + 1;
    scales(&d.to_le_bytes(), scale, 16)
}

pub fn unpack_iq1_m(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    widen(&scale_bytes_iq1_m(block), 8.0, scale);
    let book = &BOOK_1[..2048];
    for l in 0..32 {
        let high = block[32 + l / 2] >> (4 * (l % 2));
        let index = usize::from(block[l]) | usize::from(high & 7) << 8;
        put(q, l, 2 * book[index] + if high & 8 == 0 { EACH } else { 0 });
    }
}

//! The run-time layout of scales and minima: a row a lane, nearly the size of the file.
//!
//! Products widen them to f32 as they go (`unpack/scales.rs`).
//!
//! ```text
//! F32 F16       [group][16] floats; minima likewise in a buffer of their own
//! Zeros         [group][16] f32; minima [group][16] bytes
//! Bytes         for 256 elements: 16 f16, then [8][16] bytes; minima likewise
//! Signed        for 256 elements: 16 f16, then [8 or 16][16] bytes
//! Nibbles       for 256 elements: 16 f16, 16 f16 of minima, then [16][16] bytes
//! Power Float8  [group][16] bytes
//! ```
//!
//! `Bytes` and `Signed` store six bits in a byte, which adds at most 3 to 4 % to a K format's file size.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::floats::{from_f16, read_f16};
use crate::formats::{Codes, Format, Scales};
use crate::kernels::shape::{CHUNK, LANES, SPAN_COLUMNS};

/// Groups of columns in a chunk of 32 that have scales of their own: 1, or 2 if groups have 16 columns.
#[inline(always)]
pub fn groups_of_chunk(codes: &Codes) -> usize {
    if codes.group < CHUNK { 2 } else { 1 }
}

/// Bytes of the scales and of the minima of `LANES` rows of `groups` groups.
pub fn bytes_of(codes: &Codes, groups: usize) -> (usize, usize) {
    let halves = 2 * LANES * (groups * codes.group).div_ceil(SPAN_COLUMNS);
    let bytes = groups * LANES;
    let floats = |size: usize| (size * bytes, if codes.has_min { size * bytes } else { 0 });
    match codes.scales {
        Scales::F32 => floats(4),
        Scales::F16 => floats(2),
        Scales::Zeros => (4 * bytes, bytes),
        Scales::Bytes => (halves + bytes, halves + bytes),
        Scales::Signed => (halves + bytes, 0),
        Scales::Nibbles => (2 * halves + bytes, 0),
        Scales::Power | Scales::Float8 => (bytes, 0),
        Scales::Blocks => (0, 0),
    }
}

/// For `SPAN_COLUMNS` elements: the bytes of the f16 that the groups share (0 if scales are not multiples of
/// an f16), and of these and the scales together.
fn sizes(codes: &Codes) -> (usize, usize) {
    let shared = match codes.scales {
        Scales::Bytes | Scales::Signed => 2 * LANES,
        Scales::Nibbles => 4 * LANES,
        _ => 0,
    };
    (shared, shared + SPAN_COLUMNS / codes.group * LANES)
}

/// The offsets of the bytes of group `group`, and of the f16 that they share.
fn place(codes: &Codes, group: usize) -> (usize, usize) {
    let (shared, size) = sizes(codes);
    if shared == 0 {
        return (group * LANES, 0);
    }
    let groups = SPAN_COLUMNS / codes.group;
    let start = group / groups * size;
    (start + shared + group % groups * LANES, start)
}

/// Writes the scales of one row into its lane. `scale` and `min` come from `Format::unpack_stored`.
pub fn write_row(
    format: Format,
    codes: &Codes,
    row: &[u8],
    lane: usize,
    (scale, min): (&[f32], &[f32]),
    (scales, mins): (&mut [u8], &mut [u8]),
) {
    match codes.scales {
        Scales::F32 | Scales::F16 => {
            write_floats(scale, codes.scales, lane, scales);
            if codes.has_min {
                write_floats(min, codes.scales, lane, mins);
            }
        }
        Scales::Zeros => {
            write_floats(scale, Scales::F32, lane, scales);
            for (group, block) in row.chunks(format.block_bytes()).enumerate() {
                mins[group * LANES + lane] = block[4];
            }
        }
        Scales::Blocks => {}
        _ => write_bytes(format, codes, row, lane, scales, mins),
    }
}

fn write_floats(values: &[f32], kind: Scales, lane: usize, out: &mut [u8]) {
    if kind == Scales::F16 {
        let mut halves = [f16::ZERO; 64];
        let pieces = values.chunks(halves.len()).zip(out.chunks_mut(2 * LANES * halves.len()));
        for (values, out) in pieces {
            halves[..values.len()].convert_from_f32_slice(values);
            for (half, out) in halves.iter().zip(out.as_chunks_mut::<{ 2 * LANES }>().0) {
                out[2 * lane..][..2].copy_from_slice(&half.to_le_bytes());
            }
        }
        return;
    }
    for (value, out) in values.iter().zip(out.as_chunks_mut::<{ 4 * LANES }>().0) {
        out[4 * lane..][..4].copy_from_slice(&value.to_le_bytes());
    }
}

fn write_bytes(
    format: Format,
    codes: &Codes,
    row: &[u8],
    lane: usize,
    scales: &mut [u8],
    mins: &mut [u8],
) {
    let groups = format.block() / codes.group;
    let shared = sizes(codes).0;
    let size = shared + groups * LANES;
    for (i, block) in row.chunks_exact(format.block_bytes()).enumerate() {
        let bytes = format.scale_bytes(block);
        let out = &mut scales[i * size..][..size];
        if shared > 0 {
            out[2 * lane..][..2].copy_from_slice(&bytes.d);
        }
        if codes.scales == Scales::Nibbles {
            out[2 * (LANES + lane)..][..2].copy_from_slice(&bytes.dmin);
        }
        write_lane(&bytes.scale[..groups], lane, &mut out[shared..]);
        if codes.scales == Scales::Bytes {
            let out = &mut mins[i * size..][..size];
            out[2 * lane..][..2].copy_from_slice(&bytes.dmin);
            write_lane(&bytes.min[..groups], lane, &mut out[shared..]);
        }
    }
}

fn write_lane(bytes: &[u8], lane: usize, out: &mut [u8]) {
    for (byte, out) in bytes.iter().zip(out.as_chunks_mut::<LANES>().0) {
        out[lane] = *byte;
    }
}

/// True if no f16 or f32 among the scales and minima of some rows is infinite or NaN.
pub fn finite(codes: &Codes, scales: &[u8], mins: &[u8]) -> bool {
    let (shared, size) = sizes(codes);
    let spans = |data: &[u8]| data.chunks_exact(size).all(|span| halves_finite(&span[..shared]));
    match codes.scales {
        Scales::F32 => words_finite(scales) && words_finite(mins),
        Scales::F16 => halves_finite(scales) && halves_finite(mins),
        Scales::Zeros => words_finite(scales),
        Scales::Bytes | Scales::Signed | Scales::Nibbles => spans(scales) && spans(mins),
        Scales::Power | Scales::Float8 | Scales::Blocks => true,
    }
}

/// The loop has no early exit, so that the compiler vectorizes it.
fn halves_finite(data: &[u8]) -> bool {
    let mut worst = 0;
    for half in data.as_chunks().0 {
        worst = worst.max(u16::from_le_bytes(*half) & 0x7c00);
    }
    worst < 0x7c00
}

fn words_finite(data: &[u8]) -> bool {
    data.as_chunks().0.iter().all(|word| f32::from_le_bytes(*word).is_finite())
}

/// The scale and the minimum (0 if the format has none) of one lane in group `group`.
pub fn read(codes: &Codes, scales: &[u8], mins: &[u8], group: usize, lane: usize) -> (f32, f32) {
    let (at, shared) = place(codes, group);
    let (at, shared) = (at + lane, shared + 2 * lane);
    let float = |data: &[u8]| match codes.scales {
        Scales::F16 => read_f16(&data[2 * at..]),
        _ => {
            f32::from_le_bytes([data[4 * at], data[4 * at + 1], data[4 * at + 2], data[4 * at + 3]])
        }
    };
    let byte = |data: &[u8], at: usize| f32::from(data[at]);
    match codes.scales {
        Scales::F32 | Scales::F16 => (float(scales), if codes.has_min { float(mins) } else { 0.0 }),
        Scales::Zeros => (float(scales), -(float(scales) * byte(mins, at))),
        Scales::Bytes => (
            read_f16(&scales[shared..]) * byte(scales, at),
            -(read_f16(&mins[shared..]) * byte(mins, at)),
        ),
        Scales::Signed => {
            (read_f16(&scales[shared..]) * halved(codes) * f32::from(scales[at] as i8), 0.0)
        }
        Scales::Nibbles => (
            read_f16(&scales[shared..]) * f32::from(scales[at] & 15),
            -(read_f16(&scales[shared + 2 * LANES..]) * f32::from(scales[at] >> 4)),
        ),
        Scales::Power => (power(scales[at]), 0.0),
        Scales::Float8 => (f32::from_bits(u32::from(scales[at]) << 20) * FLOAT8, 0.0),
        Scales::Blocks => unreachable!("scales of code-book blocks stay in the blocks"),
    }
}

/// 2^-halvings.
pub fn halved(codes: &Codes) -> f32 {
    f32::from_bits((127 - u32::from(codes.halvings)) << 23)
}

/// 2^(e - 128).
fn power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// Factor that turns the bits of a float of 4 + 3 bits, shifted to their place in an f32, into half its value.
pub const FLOAT8: f32 = f32::from_bits((127 + 119) << 23);

/// True if the f16 scale of a code-book block is finite: it lies in the block or, in IQ1_M, is spread over it.
pub fn block_is_finite(format: Format, block: &[u8]) -> bool {
    let half = |at: usize| from_f16(u16::from_le_bytes([block[at], block[at + 1]]));
    match format {
        Format::TQ1_0 => half(52).is_finite(),
        // Exponent bits 10..15: the top four in the last nibble and one in the third.
        Format::IQ1_M => block[55] >> 4 & 7 != 7 || block[53] >> 6 != 3,
        _ => half(0).is_finite(),
    }
}

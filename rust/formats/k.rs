//! Q2_K Q3_K Q4_K Q5_K Q6_K: super-blocks of 256 whose blocks have quantized scales.
//!
//! ```text
//! Q2_K   84 bytes  16 scale nibbles (low) and minimum nibbles (high); 64 of codes; d; dmin
//! Q3_K  110 bytes  32 of high bits; 64 of low codes; 12 of packed 6-bit scales; d
//! Q4_K  144 bytes  d; dmin; 12 of packed 6-bit scales and minima; 128 of nibbles
//! Q5_K  176 bytes  d; dmin; 12; 32 of fifth bits; 128 of nibbles
//! Q6_K  210 bytes  128 of low nibbles; 64 of high 2 bits; 16 signed scales; d
//!
//! Q2_K Q4_K Q5_K   value = (d * scale) * q - (dmin * minimum)     blocks of 16, 32, 32
//! Q3_K             value = d * (scale - 32) * (q - 4)             blocks of 16
//! Q6_K             value = d * scale * (q - 32)                   blocks of 16
//! ```
//!
//! The layouts are those of `reference/k.py`; the encoders are in `k_encode.rs`.

#![allow(clippy::needless_range_loop)] // k counts blocks across several arrays

use super::bits::{join_planes, split_planes};
use super::codes::ScaleBytes;
use crate::floats::{read_f16, write_f16};

pub const BLOCK: usize = 256;

/// What a super-block stores: `S` blocks' unsigned scales (Q6_K: signed bytes) and minima.
pub struct Super<const S: usize> {
    pub d: f32,
    pub dmin: f32,
    pub scales: [u8; S],
    pub minima: [u8; S],
    pub codes: [u8; BLOCK],
}

pub fn unpack_q2_k(block: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let (d, dmin) = (read_f16(&block[80..]), read_f16(&block[82..]));
    for k in 0..16 {
        scale[k] = d * f32::from(block[k] & 15);
        min[k] = -(dmin * f32::from(block[k] >> 4));
    }
    q.fill(0);
    join_planes::<2>(&block[16..80], 32, 0, q);
}

pub fn unpack_q3_k(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let (d, bytes) = (read_f16(&block[108..]), scale_bytes_q3_k(block));
    for (scale, byte) in scale.iter_mut().zip(bytes.scale) {
        *scale = d * f32::from(byte as i8);
    }
    q.fill(0);
    join_planes::<2>(&block[32..96], 32, 0, q);
    join_planes::<1>(&block[..32], 32, 2, q);
}

pub fn unpack_q4_k(block: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    unpack_six(block, scale, min);
    q.fill(0);
    join_planes::<4>(&block[16..], 32, 0, q);
}

pub fn unpack_q5_k(block: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    unpack_six(block, scale, min);
    q.fill(0);
    join_planes::<4>(&block[48..], 32, 0, q);
    join_planes::<1>(&block[16..48], 32, 4, q);
}

pub fn unpack_q6_k(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let d = read_f16(&block[208..]);
    for (scale, &byte) in scale.iter_mut().zip(&block[192..208]) {
        *scale = d * f32::from(byte as i8);
    }
    q.fill(0);
    join_planes::<4>(&block[..128], 64, 0, q);
    join_planes::<2>(&block[128..192], 32, 4, q);
}

/// d, dmin and the 8 scales and minima of 6 bits that follow them, multiplied out.
fn unpack_six(block: &[u8], scale: &mut [f32], min: &mut [f32]) {
    let (d, dmin, bytes) = (read_f16(block), read_f16(&block[2..]), scale_bytes_six(block));
    for k in 0..8 {
        scale[k] = d * f32::from(bytes.scale[k]);
        min[k] = -(dmin * f32::from(bytes.min[k]));
    }
}

/// A scale in the low half of a byte, its minimum in the high one.
pub fn scale_bytes_q2_k(block: &[u8]) -> ScaleBytes {
    let mut out = shared(&block[80..82], &block[82..84]);
    out.scale.copy_from_slice(&block[..16]);
    out
}

/// The scales are signed: 32 is taken from the 6 bits.
pub fn scale_bytes_q3_k(block: &[u8]) -> ScaleBytes {
    let mut out = shared(&block[108..110], &[0, 0]);
    join_planes::<4>(&block[96..104], 8, 0, &mut out.scale);
    join_planes::<2>(&block[104..108], 4, 4, &mut out.scale);
    out.scale.iter_mut().for_each(|scale| *scale = scale.wrapping_sub(32));
    out
}

pub fn scale_bytes_six(block: &[u8]) -> ScaleBytes {
    let (mut out, b) = (shared(&block[..2], &block[2..4]), &block[4..16]);
    for k in 0..4 {
        out.scale[k] = b[k] & 63;
        out.min[k] = b[k + 4] & 63;
        out.scale[k + 4] = b[k + 8] & 15 | b[k] >> 6 << 4;
        out.min[k + 4] = b[k + 8] >> 4 | b[k + 4] >> 6 << 4;
    }
    out
}

/// The scales are signed.
pub fn scale_bytes_q6_k(block: &[u8]) -> ScaleBytes {
    let mut out = shared(&block[208..210], &[0, 0]);
    out.scale.copy_from_slice(&block[192..208]);
    out
}

fn shared(d: &[u8], dmin: &[u8]) -> ScaleBytes {
    ScaleBytes { d: [d[0], d[1]], dmin: [dmin[0], dmin[1]], ..Default::default() }
}

#[inline(always)]
pub fn pack_q2_k(s: &Super<16>, out: &mut [u8]) {
    for k in 0..16 {
        out[k] = s.scales[k] | s.minima[k] << 4;
    }
    split_planes::<2>(&s.codes, 32, 0, &mut out[16..80]);
    write_f16(&mut out[80..], s.d);
    write_f16(&mut out[82..], s.dmin);
}

#[inline(always)]
pub fn pack_q3_k(s: &Super<16>, out: &mut [u8]) {
    split_planes::<1>(&s.codes, 32, 2, &mut out[..32]);
    split_planes::<2>(&s.codes, 32, 0, &mut out[32..96]);
    split_planes::<4>(&s.scales, 8, 0, &mut out[96..104]);
    split_planes::<2>(&s.scales, 4, 4, &mut out[104..108]);
    write_f16(&mut out[108..], s.d);
}

#[inline(always)]
pub fn pack_q4_k(s: &Super<8>, out: &mut [u8]) {
    pack_six(s, out);
    split_planes::<4>(&s.codes, 32, 0, &mut out[16..]);
}

#[inline(always)]
pub fn pack_q5_k(s: &Super<8>, out: &mut [u8]) {
    pack_six(s, out);
    split_planes::<1>(&s.codes, 32, 4, &mut out[16..48]);
    split_planes::<4>(&s.codes, 32, 0, &mut out[48..]);
}

#[inline(always)]
pub fn pack_q6_k(s: &Super<16>, out: &mut [u8]) {
    split_planes::<4>(&s.codes, 64, 0, &mut out[..128]);
    split_planes::<2>(&s.codes, 32, 4, &mut out[128..192]);
    out[192..208].copy_from_slice(&s.scales);
    write_f16(&mut out[208..], s.d);
}

/// d, dmin, then 8 scales and 8 minima of 6 bits in 12 bytes: the first four of each lie in the
/// low bits of a byte of their own; the others have their low 4 bits in the last four bytes and
/// their high 2 in the gaps of the first eight.
#[inline(always)]
fn pack_six(s: &Super<8>, out: &mut [u8]) {
    write_f16(out, s.d);
    write_f16(&mut out[2..], s.dmin);
    for k in 0..4 {
        out[4 + k] = s.scales[k] | s.scales[k + 4] >> 4 << 6;
        out[8 + k] = s.minima[k] | s.minima[k + 4] >> 4 << 6;
        out[12 + k] = s.scales[k + 4] & 15 | (s.minima[k + 4] & 15) << 4;
    }
}

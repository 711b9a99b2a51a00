//! IQ4_NL IQ4_XS MXFP4 NVFP4: 4-bit codes that point into 16 fixed values.
//!
//! ```text
//! IQ4_NL   18 bytes for  32  d; 16 of nibbles                        value = d VALUES[q]
//! IQ4_XS  136 bytes for 256  d; high bits of 8 scales; low; nibbles  value = d (s - 32) VALUES[q]
//! MXFP4    17 bytes for  32  exponent e; 16 of nibbles               value = 2^(e - 128) TWICE[q]
//! NVFP4    36 bytes for  64  4 scales u of E4M3; 32 of nibbles       value = u / 2 TWICE[q]
//! ```
//!
//! Codes unpack to the values themselves, shifted above zero: VALUES + 128, TWICE + 12.

use super::bits::{join_planes, split_planes};
use super::codes::ScaleBytes;
use super::search::{TINY, nearest, signed_peak};
use crate::floats::{read_f16, write_f16};

/// The 16 values of IQ4: a normal distribution's quantiles, roughly.
const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of a float of 1 + 2 + 1 bits.
const TWICE: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `VALUES` above zero, by 128.
pub const LEVELS_8: [u8; 16] = raised(&VALUES, 128);
/// `TWICE` above zero, by 12.
pub const LEVELS_5: [u8; 16] = raised(&TWICE, 12);

const fn raised(values: &[i8; 16], offset: i16) -> [u8; 16] {
    let (mut out, mut i) = ([0; 16], 0);
    while i < 16 {
        out[i] = (values[i] as i16 + offset) as u8;
        i += 1;
    }
    out
}

pub fn unpack_iq4_nl(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = read_f16(block);
    q.fill(0);
    join_planes::<4>(&block[2..], 16, 0, q);
}

pub fn unpack_iq4_xs(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let (d, bytes) = (read_f16(block), scale_bytes_iq4_xs(block));
    for (scale, &byte) in scale.iter_mut().zip(&bytes.scale[..8]) {
        *scale = d * f32::from(byte as i8);
    }
    q.fill(0);
    join_planes::<4>(&block[8..], 16, 0, q);
}

/// The scales are signed: 32 is taken from the 6 bits.
pub fn scale_bytes_iq4_xs(block: &[u8]) -> ScaleBytes {
    let high = u16::from_le_bytes([block[2], block[3]]);
    let mut out = ScaleBytes { d: [block[0], block[1]], ..Default::default() };
    for (k, scale) in out.scale.iter_mut().enumerate().take(8) {
        let low = block[4 + k / 2] >> (4 * (k % 2)) & 15;
        *scale = (low | ((high >> (2 * k) & 3) as u8) << 4).wrapping_sub(32);
    }
    out
}

pub fn scale_bytes_mxfp4(block: &[u8]) -> ScaleBytes {
    let mut out = ScaleBytes::default();
    out.scale[0] = block[0];
    out
}

/// Bytes as `half_e4m3` reads them: the NaN of the code 7f is 0, and a sign does not count.
pub fn scale_bytes_nvfp4(block: &[u8]) -> ScaleBytes {
    let mut out = ScaleBytes::default();
    for (scale, &code) in out.scale.iter_mut().zip(&block[..4]) {
        *scale = if code == 0x7f { 0 } else { code & 0x7f };
    }
    out
}

pub fn unpack_mxfp4(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = half_power(block[0]);
    q.fill(0);
    join_planes::<4>(&block[1..], 16, 0, q);
}

pub fn unpack_nvfp4(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    for (scale, &code) in scale.iter_mut().zip(&block[..4]) {
        *scale = half_e4m3(code);
    }
    q.fill(0);
    join_planes::<4>(&block[4..], 8, 0, q);
}

/// 2^(e - 128).
pub fn half_power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// Half the value of an unsigned float of 4 + 3 bits; 0 for its NaN.
pub fn half_e4m3(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    match (code, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => fraction * 0.000_976_562_5, // 2^-10
        _ => (1.0 + fraction / 8.0) * f32::from_bits(((exponent - 8 + 127) as u32) << 23),
    }
}

/// llama.cpp's conversion: 3 bits of the significand and the next one added, 256 and more as 448.
fn to_e4m3(x: f32) -> u8 {
    let exponent = (x.to_bits() >> 23 & 255) as i32 - 120;
    if x <= 0.0 {
        return 0;
    }
    if exponent <= 0 {
        return ((x * 512.0 + 0.5) as u8).min(7);
    }
    if exponent >= 15 {
        return 0x7e;
    }
    let code = ((exponent as u32) << 3) + (x.to_bits() >> 20 & 7) + (x.to_bits() >> 19 & 1);
    if code >= 15 << 3 { 0x7e } else { code as u8 }
}

pub fn encode_mxfp4(x: &[f32], out: &mut [u8]) {
    let amax = largest(x);
    // The logarithm is rounded to f32 before its integer part is taken, as log2f's is.
    let e = if amax > 0.0 { f64::from(amax).log2() as f32 } else { -125.0 };
    let exponent = (e.floor() as i32 + 125) as u8;
    let mut codes = [0; 32];
    nearest_floats(x, half_power(exponent), &mut codes);
    pack_mxfp4(exponent, &codes, out);
}

pub fn encode_nvfp4(x: &[f32], out: &mut [u8]) {
    let (mut codes, mut scales) = ([0; 64], [0; 4]);
    for (k, x) in x.as_chunks::<16>().0.iter().enumerate() {
        scales[k] = to_e4m3(largest(x) / 6.0);
        nearest_floats(x, half_e4m3(scales[k]), &mut codes[16 * k..16 * k + 16]);
    }
    pack_nvfp4(&scales, &codes, out);
}

fn largest(x: &[f32]) -> f32 {
    let mut amax = 0f32;
    for x in x {
        amax = if x.abs() > amax { x.abs() } else { amax };
    }
    amax
}

/// The first of the 16 values nearest to each x.
#[inline(always)]
fn nearest_floats(x: &[f32], scale: f32, codes: &mut [u8]) {
    for (code, &x) in codes.iter_mut().zip(x) {
        let mut best = (0, (0.0 * scale - x).abs());
        for (q, &value) in TWICE.iter().enumerate().skip(1) {
            let error = (f32::from(value) * scale - x).abs();
            if error < best.1 {
                best = (q as u8, error);
            }
        }
        *code = best.0;
    }
}

#[inline(always)]
pub fn encode_iq4_nl(x: &[f32; 32], importance: Option<&[f32]>, out: &mut [u8]) {
    let w = weights(x, importance);
    let d = search(x, &w);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut codes = [0; 32];
    for (code, x) in codes.iter_mut().zip(x) {
        *code = nearest_value(inverse * x).0;
    }
    pack_iq4_nl(d, &codes, out);
}

/// Stores the scale and the indices of a block.
pub fn pack_iq4_nl(d: f32, codes: &[u8], out: &mut [u8]) {
    write_f16(out, d);
    split_planes::<4>(codes, 16, 0, &mut out[2..]);
}

#[inline(always)]
pub fn encode_iq4_xs(x: &[f32; 256], importance: Option<&[f32]>, out: &mut [u8]) {
    let w = weights(x, importance);
    let mut scales = [0f32; 8];
    for (k, x) in x.as_chunks::<32>().0.iter().enumerate() {
        scales[k] = search(x, &w.as_chunks::<32>().0[k]);
    }
    let d = -signed_peak(&scales) / 32.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let (mut codes, mut levels) = ([0; 256], [0; 8]);
    for (k, x) in x.as_chunks::<32>().0.iter().enumerate() {
        levels[k] = nearest(inverse * scales[k]).clamp(-32, 31) as i8;
        let step = d * f32::from(levels[k]);
        let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
        for (code, x) in codes[32 * k..].iter_mut().zip(x) {
            *code = nearest_value(inverse * x).0;
        }
    }
    pack_iq4_xs(d, &levels, &codes, out);
}

/// Stores the super-scale, the scales of -32..31 and the indices of a super-block.
pub fn pack_iq4_xs(d: f32, scales: &[i8; 8], codes: &[u8], out: &mut [u8]) {
    let mut high = 0u16;
    out[4..8].fill(0);
    for (k, &scale) in scales.iter().enumerate() {
        let stored = (scale + 32) as u8;
        out[4 + k / 2] |= (stored & 15) << (4 * (k % 2));
        high |= u16::from(stored >> 4) << (2 * k);
    }
    write_f16(out, d);
    out[2..4].copy_from_slice(&high.to_le_bytes());
    split_planes::<4>(codes, 16, 0, &mut out[8..]);
}

/// Stores the exponent and the indices of a block.
pub fn pack_mxfp4(exponent: u8, codes: &[u8], out: &mut [u8]) {
    out[0] = exponent;
    split_planes::<4>(codes, 16, 0, &mut out[1..]);
}

/// Stores the scales' codes and the indices of a block.
pub fn pack_nvfp4(scales: &[u8], codes: &[u8], out: &mut [u8]) {
    out[..4].copy_from_slice(scales);
    split_planes::<4>(codes, 8, 0, &mut out[4..]);
}

/// x^2, or importance sqrt(v + x^2) with v twice the mean of squares of the block.
#[inline(always)]
fn weights<const N: usize>(x: &[f32; N], importance: Option<&[f32]>) -> [f32; N] {
    let (mut w, mut sum) = ([0f32; N], 0f32);
    for j in 0..N {
        w[j] = x[j] * x[j];
        sum += w[j];
    }
    let v = sum * (2.0 / N as f32);
    if let Some(importance) = importance {
        for j in 0..N {
            w[j] = importance[j] * (v + w[j]).sqrt();
        }
    }
    w
}

/// Candidate scales: the first, then -7..7 about it.
const CANDIDATES: usize = 16;

/// The scale of the value table with the smallest weighted squared error among 16 tried.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // lanes count across several arrays
fn search(x: &[f32; 32], w: &[f32; 32]) -> f32 {
    let peak = signed_peak(x);
    if peak.abs() < TINY {
        return 0.0;
    }
    let lowest = f32::from(VALUES[0]);
    let mut inverses = [1.0 / (-peak / lowest); CANDIDATES];
    for lane in 1..CANDIDATES {
        inverses[lane] = ((lane as i32 - 8) as f32 + lowest) / peak;
    }
    let (mut a, mut b) = ([0f32; CANDIDATES], [0f32; CANDIDATES]);
    for j in 0..32 {
        for lane in 0..CANDIDATES {
            let value = nearest_value(inverses[lane] * x[j]).1;
            let weighted = w[j] * value;
            a[lane] += weighted * x[j];
            b[lane] += weighted * value;
        }
    }
    let mut scale = if b[0] > 0.0 { a[0] / b[0] } else { 0.0 };
    let mut gain = scale * a[0];
    for lane in 1..CANDIDATES {
        if b[lane] > 0.0 && a[lane] * a[lane] > gain * b[lane] {
            scale = a[lane] / b[lane];
            gain = scale * a[lane];
        }
    }
    scale
}

/// The index of the value nearest to x, the upper one on a tie, and that value.
///
/// As steps at the midpoints, which are halves and so exact, it needs no branches.
#[inline(always)]
fn nearest_value(x: f32) -> (u8, f32) {
    let (mut index, mut value) = (0, f32::from(VALUES[0]));
    for k in 1..16 {
        let middle = 0.5 * (f32::from(VALUES[k - 1]) + f32::from(VALUES[k]));
        let beyond = x >= middle;
        index += u8::from(beyond);
        value += if beyond { f32::from(VALUES[k]) - f32::from(VALUES[k - 1]) } else { 0.0 };
    }
    (index, value)
}

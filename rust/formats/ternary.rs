//! Q1_0 Q2_0 TQ1_0 TQ2_0: codes of one bit, two bits or a trit, with one scale a block.
//!
//! ```text
//! Q1_0    18 bytes for 128  d; 128 sign bits                      value = d or -d
//! Q2_0    18 bytes for  64  d; four codes a byte                  value = d (q - 1)
//! TQ1_0   54 bytes for 256  five trits a byte (52 bytes); d       value = d (q - 1)
//! TQ2_0   66 bytes for 256  four codes a byte; d                  value = d (q - 1)
//! ```

use super::bits::{byte_masks, join_planes, split_planes};
use crate::floats::{read_f16, write_f16};

/// Bytes of TQ1_0 in stretches: where, elements apart, trits in a byte.
const STRETCHES: [(usize, usize, usize); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];

/// The codes of one bit: -1 and +1 are two steps apart.
pub const SIGNS: [u8; 2] = [0, 2];

pub fn unpack_q1_0(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = read_f16(block);
    for (q, &bits) in q.as_chunks_mut().0.iter_mut().zip(&block[2..]) {
        *q = (byte_masks(bits) & u64::from_ne_bytes([1; 8])).to_le_bytes();
    }
}

pub fn unpack_q2_0(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = read_f16(block);
    q.fill(0);
    join_planes::<2>(&block[2..], 1, 0, q);
}

pub fn unpack_tq2_0(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = read_f16(&block[64..]);
    q.fill(0);
    join_planes::<2>(&block[..64], 32, 0, q);
}

/// A byte holds the fraction 0.t0 t1 t2 t3 t4 in base 3, as n / 256 rounded up.
pub fn unpack_tq1_0(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let mut first = 0;
    for (at, stride, count) in STRETCHES {
        let mut power = 1u8;
        for _ in 0..count {
            for (q, byte) in q[first..first + stride].iter_mut().zip(&block[at..]) {
                *q = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
            }
            first += stride;
            power = power.wrapping_mul(3);
        }
    }
    scale[0] = read_f16(&block[52..]);
}

pub fn encode_q1_0(x: &[f32], out: &mut [u8]) {
    let mut sum = 0f32;
    for x in x {
        sum += x.abs();
    }
    write_f16(out, sum / 128.0);
    out[2..].fill(0);
    for (j, &x) in x.iter().enumerate() {
        out[2 + j / 8] |= u8::from(x >= 0.0) << (j % 8);
    }
}

pub fn encode_q2_0(x: &[f32], out: &mut [u8]) {
    let mut codes = [0; 64];
    write_f16(out, nearest_codes(x, &mut codes, 0));
    split_planes::<2>(&codes, 1, 0, &mut out[2..]);
}

pub fn encode_tq2_0(x: &[f32], out: &mut [u8]) {
    let mut codes = [0; 256];
    let d = nearest_codes(x, &mut codes, 1);
    split_planes::<2>(&codes, 32, 0, &mut out[..64]);
    write_f16(&mut out[64..], d);
}

pub fn encode_tq1_0(x: &[f32], out: &mut [u8]) {
    let mut codes = [0; 256];
    let d = nearest_codes(x, &mut codes, 1);
    let mut first = 0;
    for (at, stride, trits) in STRETCHES {
        for m in 0..stride {
            let mut number = 0u16;
            for n in 0..5 {
                let trit = if n < trits { codes[first + m + n * stride] } else { 0 };
                number = number * 3 + u16::from(trit);
            }
            out[at + m] = (number * 256).div_ceil(243) as u8;
        }
        first += stride * trits;
    }
    write_f16(&mut out[52..], d);
}

/// The largest |x|, and x over that, to the nearest integer (ties away from zero), plus 1.
///
/// Below f32's normal numbers the inverse overflows; C's conversions of infinity then make every
/// code `lost`.
fn nearest_codes(x: &[f32], codes: &mut [u8], lost: u8) -> f32 {
    let mut d = 0f32;
    for x in x {
        d = if x.abs() > d { x.abs() } else { d };
    }
    let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
    for (code, x) in codes.iter_mut().zip(x) {
        let level = (x * inverse).round();
        *code = if level.is_finite() { (level + 1.0) as u8 } else { lost };
    }
    d
}

//! F32, F16 and BF16: each element stored as a float.

use super::table::Format;
use crate::floats::{from_bf16, from_f16, to_bf16, to_f16};

/// Reads a row as f32.
#[inline(always)]
pub fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => {
            for (value, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        Format::F16 => {
            for (value, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = from_f16(u16::from_le_bytes([b[0], b[1]]));
            }
        }
        _ => {
            for (value, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = from_bf16(u16::from_le_bytes([b[0], b[1]]));
            }
        }
    }
}

/// Reads one element as f32.
#[inline(always)]
pub fn element(format: Format, bytes: &[u8]) -> f32 {
    let two = || u16::from_le_bytes([bytes[0], bytes[1]]);
    match format {
        Format::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        Format::F16 => from_f16(two()),
        _ => from_bf16(two()),
    }
}

/// Stores a row, each element to nearest even.
#[inline(always)]
pub fn encode_row(format: Format, x: &[f32], out: &mut [u8]) {
    match format {
        Format::F32 => {
            for (x, b) in x.iter().zip(out.chunks_exact_mut(4)) {
                b.copy_from_slice(&x.to_le_bytes());
            }
        }
        Format::F16 => {
            for (x, b) in x.iter().zip(out.chunks_exact_mut(2)) {
                b.copy_from_slice(&to_f16(*x).to_le_bytes());
            }
        }
        _ => {
            for (x, b) in x.iter().zip(out.chunks_exact_mut(2)) {
                b.copy_from_slice(&to_bf16(*x).to_le_bytes());
            }
        }
    }
}

/// The largest |x|; or where the first NaN or infinity is, if there is one. Among positive floats
/// the bits order as the numbers do.
#[inline(always)]
pub fn largest(x: &[f32]) -> Result<f32, usize> {
    let mut most = 0u32;
    for x in x {
        most = most.max(x.to_bits() & 0x7fff_ffff);
    }
    if most < 0x7f80_0000 {
        return Ok(f32::from_bits(most));
    }
    Err(x.iter().position(|x| !x.is_finite()).unwrap_or(0))
}

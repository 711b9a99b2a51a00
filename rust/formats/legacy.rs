//! Q4_0 Q4_1 Q5_0 Q5_1 Q8_0: blocks of 32 elements with one f16 scale, and a minimum for the _1
//! kinds. The layout and every rounding are those of `reference/legacy.py`.
//!
//! ```text
//! Q4_0  d; 16 bytes of nibbles                     d (q - 8)
//! Q4_1  d; m; 16 bytes of nibbles                  d q + m
//! Q5_0  d; 4 bytes of fifth bits; 16 of nibbles    d (q - 16)
//! Q5_1  d; m; 4 bytes; 16 bytes                    d q + m
//! Q8_0  d; 32 signed bytes                         d q
//! ```
//!
//! The encoders are written so that the compiler forms vectors: fixed blocks, no branch an element.

use crate::floats::{read_f16, write_f16};
use crate::quantize::search::{Grid, affine_search, symmetric_search};

const BLOCK: usize = 32;
/// Blocks that a search looks at together.
const TOGETHER: usize = 16;
type Levels = [u8; BLOCK];

pub fn unpack_q8_0(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = read_f16(block);
    for (q, &byte) in q.iter_mut().zip(&block[2..34]) {
        *q = byte ^ 0x80;
    }
}

pub fn unpack_q4_0(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = read_f16(block);
    unpack_nibbles(&block[2..18], q);
}

pub fn unpack_q4_1(block: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    (scale[0], min[0]) = (read_f16(block), read_f16(&block[2..]));
    unpack_nibbles(&block[4..20], q);
}

pub fn unpack_q5_0(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = read_f16(block);
    unpack_nibbles(&block[6..22], q);
    unpack_fifth_bits(&block[2..6], q);
}

pub fn unpack_q5_1(block: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    (scale[0], min[0]) = (read_f16(block), read_f16(&block[2..]));
    unpack_nibbles(&block[8..24], q);
    unpack_fifth_bits(&block[4..8], q);
}

fn unpack_nibbles(bytes: &[u8], q: &mut [u8]) {
    let (low, high) = q.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

fn unpack_fifth_bits(bytes: &[u8], q: &mut [u8]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (j, q) in q.iter_mut().enumerate() {
        *q |= ((bits >> j & 1) << 4) as u8;
    }
}

#[inline(always)]
fn pack_nibbles(q: &Levels, out: &mut [u8]) {
    for j in 0..16 {
        out[j] = (q[j] & 15) | (q[j + 16] << 4);
    }
}

#[inline(always)]
fn pack_fifth_bits(q: &Levels, out: &mut [u8]) {
    let mut bits = 0u32;
    for (j, &q) in q.iter().enumerate() {
        bits |= u32::from(q >> 4 & 1) << j;
    }
    out.copy_from_slice(&bits.to_le_bytes());
}

/// 1 / d, and 0 for the scale of nothing.
#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The integer part; 0 for infinity and NaN, which come of scales too small to invert. |x| < 2^31.
#[inline(always)]
fn truncate(x: f32) -> i32 {
    let finite = x.to_bits() & 0x7fff_ffff < 0x7f80_0000;
    let x = if finite { x } else { 0.0 };
    // SAFETY: finite, and a code's size: x / (largest |x| / 127) and less.
    unsafe { x.to_int_unchecked() }
}

/// The largest |x| of a block. Among positive floats the bits order as the numbers do.
#[inline(always)]
fn largest(x: &[f32; BLOCK]) -> f32 {
    let mut bits = 0u32;
    for x in x {
        bits = bits.max(x.to_bits() & 0x7fff_ffff);
    }
    f32::from_bits(bits)
}

/// The first element whose |x| is largest, with its sign.
#[inline(always)]
fn signed_peak(x: &[f32; BLOCK]) -> f32 {
    let (mut above, mut below) = (0i32, 0i32);
    for x in x {
        above = above.max(x.to_bits() as i32);
        below = below.max((x.to_bits() ^ 0x8000_0000) as i32);
    }
    if above == below && above != 0 {
        let peak = f32::from_bits(above as u32);
        for &x in x {
            if x.abs() == peak {
                return x;
            }
        }
    }
    if below > above { -f32::from_bits(below as u32) } else { f32::from_bits(above as u32) }
}

/// d = amax / 127, q = x / d with ties away from zero.
#[inline(always)]
pub fn encode_q8_0(x: &[f32], out: &mut [u8]) {
    for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<34>().0) {
        let d = largest(x) / 127.0;
        // 1/d of a subnormal d may be infinite; a C cast on x86 makes the codes 0 then.
        let inverse = Some(inverse(d)).filter(|inverse| inverse.is_finite()).unwrap_or(0.0);
        write_f16(out, d);
        for (x, q) in x.iter().zip(&mut out[2..]) {
            let v = x * inverse;
            let low = truncate(v);
            // The part behind the point is exact, so this is roundf even next to a half.
            let rest = v - low as f32;
            *q = (low + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)) as u8;
        }
    }
}

#[inline(always)]
pub fn encode_q4_0(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let spread = spread(x, importance);
    let blocks = x.as_chunks::<BLOCK>().0.chunks(TOGETHER);
    let outputs = out.as_chunks_mut::<18>().0.chunks_mut(TOGETHER);
    for (i, (x, out)) in blocks.zip(outputs).enumerate() {
        let (d, q) = symmetric(x, 8, importance, TOGETHER * i, spread);
        for (k, out) in out.iter_mut().enumerate() {
            write_f16(out, d[k]);
            pack_nibbles(&q[k], &mut out[2..]);
        }
    }
}

#[inline(always)]
pub fn encode_q5_0(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let spread = spread(x, importance);
    let blocks = x.as_chunks::<BLOCK>().0.chunks(TOGETHER);
    let outputs = out.as_chunks_mut::<22>().0.chunks_mut(TOGETHER);
    for (i, (x, out)) in blocks.zip(outputs).enumerate() {
        let (d, q) = symmetric(x, 16, importance, TOGETHER * i, spread);
        for (k, out) in out.iter_mut().enumerate() {
            write_f16(out, d[k]);
            pack_fifth_bits(&q[k], &mut out[2..6]);
            pack_nibbles(&q[k], &mut out[6..]);
        }
    }
}

#[inline(always)]
pub fn encode_q4_1(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let spread = spread(x, importance);
    let blocks = x.as_chunks::<BLOCK>().0.chunks(TOGETHER);
    let outputs = out.as_chunks_mut::<20>().0.chunks_mut(TOGETHER);
    for (i, (x, out)) in blocks.zip(outputs).enumerate() {
        let found = asymmetric(x, 15, importance, TOGETHER * i, spread);
        for ((d, low, q), out) in found.iter().zip(out) {
            write_f16(out, *d);
            write_f16(&mut out[2..], *low);
            pack_nibbles(q, &mut out[4..]);
        }
    }
}

#[inline(always)]
pub fn encode_q5_1(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let spread = spread(x, importance);
    let blocks = x.as_chunks::<BLOCK>().0.chunks(TOGETHER);
    let outputs = out.as_chunks_mut::<24>().0.chunks_mut(TOGETHER);
    for (i, (x, out)) in blocks.zip(outputs).enumerate() {
        let found = asymmetric(x, 31, importance, TOGETHER * i, spread);
        for ((d, low, q), out) in found.iter().zip(out) {
            write_f16(out, *d);
            write_f16(&mut out[2..], *low);
            pack_fifth_bits(q, &mut out[4..8]);
            pack_nibbles(q, &mut out[8..]);
        }
    }
}

/// Scales and codes of up to `TOGETHER` blocks from `first` on.
#[inline(always)]
fn symmetric(
    x: &[[f32; BLOCK]],
    n: i32,
    importance: Option<&[f32]>,
    first: usize,
    spread: f32,
) -> ([f32; TOGETHER], [Levels; TOGETHER]) {
    let Some(importance) = importance else {
        let (mut d, mut q) = ([0.0; TOGETHER], [[0; BLOCK]; TOGETHER]);
        for (k, x) in x.iter().enumerate() {
            (d[k], q[k]) = symmetric_plain(x, n);
        }
        return (d, q);
    };
    let (lanes, w) = with_weights(x, importance, first, spread);
    symmetric_search(&lanes, n, Some(&w))
}

/// The largest |x| goes to the lowest of 2n levels: d = x / -n, the others trunc(x / d + n + 1/2).
#[inline(always)]
fn symmetric_plain(x: &[f32; BLOCK], n: i32) -> (f32, Levels) {
    let mut q = [0; BLOCK];
    let d = signed_peak(x) / -n as f32;
    let inverse = inverse(d);
    for (x, q) in x.iter().zip(&mut q) {
        *q = truncate(x * inverse + (n as f32 + 0.5)).min(2 * n - 1) as u8;
    }
    (d, q)
}

type Lanes = [[f32; BLOCK]; TOGETHER];

/// Blocks and their weights, with zeros behind.
#[inline(always)]
fn with_weights(
    x: &[[f32; BLOCK]],
    importance: &[f32],
    first: usize,
    spread: f32,
) -> (Lanes, Lanes) {
    let (mut lanes, mut w) = ([[0f32; BLOCK]; TOGETHER], [[0f32; BLOCK]; TOGETHER]);
    for (k, x) in x.iter().enumerate() {
        lanes[k] = *x;
        w[k] = weights(x, importance, first + k, spread);
    }
    (lanes, w)
}

/// Up to `TOGETHER` blocks from `first` on.
#[inline(always)]
fn asymmetric(
    x: &[[f32; BLOCK]],
    n: i32,
    importance: Option<&[f32]>,
    first: usize,
    spread: f32,
) -> [(f32, f32, Levels); TOGETHER] {
    let mut found = [(0.0, 0.0, [0; BLOCK]); TOGETHER];
    let Some(importance) = importance else {
        for (found, x) in found.iter_mut().zip(x) {
            *found = asymmetric_plain(x, n);
        }
        return found;
    };
    let (lanes, w) = with_weights(x, importance, first, spread);
    let grid = Grid { first: -0.9, step: 0.05, count: 36 };
    affine_search(&lanes, n, &w, grid, false).map(|fit| (fit.scale, -fit.minimum, fit.codes))
}

/// d = (max - min) / n, q = trunc((x - min) / d + 1/2).
#[inline(always)]
fn asymmetric_plain(x: &[f32; BLOCK], n: i32) -> (f32, f32, Levels) {
    let mut q = [0; BLOCK];
    let (low, high) = range(x);
    let d = (high - low) / n as f32;
    let inverse = inverse(d);
    for (x, q) in x.iter().zip(&mut q) {
        *q = truncate((x - low) * inverse + 0.5).clamp(0, n) as u8;
    }
    (d, low, q)
}

/// The smallest and the largest element; of 0 and -0 the first.
#[inline(always)]
fn range(x: &[f32; BLOCK]) -> (f32, f32) {
    // Four lanes would do for speed; order matters only between the zeros, checked below.
    let (mut low, mut high) = ([x[0]; 8], [x[0]; 8]);
    for part in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            low[lane] = if part[lane] < low[lane] { part[lane] } else { low[lane] };
            high[lane] = if part[lane] > high[lane] { part[lane] } else { high[lane] };
        }
    }
    let (mut least, mut most) = (low[0], high[0]);
    for lane in 1..8 {
        least = if low[lane] < least { low[lane] } else { least };
        most = if high[lane] > most { high[lane] } else { most };
    }
    if least == 0.0 {
        for &x in x {
            if x == 0.0 {
                return (x, most);
            }
        }
    }
    (least, most)
}

/// The mean square of a row, which importance weights need.
#[inline(always)]
fn spread(row: &[f32], importance: Option<&[f32]>) -> f32 {
    if importance.is_none() {
        return 0.0;
    }
    let mut sum = 0f32;
    for x in row {
        sum += x * x;
    }
    sum / row.len() as f32
}

/// How much each element's error counts: importance * sqrt(spread + x^2).
#[inline(always)]
fn weights(x: &[f32; BLOCK], importance: &[f32], block: usize, spread: f32) -> [f32; BLOCK] {
    let importance = &importance[block * BLOCK..(block + 1) * BLOCK];
    let mut w = [0f32; BLOCK];
    for j in 0..BLOCK {
        w[j] = importance[j] * (spread + x[j] * x[j]).sqrt();
    }
    w
}

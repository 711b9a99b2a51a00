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

use super::bits::byte_masks;
use super::search::{Grid, affine_search, symmetric_search};
use super::table::Format;
use crate::floats::{read_f16, write_f16};

const BLOCK: usize = 32;
/// Blocks that a search looks at together.
const TOGETHER: usize = 16;

pub fn unpack_q8_0(block: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    scale[0] = read_f16(block);
    let (q, bytes) = (&mut q[..BLOCK], &block[2..2 + BLOCK]);
    for j in 0..BLOCK {
        q[j] = bytes[j] ^ 0x80;
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
    let (q, bytes) = (&mut q[..BLOCK], &bytes[..BLOCK / 2]);
    for j in 0..BLOCK / 2 {
        q[j] = bytes[j] & 15;
        q[j + BLOCK / 2] = bytes[j] >> 4;
    }
}

fn unpack_fifth_bits(bytes: &[u8], q: &mut [u8]) {
    for (q, &bits) in q.as_chunks_mut().0.iter_mut().zip(bytes) {
        *q =
            (u64::from_le_bytes(*q) | byte_masks(bits) & u64::from_ne_bytes([16; 8])).to_le_bytes();
    }
}

#[inline(always)]
fn pack_nibbles(q: &[i32; BLOCK], out: &mut [u8]) {
    for j in 0..16 {
        out[j] = ((q[j] & 15) | (q[j + 16] << 4)) as u8;
    }
}

#[inline(always)]
fn pack_fifth_bits(q: &[i32; BLOCK], out: &mut [u8]) {
    let mut bits = 0i32;
    for (j, &q) in q.iter().enumerate() {
        bits |= (q >> 4 & 1) << j;
    }
    out.copy_from_slice(&bits.to_le_bytes());
}

/// Stores a block whose codes are as `unpack_*` gives them; `low` is the minimum of the _1 kinds.
pub fn pack_block(format: Format, d: f32, low: f32, codes: &[u8], out: &mut [u8]) {
    let q: [i32; BLOCK] = std::array::from_fn(|j| i32::from(codes[j]));
    write_f16(out, d);
    let head = if matches!(format, Format::Q4_1 | Format::Q5_1) { 4 } else { 2 };
    if head == 4 {
        write_f16(&mut out[2..], low);
    }
    match format {
        Format::Q8_0 => {
            for (out, code) in out[head..].iter_mut().zip(codes) {
                *out = code ^ 0x80;
            }
        }
        Format::Q5_0 | Format::Q5_1 => {
            pack_fifth_bits(&q, &mut out[head..head + 4]);
            pack_nibbles(&q, &mut out[head + 4..]);
        }
        _ => pack_nibbles(&q, &mut out[head..]),
    }
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

/// trunc((x - low) * inverse + add), at most `top`. `low` is 0 or the smallest of `x`, and the
/// inverse is infinite or 0 where the range of `x` is too small or too large for a float.
#[inline(always)]
fn codes(x: &[f32; BLOCK], low: f32, inverse: f32, add: f32, top: i32) -> [i32; BLOCK] {
    let mut q = [0i32; BLOCK];
    if inverse.is_finite() && inverse != 0.0 {
        for (x, q) in x.iter().zip(&mut q) {
            // SAFETY: finite, and a code's size: the inverse is of the largest of these numbers.
            let code: i32 = unsafe { ((x - low) * inverse + add).to_int_unchecked() };
            *q = code.min(top);
        }
    } else {
        for (x, q) in x.iter().zip(&mut q) {
            *q = truncate((x - low) * inverse + add).clamp(0, top);
        }
    }
    q
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
    // Eight lanes by hand: left to itself the compiler ends with branches that nobody can predict.
    let (mut above, mut below) = ([0i32; 8], [0i32; 8]);
    for lanes in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            above[lane] = above[lane].max(lanes[lane].to_bits() as i32);
            below[lane] = below[lane].max((lanes[lane].to_bits() ^ 0x8000_0000) as i32);
        }
    }
    for half in [4, 2, 1] {
        for lane in 0..half {
            above[lane] = above[lane].max(above[lane + half]);
            below[lane] = below[lane].max(below[lane + half]);
        }
    }
    let (above, below) = (above[0], below[0]);
    if above == below && above != 0 {
        return first_of(x, f32::from_bits(above as u32));
    }
    if below > above { -f32::from_bits(below as u32) } else { f32::from_bits(above as u32) }
}

/// The first x with |x| = `peak`.
#[cold]
fn first_of(x: &[f32; BLOCK], peak: f32) -> f32 {
    x.iter().copied().find(|x| x.abs() == peak).unwrap_or(peak)
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
            // The fraction is exact, so this is roundf even next to a half.
            let rest = v - low as f32;
            *q = (low + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)) as u8;
        }
    }
}

#[inline(always)]
pub fn encode_q4_0(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    symmetric(x, 8, importance, out.as_chunks_mut::<18>().0, |d, q, out| {
        write_f16(out, d);
        pack_nibbles(q, &mut out[2..]);
    });
}

#[inline(always)]
pub fn encode_q5_0(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    symmetric(x, 16, importance, out.as_chunks_mut::<22>().0, |d, q, out| {
        write_f16(out, d);
        pack_fifth_bits(q, &mut out[2..6]);
        pack_nibbles(q, &mut out[6..]);
    });
}

#[inline(always)]
pub fn encode_q4_1(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    asymmetric(x, 15, importance, out.as_chunks_mut::<20>().0, |d, low, q, out| {
        write_f16(out, d);
        write_f16(&mut out[2..], low);
        pack_nibbles(q, &mut out[4..]);
    });
}

#[inline(always)]
pub fn encode_q5_1(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    asymmetric(x, 31, importance, out.as_chunks_mut::<24>().0, |d, low, q, out| {
        write_f16(out, d);
        write_f16(&mut out[2..], low);
        pack_fifth_bits(q, &mut out[4..8]);
        pack_nibbles(q, &mut out[8..]);
    });
}

/// Scales and codes of a row's blocks, each given to `store`.
#[inline(always)]
fn symmetric<const B: usize>(
    x: &[f32],
    n: i32,
    importance: Option<&[f32]>,
    out: &mut [[u8; B]],
    store: impl Fn(f32, &[i32; BLOCK], &mut [u8; B]),
) {
    let blocks = x.as_chunks::<BLOCK>().0;
    let Some(importance) = importance else {
        for (x, out) in blocks.iter().zip(out) {
            let (d, q) = symmetric_plain(x, n);
            store(d, &q, out);
        }
        return;
    };
    let spread = spread(x);
    for (i, (x, out)) in blocks.chunks(TOGETHER).zip(out.chunks_mut(TOGETHER)).enumerate() {
        let (lanes, w) = with_weights(x, importance, TOGETHER * i, spread);
        let (d, q) = symmetric_search(&lanes, n, Some(&w));
        for (k, out) in out.iter_mut().enumerate() {
            store(d[k], &q[k].map(i32::from), out);
        }
    }
}

/// The largest |x| goes to the lowest of 2n levels: d = x / -n, the others trunc(x / d + n + 1/2).
#[inline(always)]
fn symmetric_plain(x: &[f32; BLOCK], n: i32) -> (f32, [i32; BLOCK]) {
    let d = signed_peak(x) / -n as f32;
    (d, codes(x, 0.0, inverse(d), n as f32 + 0.5, 2 * n - 1))
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

/// Scales, minima and codes of a row's blocks, each given to `store`.
#[inline(always)]
fn asymmetric<const B: usize>(
    x: &[f32],
    n: i32,
    importance: Option<&[f32]>,
    out: &mut [[u8; B]],
    store: impl Fn(f32, f32, &[i32; BLOCK], &mut [u8; B]),
) {
    let blocks = x.as_chunks::<BLOCK>().0;
    let Some(importance) = importance else {
        for (x, out) in blocks.iter().zip(out) {
            let (d, low, q) = asymmetric_plain(x, n);
            store(d, low, &q, out);
        }
        return;
    };
    let (spread, grid) = (spread(x), Grid { first: -0.9, step: 0.05, count: 36 });
    for (i, (x, out)) in blocks.chunks(TOGETHER).zip(out.chunks_mut(TOGETHER)).enumerate() {
        let (lanes, w) = with_weights(x, importance, TOGETHER * i, spread);
        for (fit, out) in affine_search(&lanes, n, &w, grid, false).iter().zip(out) {
            store(fit.scale, -fit.minimum, &fit.codes.map(i32::from), out);
        }
    }
}

/// d = (max - min) / n, q = trunc((x - min) / d + 1/2).
#[inline(always)]
fn asymmetric_plain(x: &[f32; BLOCK], n: i32) -> (f32, f32, [i32; BLOCK]) {
    let (low, high) = range(x);
    let d = (high - low) / n as f32;
    (d, low, codes(x, low, inverse(d), 0.5, n))
}

/// The smallest and the largest element; of 0 and -0 the first.
#[inline(always)]
fn range(x: &[f32; BLOCK]) -> (f32, f32) {
    // Four lanes would do for speed; order matters only between the zeros, checked below.
    let (mut low, mut high) = ([x[0]; 8], [x[0]; 8]);
    for lanes in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            low[lane] = if lanes[lane] < low[lane] { lanes[lane] } else { low[lane] };
            high[lane] = if lanes[lane] > high[lane] { lanes[lane] } else { high[lane] };
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
fn spread(row: &[f32]) -> f32 {
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

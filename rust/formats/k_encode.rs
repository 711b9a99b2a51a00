//! Encoding the K formats: search each block, store the scales as integers, round once more.
//!
//! The rules are those of `reference/k_encode.py`; `importance`, if given, says how much each
//! column counts.

use super::k::{BLOCK, Super, pack_q2_k, pack_q3_k, pack_q4_k, pack_q5_k, pack_q6_k};
use crate::floats::{from_f16, to_f16};
use crate::quantize::search::{
    Grid, TINY, affine_search, coordinate_search, nearest, scale_quantizer, signed_peak,
    symmetric_search,
};

type Row = [f32; BLOCK];

/// The grid of every affine search with importance.
const FINE: Grid = Grid { first: -0.9, step: 0.05, count: 36 };

/// Blocks of 16 with 4-bit scale and minimum, codes of 2 bits; w = |x| without importance.
#[inline(always)]
pub fn encode_q2_k(x: &Row, importance: Option<&Row>, out: &mut [u8]) {
    let mut own = *x;
    for w in &mut own {
        *w = w.abs();
    }
    let w = weights(x, importance, 1.0, own);
    let grid = if importance.is_none() { Grid { first: -0.5, step: 0.1, count: 15 } } else { FINE };
    let s = affine::<16, 16>(x, &w, 3, 15, grid, importance.is_none(), importance.is_none());
    pack_q2_k(&s, out);
}

/// Blocks of 32 with 6-bit scale and minimum, codes of 4 bits.
#[inline(always)]
pub fn encode_q4_k(x: &Row, importance: Option<&Row>, out: &mut [u8]) {
    let w = weights(x, importance, 2.0, own_weights(x));
    let grid = if importance.is_none() { Grid { first: -1.0, step: 0.1, count: 20 } } else { FINE };
    pack_q4_k(&affine::<8, 32>(x, &w, 15, 63, grid, importance.is_none(), false), out);
}

/// Blocks of 32 with 6-bit scale and minimum, codes of 5 bits.
#[inline(always)]
pub fn encode_q5_k(x: &Row, importance: Option<&Row>, out: &mut [u8]) {
    let w = weights(x, importance, 2.0, own_weights(x));
    let grid = if importance.is_none() { Grid { first: -0.5, step: 0.1, count: 15 } } else { FINE };
    pack_q5_k(&affine::<8, 32>(x, &w, 31, 63, grid, importance.is_none(), false), out);
}

/// Blocks of 16 with a signed 6-bit scale, codes of 3 bits.
#[inline(always)]
pub fn encode_q3_k(x: &Row, importance: Option<&Row>, out: &mut [u8]) {
    let (mut codes, mut scales, mut sums) = ([0; BLOCK], [0f32; 16], [0f32; 16]);
    let w = weights(x, importance, 2.0, *x);
    for (k, x) in x.as_chunks::<16>().0.iter().enumerate() {
        let w = &w.as_chunks::<16>().0[k];
        let (scale, found) = match importance {
            None => coordinate_search(x, 4),
            Some(_) => symmetric_search(x, 4, Some(w)),
        };
        scales[k] = scale;
        sums[k] = total(w);
        codes[16 * k..16 * k + 16].copy_from_slice(&found);
    }
    let (d, sixes) = q3_scales(&scales, importance.map(|_| &sums));
    let mut steps = [0f32; 16];
    for k in 0..16 {
        steps[k] = if d == 0.0 { 0.0 } else { d * (i32::from(sixes[k]) - 32) as f32 };
    }
    recode::<16, 16>(x, &mut codes, &steps, &[0.0; 16], (-4, 3, 4));
    pack_q3_k(&Super { d, dmin: 0.0, scales: sixes, minima: [0; 16], codes }, out);
}

/// The super-scale and the scales as 0..63, 32 standing for zero.
#[inline(always)]
fn q3_scales(scales: &[f32; 16], weights: Option<&[f32; 16]>) -> (f32, [u8; 16]) {
    if weights.is_some() {
        let (d, sixes) = symmetric_search(scales, 32, weights);
        return (as_f16(d), sixes);
    }
    let mut sixes = [0; 16];
    let peak = signed_peak(scales);
    if peak == 0.0 {
        return (0.0, sixes);
    }
    let inverse = -32.0 / peak;
    for k in 0..16 {
        sixes[k] = (nearest(inverse * scales[k]).clamp(-32, 31) + 32) as u8;
    }
    (as_f16(1.0 / inverse), sixes)
}

/// Blocks of 16 with a signed 8-bit scale, codes of 6 bits; importance is used as it is.
#[inline(always)]
pub fn encode_q6_k(x: &Row, importance: Option<&Row>, out: &mut [u8]) {
    let (mut codes, mut scales) = ([0; BLOCK], [0f32; 16]);
    for (k, x) in x.as_chunks::<16>().0.iter().enumerate() {
        let w = importance.map(|w| &w.as_chunks::<16>().0[k]);
        let (scale, found) = symmetric_search(x, 32, w);
        scales[k] = scale;
        codes[16 * k..16 * k + 16].copy_from_slice(&found);
    }
    let peak = signed_peak(&scales);
    if peak.abs() < TINY {
        return out.fill(0);
    }
    let inverse = -128.0 / peak;
    let d = as_f16(1.0 / inverse);
    let (mut eights, mut steps) = ([0; 16], [0f32; 16]);
    for k in 0..16 {
        let eight = nearest(inverse * scales[k]).min(127);
        (eights[k], steps[k]) = (eight as u8, d * eight as f32);
    }
    recode::<16, 16>(x, &mut codes, &steps, &[0.0; 16], (-32, 31, 32));
    pack_q6_k(&Super { d, dmin: 0.0, scales: eights, minima: [0; 16], codes }, out);
}

/// Q2_K, Q4_K and Q5_K: `S` blocks of `N`, codes up to n, scales and minima up to `top`.
#[inline(always)]
fn affine<const S: usize, const N: usize>(
    x: &Row,
    w: &Row,
    n: i32,
    top: i32,
    grid: Grid,
    plain: bool,
    absolute: bool,
) -> Super<S> {
    let mut codes = [0; BLOCK];
    let (mut scales, mut minima, mut sums) = ([0f32; S], [0f32; S], [0f32; S]);
    let (blocks, weights) = (array::<S, N>(x), array::<S, N>(w));
    let found = affine_search(blocks, n, weights, grid, absolute);
    for (k, found) in found.iter().enumerate() {
        (scales[k], minima[k], sums[k]) = (found.scale, found.minimum, total(&weights[k]));
        codes[N * k..N * k + N].copy_from_slice(&found.codes);
    }
    let ((d, s), (dmin, m)) = if plain {
        (to_integers(&scales, top), to_integers(&minima, top))
    } else {
        (scale_quantizer(&scales, top, &sums), scale_quantizer(&minima, top, &sums))
    };
    let (d, dmin) = (as_f16(d), as_f16(dmin));
    let (mut steps, mut lows) = ([0f32; S], [0f32; S]);
    for k in 0..S {
        (steps[k], lows[k]) = (d * f32::from(s[k]), dmin * f32::from(m[k]));
    }
    recode::<S, N>(x, &mut codes, &steps, &lows, (0, n, 0));
    Super { d, dmin, scales: s, minima: m, codes }
}

/// A row as S blocks of N.
#[inline(always)]
fn array<const S: usize, const N: usize>(row: &Row) -> &[[f32; N]; S] {
    &row.as_chunks::<N>().0.as_chunks::<S>().0[0]
}

/// Values of at least 0 as integers 0..top times a scale. The low byte is what matters where the
/// inverse overflows (values below f32's normal numbers).
#[inline(always)]
fn to_integers<const S: usize>(v: &[f32; S], top: i32) -> (f32, [u8; S]) {
    let mut levels = [0; S];
    let mut peak = 0f32;
    for &v in v {
        peak = if v > peak { v } else { peak };
    }
    if peak <= 0.0 {
        return (0.0, levels);
    }
    let inverse = top as f32 / peak;
    for k in 0..S {
        levels[k] = (nearest(inverse * v[k]) & 255).min(top) as u8;
    }
    (peak / top as f32, levels)
}

/// The codes again, from the scales as stored; where that scale is 0 the search's codes stay.
#[inline(always)]
fn recode<const S: usize, const N: usize>(
    x: &Row,
    codes: &mut [u8; BLOCK],
    steps: &[f32; S],
    lows: &[f32; S],
    (low, high, zero): (i32, i32, i32),
) {
    for (k, x) in x.as_chunks::<N>().0.iter().enumerate() {
        let (step, minimum) = (steps[k], lows[k]);
        if step == 0.0 {
            continue;
        }
        let codes = &mut codes.as_chunks_mut::<N>().0[k];
        for j in 0..N {
            codes[j] = (nearest((x[j] + minimum) / step).clamp(low, high) + zero) as u8;
        }
    }
}

/// sqrt(mean of squares) + |x|, the mean over each block of 32.
#[inline(always)]
fn own_weights(x: &Row) -> Row {
    let mut w = [0f32; BLOCK];
    for (x, w) in x.as_chunks::<32>().0.iter().zip(w.as_chunks_mut::<32>().0) {
        let root = (squares(x) / 32.0).sqrt();
        for j in 0..32 {
            w[j] = root + x[j].abs();
        }
    }
    w
}

/// Importance sqrt(v + x^2) with v = factor times the mean of squares; `own` without importance.
#[inline(always)]
fn weights(x: &Row, importance: Option<&Row>, factor: f32, own: Row) -> Row {
    let Some(importance) = importance else { return own };
    let v = factor * squares(x) / BLOCK as f32;
    let mut w = own;
    for j in 0..BLOCK {
        w[j] = importance[j] * (v + x[j] * x[j]).sqrt();
    }
    w
}

#[inline(always)]
fn squares(x: &[f32]) -> f32 {
    let mut sum = 0f32;
    for x in x {
        sum += x * x;
    }
    sum
}

#[inline(always)]
fn total(x: &[f32]) -> f32 {
    let mut sum = 0f32;
    for x in x {
        sum += x;
    }
    sum
}

/// x as it comes back from an f16.
#[inline(always)]
fn as_f16(x: f32) -> f32 {
    from_f16(to_f16(x))
}

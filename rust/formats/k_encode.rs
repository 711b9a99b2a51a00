//! Encoding the K formats: search each block, store the scales as integers, round once more.
//!
//! The rules are those of `reference/k_encode.py`; `importance`, if given, says how much each
//! column counts.

use super::k::{BLOCK, Super, pack_q2_k, pack_q3_k, pack_q4_k, pack_q5_k, pack_q6_k};
use super::search::{
    Affine, Grid, TINY, affine_search, coordinate_search, nearest, scale_quantizer, signed_peak,
    symmetric_search,
};
use crate::floats::{from_f16, to_f16};

type Row = [f32; BLOCK];

/// The grid of every affine search with importance.
const FINE: Grid = Grid { first: -0.9, step: 0.05, count: 36 };
/// Blocks that an affine search looks at together: one super-block of Q2_K, two of the others.
const LANES: usize = 16;

/// How Q2_K, Q4_K and Q5_K differ.
struct Rule {
    /// The highest code, the highest scale and minimum.
    n: i32,
    top: i32,
    /// The grid without importance.
    grid: Grid,
    /// Whether the search without importance takes |e| for e^2.
    absolute: bool,
    /// Factor on the mean of squares that importance is mixed with.
    spread: f32,
    bytes: usize,
}

/// A row in blocks of 16 with 4-bit scale and minimum, codes of 2 bits; w = |x| without importance.
#[inline(always)]
pub fn encode_q2_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let grid = Grid { first: -0.5, step: 0.1, count: 15 };
    let rule = Rule { n: 3, top: 15, grid, absolute: true, spread: 1.0, bytes: 84 };
    affine_row::<16, 16>(x, importance, &rule, magnitudes, pack_q2_k, out);
}

/// A row in blocks of 32 with 6-bit scale and minimum, codes of 4 bits.
#[inline(always)]
pub fn encode_q4_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let grid = Grid { first: -1.0, step: 0.1, count: 20 };
    let rule = Rule { n: 15, top: 63, grid, absolute: false, spread: 2.0, bytes: 144 };
    affine_row::<8, 32>(x, importance, &rule, own_weights, pack_q4_k, out);
}

/// A row in blocks of 32 with 6-bit scale and minimum, codes of 5 bits.
#[inline(always)]
pub fn encode_q5_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let grid = Grid { first: -0.5, step: 0.1, count: 15 };
    let rule = Rule { n: 31, top: 63, grid, absolute: false, spread: 2.0, bytes: 176 };
    affine_row::<8, 32>(x, importance, &rule, own_weights, pack_q5_k, out);
}

/// Super-blocks of `S` blocks of `N`, as many together as fill the lanes.
#[inline(always)]
fn affine_row<const S: usize, const N: usize>(
    x: &[f32],
    importance: Option<&[f32]>,
    rule: &Rule,
    own: fn(&Row) -> Row,
    pack: fn(&Super<S>, &mut [u8]),
    out: &mut [u8],
) {
    let together = LANES / S;
    let plain = importance.is_none();
    let rows = x.as_chunks::<BLOCK>().0.chunks(together);
    for (i, (x, out)) in rows.zip(out.chunks_mut(rule.bytes * together)).enumerate() {
        let (mut lanes, mut w) = ([[0f32; N]; LANES], [[0f32; N]; LANES]);
        for (t, x) in x.iter().enumerate() {
            let importance = importance.map(|w| &w.as_chunks().0[i * together + t]);
            let weights = weights(x, importance, rule.spread, own);
            lanes[S * t..S * t + S].copy_from_slice(x.as_chunks().0);
            w[S * t..S * t + S].copy_from_slice(weights.as_chunks().0);
        }
        let grid = if plain { rule.grid } else { FINE };
        let found = affine_search(&lanes, rule.n, &w, grid, rule.absolute && plain);
        for (t, (x, out)) in x.iter().zip(out.chunks_exact_mut(rule.bytes)).enumerate() {
            let lanes = S * t..S * t + S;
            let sums = (!plain).then(|| std::array::from_fn(|k| total(&w[S * t + k])));
            pack(&affine::<S, N>(x, &found[lanes], sums, rule), out);
        }
    }
}

/// Blocks of 16 with a signed 6-bit scale, codes of 3 bits.
#[inline(always)]
pub fn encode_q3_k(x: &Row, importance: Option<&Row>, out: &mut [u8]) {
    let (mut codes, mut scales, mut sums) = ([0; BLOCK], [0f32; 16], [0f32; 16]);
    let w = weights(x, importance, 2.0, |x| *x);
    let (blocks, weights) = (array::<16, 16>(x), array::<16, 16>(&w));
    let found = match importance {
        None => coordinate_searches(blocks),
        Some(_) => symmetric_search(blocks, 4, Some(weights)),
    };
    for k in 0..16 {
        (scales[k], sums[k]) = (found.0[k], total(&weights[k]));
        codes[16 * k..16 * k + 16].copy_from_slice(&found.1[k]);
    }
    let (d, sixes) = q3_scales(&scales, importance.map(|_| &sums));
    let mut steps = [0f32; 16];
    for k in 0..16 {
        steps[k] = if d == 0.0 { 0.0 } else { d * (i32::from(sixes[k]) - 32) as f32 };
    }
    recode::<16, 16>(x, &mut codes, &steps, &[0.0; 16], (-4, 3, 4));
    pack_q3_k(&Super { d, dmin: 0.0, scales: sixes, minima: [0; 16], codes }, out);
}

/// `coordinate_search` of each block.
#[inline(always)]
fn coordinate_searches(x: &[[f32; 16]; 16]) -> ([f32; 16], [[u8; 16]; 16]) {
    let (mut scales, mut codes) = ([0f32; 16], [[0; 16]; 16]);
    for k in 0..16 {
        (scales[k], codes[k]) = coordinate_search(&x[k], 4);
    }
    (scales, codes)
}

/// The super-scale and the scales as 0..63, 32 standing for zero.
#[inline(always)]
fn q3_scales(scales: &[f32; 16], weights: Option<&[f32; 16]>) -> (f32, [u8; 16]) {
    if weights.is_some() {
        let found = symmetric_search(&[*scales], 32, weights.map(std::array::from_ref));
        return (as_f16(found.0[0]), found.1[0]);
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
    let (scales, found) = symmetric_search(array::<16, 16>(x), 32, importance.map(array::<16, 16>));
    let mut codes = [0; BLOCK];
    codes.copy_from_slice(found.as_flattened());
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

/// Stores the scales and minima found for `S` blocks as integers, and recodes.
#[inline(always)]
fn affine<const S: usize, const N: usize>(
    x: &Row,
    found: &[Affine<N>],
    sums: Option<[f32; S]>,
    rule: &Rule,
) -> Super<S> {
    let mut codes = [0; BLOCK];
    let (mut scales, mut minima) = ([0f32; S], [0f32; S]);
    for (k, found) in found.iter().enumerate() {
        (scales[k], minima[k]) = (found.scale, found.minimum);
        codes[N * k..N * k + N].copy_from_slice(&found.codes);
    }
    let ((d, s), (dmin, m)) = match sums {
        None => (to_integers(&scales, rule.top), to_integers(&minima, rule.top)),
        Some(sums) => {
            let stored = |v| scale_quantizer(v, rule.top, &sums);
            (stored(&scales), stored(&minima))
        }
    };
    let (d, dmin) = (as_f16(d), as_f16(dmin));
    let (mut steps, mut lows) = ([0f32; S], [0f32; S]);
    for k in 0..S {
        (steps[k], lows[k]) = (d * f32::from(s[k]), dmin * f32::from(m[k]));
    }
    recode::<S, N>(x, &mut codes, &steps, &lows, (0, rule.n, 0));
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

/// |x|.
#[inline(always)]
fn magnitudes(x: &Row) -> Row {
    x.map(f32::abs)
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
fn weights(x: &Row, importance: Option<&Row>, factor: f32, own: fn(&Row) -> Row) -> Row {
    let Some(importance) = importance else { return own(x) };
    let v = factor * squares(x) / BLOCK as f32;
    let mut w = [0f32; BLOCK];
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

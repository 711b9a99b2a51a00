//! Encoding IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S: signs are stored separately; a search over scales
//! finds the code book's points nearest to the magnitudes.
//!
//! Levels 0, 1, 2, ... stand for the magnitudes 1, 3, 5, ...; the scale that is stored makes up for
//! the book's own magnitudes.

#![allow(clippy::needless_range_loop)] // j counts elements across several arrays

use super::grids::{Grid, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use super::search::{nearest, scale_quantizer};
use crate::floats::write_f16;

type Row = [f32; 256];

/// How a format searches.
struct Rule {
    /// Factor on the mean of squares that importance is mixed with.
    spread: f32,
    /// Whether signs are seven of eight, their number even.
    even: bool,
    /// Blocks whose largest magnitude is smaller are zero.
    tiny: f32,
    /// The highest level.
    top: i32,
    /// Scales tried: -steps..=steps times `step` about the first.
    steps: i32,
    step: f32,
    /// Whether all points are looked up again at the final scale: always, never those that lay on
    /// the book, or all where one did not.
    again: Again,
}

#[derive(Clone, Copy, PartialEq)]
enum Again {
    Always,
    Strays,
    AllForOne,
}

/// A block: its scale, the index of each point, and the signs of each 8 elements.
struct Found {
    scale: f32,
    indices: [u16; 8],
    signs: [u8; 4],
    live: bool,
}

/// Magnitudes and signs; where their number must be even, the sign that costs least is flipped.
fn split_signs<const N: usize>(x: &[f32; N], w: &[f32; N], even: bool) -> ([f32; N], [u8; 4]) {
    let (mut magnitudes, mut signs) = (*x, [0u8; 4]);
    for k in 0..N / 8 {
        let range = 8 * k..8 * k + 8;
        for j in range.clone() {
            let negative = x[j] < 0.0;
            magnitudes[j] = if negative { -x[j] } else { x[j] };
            signs[k] |= u8::from(negative) << (j % 8);
        }
        if even && signs[k].count_ones() % 2 == 1 {
            let cost = |j: usize| w[j] * x[j] * x[j];
            let mut least = range.start;
            for j in range {
                least = if cost(j) < cost(least) { j } else { least };
            }
            magnitudes[least] = -magnitudes[least];
            signs[k] ^= 1 << (least % 8);
        }
        if even {
            signs[k] &= 127;
        }
    }
    (magnitudes, signs)
}

/// Levels and the point of each D elements at one scale; whether all were points themselves.
#[inline(always)]
fn assign<const N: usize, const D: usize>(
    grid: &Grid,
    x: &[f32; N],
    roots: &[f32; N],
    (inverse, scale): (f32, f32),
    top: i32,
    keep: &[bool; 8],
    found: &mut ([u8; N], [u16; 8], [bool; 8]),
) {
    let (levels, indices, on_grid) = found;
    for k in 0..N / D {
        if keep[k] {
            continue;
        }
        let mut tuple = [0; D];
        for j in 0..D {
            tuple[j] = nearest(0.5 * (inverse * x[D * k + j] - 1.0)).clamp(0, top) as u8;
        }
        let point = grid.find(&tuple);
        on_grid[k] = point.is_ok();
        indices[k] = match point {
            Ok(point) => point,
            Err(near) => closest::<D>(grid, near, &x[D * k..], &roots[D * k..], scale),
        };
        levels[D * k..D * k + D].copy_from_slice(&grid.points[usize::from(indices[k])][..D]);
    }
}

/// The first of the points `near` with the smallest weighted distance from x.
#[inline(always)]
fn closest<const D: usize>(grid: &Grid, near: &[u16], x: &[f32], w: &[f32], scale: f32) -> u16 {
    let mut best = (near[0], f32::MAX);
    for &index in near {
        let (point, mut distance) = (&grid.points[usize::from(index)], 0f32);
        for j in 0..D {
            let off = scale * f32::from(2 * point[j] + 1) - x[j];
            distance += w[j] * off * off;
        }
        if distance < best.1 {
            best = (index, distance);
        }
    }
    best.0
}

/// sum(w x q) and sum(w q q).
#[inline(always)]
fn sums<const N: usize>(x: &[f32; N], w: &[f32; N], levels: &[u8; N]) -> (f32, f32) {
    let (mut a, mut b) = (0f32, 0f32);
    for j in 0..N {
        let q = f32::from(2 * levels[j] + 1);
        a += w[j] * x[j] * q;
        b += w[j] * q * q;
    }
    (a, b)
}

/// One block: the best of the scales tried, then once more at the scale that fits its points.
#[inline(always)]
fn search<const N: usize, const D: usize>(
    grid: &Grid,
    x: &[f32; N],
    w: &[f32; N],
    rule: &Rule,
) -> Found {
    let (x, mut signs) = split_signs(x, w, rule.even);
    let zero = Found { scale: 0.0, indices: [0; 8], signs: [0; 4], live: false };
    let peak = x.iter().fold(x[0], |peak, &x| if x > peak { x } else { peak });
    if peak < rule.tiny || peak == 0.0 {
        return zero;
    }
    let highest = (2 * rule.top + 1) as f32;
    let mut roots = *w;
    for root in &mut roots {
        *root = root.sqrt();
    }
    let (mut scale, range) = if rule.again == Again::Always {
        let (scale, _) = scale_quantizer(&x, rule.top + 2, w);
        (scale, scale * (rule.top + 1) as f32)
    } else {
        (peak / highest, peak)
    };
    if range <= 0.0 {
        return zero;
    }
    let mut tried = ([0; N], [0; 8], [false; 8]);
    let (mut best, mut gain) = (([0; N], [0; 8], [rule.again == Again::Strays; 8]), 0f32);
    for s in -rule.steps..=rule.steps {
        let inverse = (highest + s as f32 * rule.step) / range;
        assign::<N, D>(
            grid,
            &x,
            &roots,
            (inverse, 1.0 / inverse),
            rule.top,
            &[false; 8],
            &mut tried,
        );
        let (a, b) = sums(&x, w, &tried.0);
        if b > 0.0 && a * a > gain * b {
            scale = a / b;
            (gain, best) = (scale * a, tried);
        }
    }
    let strays = best.2[..N / D].iter().any(|&on_grid| !on_grid);
    if scale > 0.0 && (rule.again == Again::Always || strays) {
        let keep = if rule.again == Again::Strays { best.2 } else { [false; 8] };
        assign::<N, D>(grid, &x, &roots, (1.0 / scale, scale), rule.top, &keep, &mut best);
        let (a, b) = sums(&x, w, &best.0);
        scale = if b > 0.0 { a / b } else { scale };
    }
    if scale < 0.0 {
        scale = -scale;
        signs = signs.map(|signs| !signs & if rule.even { 127 } else { 255 });
    }
    if gain == 0.0 && rule.again != Again::Always && !strays {
        best.1 = index_of_zeros::<D>(grid, N / D);
    }
    Found { scale, indices: best.1, signs, live: true }
}

/// The point of all lowest levels: what a block keeps for which no scale was any good.
fn index_of_zeros<const D: usize>(grid: &Grid, points: usize) -> [u16; 8] {
    let index = grid.find(&[0; D]).unwrap_or(0);
    std::array::from_fn(|k| if k < points { index } else { 0 })
}

/// w for all of a row: importance sqrt(v + x^2), or what the format takes without.
fn weights(x: &Row, importance: Option<&[f32]>, spread: f32, own: impl Fn(f32, f32) -> f32) -> Row {
    let mut sum = 0f32;
    for x in x {
        sum += x * x;
    }
    let v = spread * sum / 256.0;
    std::array::from_fn(|j| match importance {
        Some(importance) => importance[j] * (v + x[j] * x[j]).sqrt(),
        None => own(v, x[j]),
    })
}

/// Scales as odd multiples of d: (2 l + 1) d, and d, the largest over 31; None where all are 0.
fn odd_scales<const S: usize>(scales: [f32; S], divisor: f32, top: i32) -> Option<(f32, [u8; S])> {
    let peak = scales.iter().fold(0f32, |peak, &s| if s > peak { s } else { peak });
    if peak == 0.0 {
        return None;
    }
    let d = peak / divisor;
    let inverse = 1.0 / d;
    Some((d, scales.map(|s| nearest(0.5 * (inverse * s - 1.0)).clamp(0, top) as u8)))
}

#[inline(always)]
fn blocks<const S: usize, const N: usize, const D: usize>(
    grid: &Grid,
    x: &Row,
    w: &Row,
    rule: &Rule,
) -> [Found; S] {
    let (x, w) = (x.as_chunks::<N>().0, w.as_chunks::<N>().0);
    std::array::from_fn(|k| search::<N, D>(grid, &x[k], &w[k], rule))
}

pub fn encode_iq2_xxs(x: &Row, importance: Option<&[f32]>, out: &mut [u8]) {
    let rule = Rule {
        spread: 1.0,
        even: true,
        tiny: 1e-15,
        top: 2,
        steps: 6,
        step: 0.1,
        again: Again::Always,
    };
    let w = weights(x, importance, rule.spread, |_, x| x * x);
    let found: [Found; 8] = blocks::<8, 32, 8>(&IQ2_XXS, x, &w, &rule);
    out.fill(0);
    let scales = std::array::from_fn(|k| found[k].scale);
    let Some((d, levels)) = odd_scales::<8>(scales, 31.0, 15) else { return };
    write_f16(out, d);
    for (k, f) in found.iter().enumerate() {
        let bytes = &mut out[2 + 8 * k..10 + 8 * k];
        for l in 0..4 {
            bytes[l] = f.indices[l] as u8;
        }
        bytes[4..].copy_from_slice(&seven_bits(&f.signs, levels[k]));
    }
}

/// Four times seven signs and four bits on top.
fn seven_bits(signs: &[u8; 4], top: u8) -> [u8; 4] {
    let word = (0..4).fold(0, |word, l| word | u32::from(signs[l]) << (7 * l));
    (word | u32::from(top) << 28).to_le_bytes()
}

pub fn encode_iq2_xs(x: &Row, importance: Option<&[f32]>, out: &mut [u8]) {
    let rule = Rule {
        spread: 1.0,
        even: true,
        tiny: 1e-15,
        top: 2,
        steps: 9,
        step: 0.1,
        again: Again::Strays,
    };
    let w = weights(x, importance, rule.spread, |_, x| x * x);
    let found: [Found; 16] = blocks::<16, 16, 8>(&IQ2_XS, x, &w, &rule);
    out.fill(0);
    let scales = std::array::from_fn(|k| found[k].scale);
    let Some((d, levels)) = odd_scales::<16>(scales, 31.0, 15) else { return };
    write_f16(out, d);
    for (k, f) in found.iter().enumerate() {
        for l in 0..2 {
            let word = f.indices[l] | u16::from(f.signs[l]) << 9;
            out[2 + 4 * k + 2 * l..][..2].copy_from_slice(&word.to_le_bytes());
        }
        out[66 + k / 2] |= levels[k] << (4 * (k % 2));
    }
}

pub fn encode_iq2_s(x: &Row, importance: Option<&[f32]>, out: &mut [u8]) {
    let rule = Rule {
        spread: 2.0,
        even: false,
        tiny: 1e-8,
        top: 2,
        steps: 9,
        step: 0.1,
        again: Again::Strays,
    };
    let w = weights(x, importance, rule.spread, |v, x| 0.25 * v + x * x);
    let found: [Found; 16] = blocks::<16, 16, 8>(&IQ2_S, x, &w, &rule);
    out.fill(0);
    for (k, f) in found.iter().enumerate().filter(|(_, f)| f.live) {
        for l in 2 * k..2 * k + 2 {
            let index = f.indices[l % 2];
            out[2 + l] = index as u8;
            out[34 + l] = f.signs[l % 2];
            out[66 + l / 4] |= ((index >> 8) << (2 * (l % 4))) as u8;
        }
    }
    let scales = std::array::from_fn(|k| found[k].scale);
    let Some((d, levels)) = odd_scales::<16>(scales, 31.0, 15) else { return };
    write_f16(out, d * 0.9875);
    for (k, level) in levels.iter().enumerate() {
        out[74 + k / 2] |= level << (4 * (k % 2));
    }
}

pub fn encode_iq3_xxs(x: &Row, importance: Option<&[f32]>, out: &mut [u8]) {
    let rule = Rule {
        spread: 2.0,
        even: true,
        tiny: 1e-8,
        top: 7,
        steps: 15,
        step: 0.2,
        again: Again::Strays,
    };
    let w = weights(x, importance, rule.spread, |_, x| x * x);
    let found: [Found; 8] = blocks::<8, 32, 4>(&IQ3_XXS, x, &w, &rule);
    out.fill(0);
    let scales = std::array::from_fn(|k| found[k].scale);
    let Some((d, levels)) = odd_scales::<8>(scales, 31.0, 15) else { return };
    write_f16(out, d * 1.0125);
    for (k, f) in found.iter().enumerate() {
        for l in 0..8 {
            out[2 + 8 * k + l] = f.indices[l] as u8;
        }
        out[66 + 4 * k..70 + 4 * k].copy_from_slice(&seven_bits(&f.signs, levels[k]));
    }
}

pub fn encode_iq3_s(x: &Row, importance: Option<&[f32]>, out: &mut [u8]) {
    let rule = Rule {
        spread: 2.0,
        even: false,
        tiny: 0.0,
        top: 7,
        steps: 9,
        step: 0.2,
        again: Again::AllForOne,
    };
    let w = weights(x, importance, rule.spread, |_, x| x * x);
    let found: [Found; 8] = blocks::<8, 32, 4>(&IQ3_S, x, &w, &rule);
    out.fill(0);
    // As in llama.cpp, a block of zeros takes no place: what lies behind it moves up by one.
    for (place, (k, f)) in found.iter().enumerate().filter(|(_, f)| f.live).enumerate() {
        for l in 0..8 {
            out[2 + 8 * place + l] = f.indices[l] as u8;
            out[66 + k] |= ((f.indices[l] >> 8) << l) as u8;
        }
        out[74 + 4 * place..78 + 4 * place].copy_from_slice(&f.signs);
    }
    let scales = std::array::from_fn(|k| found[k].scale);
    let Some((d, levels)) = odd_scales::<8>(scales, 31.0, 15) else { return };
    write_f16(out, d * 1.033);
    for (k, level) in levels.iter().enumerate() {
        out[106 + k / 2] |= level << (4 * (k % 2));
    }
}

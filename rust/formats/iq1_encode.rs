//! Encoding IQ1_S and IQ1_M: the best split of a block's sorted values into -1, 0 and 1, moved by
//! 1/8 up or down; then the code book's points nearest to it.

#![allow(clippy::needless_range_loop)] // j counts elements across several arrays

use super::grids::IQ1;
use super::search::nearest;
use crate::floats::{to_f16, write_f16};

type Row = [f32; 256];

/// The values of levels 0, 1, 2: moved up, moved down.
const VALUES: [[f32; 3]; 2] = [[-0.875, 0.125, 1.125], [-1.125, -0.125, 0.875]];

/// A block of N: scale, whether each 8 elements are moved down, and their points.
#[derive(Clone, Copy)]
struct Found {
    scale: f32,
    down: [bool; 4],
    indices: [u16; 4],
}

const ZERO: Found = Found { scale: 0.0, down: [false; 4], indices: [0; 4] };

/// The elements' order by value, equal ones as they come.
fn sorted<const N: usize>(x: &[f32; N]) -> [usize; N] {
    let mut order: [usize; N] = std::array::from_fn(|j| j);
    order.sort_by(|&a, &b| x[a].partial_cmp(&x[b]).unwrap_or(std::cmp::Ordering::Equal));
    order
}

/// A split: its scale, where 0 and 1 start in the order, and whether its halves are moved down.
type Split = Option<(f32, usize, usize, [bool; 2])>;

/// All of the block moved one way.
fn split_block(x: &[f32; 32], w: &[f32; 32], order: &[usize; 32]) -> Split {
    let (mut sum_x, mut sum_w) = ([0f32; 33], [0f32; 33]);
    for j in 0..32 {
        sum_x[j + 1] = sum_x[j] + w[order[j]] * x[order[j]];
        sum_w[j + 1] = sum_w[j] + w[order[j]];
    }
    let (mut best, mut score) = (None, -f32::MAX);
    for i in 0..=32 {
        for k in i..=32 {
            for (down, v) in VALUES.iter().enumerate() {
                let a = (sum_x[i] - sum_x[0]) * v[0]
                    + (sum_x[k] - sum_x[i]) * v[1]
                    + (sum_x[32] - sum_x[k]) * v[2];
                let b = (sum_w[i] - sum_w[0]) * v[0] * v[0]
                    + (sum_w[k] - sum_w[i]) * v[1] * v[1]
                    + (sum_w[32] - sum_w[k]) * v[2] * v[2];
                if b > 0.0 && a * a > score * b {
                    let scale = a / b;
                    score = scale * a;
                    best = Some((scale, i, k, [down == 1; 2]));
                }
            }
        }
    }
    best
}

/// Each half of the block moved its own way.
fn split_halves(x: &[f32; 16], w: &[f32; 16], order: &[usize; 16]) -> Split {
    let (mut sum_x, mut sum_w) = ([[0f32; 17]; 2], [[0f32; 17]; 2]);
    for j in 0..16 {
        for half in 0..2 {
            let mine = order[j] / 8 == half;
            let (more_x, more_w) = (w[order[j]] * x[order[j]], w[order[j]]);
            sum_x[half][j + 1] = if mine { sum_x[half][j] + more_x } else { sum_x[half][j] };
            sum_w[half][j + 1] = if mine { sum_w[half][j] + more_w } else { sum_w[half][j] };
        }
    }
    let (mut best, mut score) = (None, -f32::MAX);
    for i in 0..=16 {
        for k in i..=16 {
            let (mut a, mut b) = ([[0f32; 2]; 2], [[0f32; 2]; 2]);
            for half in 0..2 {
                let (x, w) = (&sum_x[half], &sum_w[half]);
                for (down, v) in VALUES.iter().enumerate() {
                    a[half][down] = x[16] * v[2] - (x[i] + x[k]);
                    b[half][down] = w[16] * v[2] * v[2]
                        + w[i] * (v[0] * v[0] - v[1] * v[1])
                        + w[k] * (v[1] * v[1] - v[2] * v[2]);
                }
            }
            for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (a, b) = (a[0][first] + a[1][second], b[0][first] + b[1][second]);
                if b > 0.0 && a * a > score * b {
                    let scale = a / b;
                    score = scale * a;
                    best = Some((scale, i, k, [first == 1, second == 1]));
                }
            }
        }
    }
    best
}

/// The levels of a split, turned over where its scale is negative; then points for them.
fn settle<const N: usize>(x: &[f32; N], w: &[f32; N], order: &[usize; N], split: Split) -> Found {
    let Some((mut scale, i, k, mut down)) = split else { return ZERO };
    let mut levels = [0u8; N];
    for (place, &j) in order.iter().enumerate() {
        levels[j] = if place < i { 0 } else { 1 + u8::from(place >= k) };
    }
    if scale < 0.0 {
        levels = levels.map(|level| 2 - level);
        (scale, down) = (-scale, down.map(|down| !down));
    }
    let down = std::array::from_fn(|eight| down[eight.min(1)]);
    let (mut indices, mut strays) = ([0; 4], false);
    for eight in 0..N / 8 {
        let at = 8 * eight..8 * eight + 8;
        indices[eight] = IQ1.find(&levels[at.clone()]).unwrap_or_else(|near| {
            strays = true;
            closest(near, &x[at.clone()], &w[at.clone()], scale, &VALUES[usize::from(down[eight])])
        });
    }
    if strays {
        let (mut a, mut b) = (0f32, 0f32);
        for j in 0..N {
            let point = &IQ1.points[usize::from(indices[j / 8])];
            let q = VALUES[usize::from(down[j / 8])][usize::from(point[j % 8])];
            a += w[j] * q * x[j];
            b += w[j] * q * q;
        }
        scale = if a > 0.0 && b > 0.0 { a / b } else { scale };
    }
    Found { scale, down, indices }
}

/// The first of the points `near` with the smallest weighted distance from x.
fn closest(near: &[u16], x: &[f32], w: &[f32], scale: f32, values: &[f32; 3]) -> u16 {
    let mut best = (near[0], f32::MAX);
    for &index in near {
        let (point, mut distance) = (&IQ1.points[usize::from(index)], 0f32);
        for j in 0..8 {
            let off = scale * values[usize::from(point[j])] - x[j];
            distance += w[j] * off * off;
        }
        if distance < best.1 {
            best = (index, distance);
        }
    }
    best.0
}

fn peak(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |peak, x| if x.abs() > peak { x.abs() } else { peak })
}

/// Importance sqrt(v + x^2) with v twice the mean of squares; x^2 without importance.
fn weights(x: &Row, importance: Option<&[f32]>) -> Row {
    let mut sum = 0f32;
    for x in x {
        sum += x * x;
    }
    let v = 2.0 * sum / 256.0;
    std::array::from_fn(|j| match importance {
        Some(importance) => importance[j] * (v + x[j] * x[j]).sqrt(),
        None => x[j] * x[j],
    })
}

pub fn encode_iq1_s(x: &Row, importance: Option<&[f32]>, out: &mut [u8]) {
    let w = weights(x, importance);
    let (xs, ws) = (x.as_chunks::<32>().0, w.as_chunks::<32>().0);
    out.fill(0);
    let mut found = [ZERO; 8];
    let mut high = [0u16; 8];
    for k in 0..8 {
        if peak(&xs[k]) < 1e-12 {
            continue;
        }
        let order = sorted(&xs[k]);
        found[k] = settle(&xs[k], &ws[k], &order, split_block(&xs[k], &ws[k], &order));
        for l in 0..4 {
            out[2 + 4 * k + l] = found[k].indices[l] as u8;
            high[k] |= found[k].indices[l] >> 8 << (3 * l);
        }
    }
    let largest = found.iter().fold(0f32, |peak, f| if f.scale > peak { f.scale } else { peak });
    if largest != 0.0 {
        let d = largest / 15.0;
        write_f16(out, d * 1.125);
        let inverse = 1.0 / d;
        for (k, f) in found.iter().enumerate() {
            let level = nearest(0.5 * (inverse * f.scale - 1.0)).clamp(0, 7) as u16;
            high[k] |= (level | u16::from(f.down[0]) << 3) << 12;
        }
    }
    for (bytes, high) in out[34..].chunks_exact_mut(2).zip(high) {
        bytes.copy_from_slice(&high.to_le_bytes());
    }
}

pub fn encode_iq1_m(x: &Row, importance: Option<&[f32]>, out: &mut [u8]) {
    let w = weights(x, importance);
    let (xs, ws) = (x.as_chunks::<16>().0, w.as_chunks::<16>().0);
    out.fill(0);
    let mut found = [ZERO; 16];
    for k in 0..16 {
        if peak(&xs[k]) < 1e-7 {
            continue;
        }
        let order = sorted(&xs[k]);
        found[k] = settle(&xs[k], &ws[k], &order, split_halves(&xs[k], &ws[k], &order));
        let [first, second, ..] = found[k].indices;
        (out[2 * k], out[2 * k + 1]) = (first as u8, second as u8);
        out[32 + k] = ((first >> 8) | (second >> 8) << 4) as u8;
    }
    let largest = found.iter().fold(0f32, |peak, f| if f.scale > peak { f.scale } else { peak });
    if largest == 0.0 {
        return;
    }
    let inverse = 1.0 / (largest / 15.0);
    let (mut words, mut a, mut b) = ([0u16; 4], 0f32, 0f32);
    for (k, f) in found.iter().enumerate() {
        let level = nearest(0.5 * (inverse * f.scale - 1.0)).clamp(0, 7);
        words[k / 4] |= (level as u16) << (3 * (k % 4));
        for l in 0..2 {
            out[32 + k] |= u8::from(f.down[l]) << (3 + 4 * l);
        }
        for j in 0..16 {
            let point = &IQ1.points[usize::from(f.indices[j / 8])];
            let value = VALUES[usize::from(f.down[j / 8])][usize::from(point[j % 8])];
            let q = value * (2 * level + 1) as f32;
            a += ws[k][j] * q * xs[k][j];
            b += ws[k][j] * q * q;
        }
    }
    let d = to_f16((if b > 0.0 { a / b } else { largest / 15.0 }) * 1.1125);
    for (l, (word, bytes)) in words.iter().zip(out[48..].chunks_exact_mut(2)).enumerate() {
        bytes.copy_from_slice(&(word | (d >> (4 * l) & 15) << 12).to_le_bytes());
    }
}

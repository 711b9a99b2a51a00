//! Error feedback (GPTQ, LDLQ): each column is rounded to make up for the errors before it.
//!
//! With H = L D L^T, tr(E H E^T) is the sum of D_p (E L)_p^2, and (E L)_p depends on the errors of
//! the columns from p on. Columns are rounded from the last to the first, each to the level next
//! to w_p + sum over k > p of E_k L_kp, so that each term is least given those before it. The
//! columns with the largest diagonals come last, that is first to be rounded.

#![allow(clippy::needless_range_loop)] // lanes count across several arrays

use super::matrix::{Factor, View, ViewMut, factor, multiversion, product};
use super::metric::square;
use super::scheme::{Scheme, decoded};
use crate::error::{Error, Result};
use crate::formats::QuantizedRow;

/// Rows that are rounded together, a vector lane each.
pub const LANES: usize = 24;
/// Columns whose errors reach each other at once; those of the others arrive as a product.
const BLOCK: usize = 64;
/// How often the damping is raised before a matrix is refused.
const ATTEMPTS: usize = 8;

/// The order in which some of the columns are rounded, last one first, and their factor.
pub struct Order {
    pub columns: Vec<usize>,
    pub factor: Factor,
    /// What was added to the diagonal.
    pub added: f64,
}

impl Order {
    /// The order and factor of the columns `first..first + count` of a covariance of [size, size].
    ///
    /// `added` to the diagonal grows tenfold until the matrix has a factor.
    ///
    /// # Errors
    ///
    /// `Format` where it does not get one, `Memory` where it has no place.
    pub fn new(
        covariance: &[f64],
        size: usize,
        range: std::ops::Range<usize>,
        added: f64,
    ) -> Result<Self> {
        let diagonal = |j: usize| covariance[j * size + j];
        let mut columns: Vec<usize> = range.collect();
        columns.sort_by(|&a, &b| diagonal(a).total_cmp(&diagonal(b)).then(b.cmp(&a)));
        Self::of(covariance, size, columns, added)
    }

    /// As `new`, of columns in an order of the caller's.
    ///
    /// # Errors
    ///
    /// As `new`.
    pub fn of(covariance: &[f64], size: usize, columns: Vec<usize>, added: f64) -> Result<Self> {
        let count = columns.len();
        let mut added = added;
        for _ in 0..ATTEMPTS {
            let mut matrix = square(count)?;
            for (out, &i) in matrix.chunks_exact_mut(count.max(1)).zip(&columns) {
                for (out, &j) in out.iter_mut().zip(&columns) {
                    *out = covariance[i.max(j) * size + i.min(j)];
                }
            }
            for p in 0..count {
                matrix[p * count + p] += added;
            }
            if let Some(factor) = factor(matrix, count) {
                return Ok(Self { columns, factor, added });
            }
            added *= 10.0;
        }
        Err(Error::format(
            "the covariance is far from positive definite: it has no Cholesky factor",
        )
        .hint("a covariance is the mean of x x^T over tokens; is it one?"))
    }
}

/// tr(E H E^T) of a row before and after; H without what was added to its diagonal.
#[derive(Clone, Copy, Default)]
pub struct Objective {
    pub before: f64,
    pub after: f64,
}

/// Scales of a tile of rows by group, a lane each.
struct Groups {
    scale: Vec<[f32; LANES]>,
    min: Vec<[f32; LANES]>,
    /// 1 / scale, 0 where the scale is.
    inverse: Vec<[f64; LANES]>,
}

impl Groups {
    fn new(rows: &[QuantizedRow]) -> Self {
        let count = rows[0].scale.len();
        let mut out = Self {
            scale: vec![[0.0; LANES]; count],
            min: vec![[0.0; LANES]; count],
            inverse: vec![[0.0; LANES]; count],
        };
        for (lane, row) in rows.iter().enumerate() {
            for k in 0..count {
                let scale = row.scale[k];
                (out.scale[k][lane], out.min[k][lane]) = (scale, row.min[k]);
                out.inverse[k][lane] = if scale == 0.0 { 0.0 } else { 1.0 / f64::from(scale) };
            }
        }
        out
    }
}

/// A tile of rows and what becomes of it.
pub struct Tile<'a> {
    pub scheme: &'a Scheme,
    /// [rows, columns]
    pub weights: &'a [f32],
    pub columns: usize,
    pub rows: &'a mut [QuantizedRow],
    pub objectives: &'a mut [Objective],
}

multiversion! {
    /// Rounds a tile of up to `LANES` rows with the scales that it has.
    pub fn feed_back(tile: &mut Tile, orders: &[Order]) = feed_back_anywhere
}

#[inline(always)]
fn feed_back_anywhere(tile: &mut Tile, orders: &[Order]) {
    let groups = Groups::new(tile.rows);
    for order in orders {
        let count = order.columns.len();
        let mut errors = vec![0f64; LANES * count];
        errors_before(tile, order, &mut errors);
        let mut first = count.next_multiple_of(BLOCK);
        while first > 0 {
            first -= BLOCK;
            let last = count.min(first + BLOCK);
            let mut sums = [[0f64; BLOCK]; LANES];
            weigh(&errors, order, first..last, first, &mut sums);
            for (lane, objective) in tile.objectives.iter_mut().enumerate() {
                for p in first..last {
                    let (sum, e) = (sums[lane][p - first], errors[lane * count + p]);
                    objective.before += order.factor.pivots[p] * sum * sum - order.added * e * e;
                }
            }
        }
        errors.fill(0.0);
        let mut first = count.next_multiple_of(BLOCK);
        while first > 0 {
            first -= BLOCK;
            let last = count.min(first + BLOCK);
            let mut sums = [[0f64; BLOCK]; LANES];
            weigh(&errors, order, first..last, last, &mut sums);
            round_block(tile, &groups, order, first..last, &sums, &mut errors);
        }
    }
}

/// The errors of the rows as they are, in the order of rounding.
#[inline(always)]
fn errors_before(tile: &Tile, order: &Order, errors: &mut [f64]) {
    let (count, mut natural) = (order.columns.len(), vec![0.0; tile.columns]);
    for (lane, row) in tile.rows.iter().enumerate() {
        let weights = &tile.weights[lane * tile.columns..][..tile.columns];
        tile.scheme.errors(row, weights, &mut natural);
        for (out, &j) in errors[lane * count..].iter_mut().zip(&order.columns) {
            *out = natural[j];
        }
    }
}

/// E L of the columns `range`, of errors from `from` on.
#[inline(always)]
fn weigh(
    errors: &[f64],
    order: &Order,
    range: std::ops::Range<usize>,
    from: usize,
    sums: &mut [[f64; BLOCK]; LANES],
) {
    let count = order.columns.len();
    let mut out = ViewMut { data: sums.as_flattened_mut(), stride: BLOCK };
    let a = View { data: &errors[from.min(count)..], stride: count };
    let b = View {
        data: &order.factor.lower[(from * count + range.start).min(count * count)..],
        stride: count,
    };
    if from < count {
        product(&mut out, a, b, [LANES, count - from, range.len()], 1.0);
    }
}

/// Rounds the columns `range` of the order, the last one first.
#[inline(always)]
fn round_block(
    tile: &mut Tile,
    groups: &Groups,
    order: &Order,
    range: std::ops::Range<usize>,
    sums: &[[f64; BLOCK]; LANES],
    errors: &mut [f64],
) {
    let (count, first) = (order.columns.len(), range.start);
    let mut fed = [[0f64; LANES]; BLOCK];
    for (p, fed) in fed.iter_mut().enumerate() {
        for lane in 0..LANES {
            fed[lane] = sums[lane][p];
        }
    }
    for p in range.rev() {
        let error = round_column(tile, groups, order, p, &fed[p - first]);
        for lane in 0..tile.rows.len() {
            errors[lane * count + p] = error[lane];
        }
        let factors = &order.factor.lower[p * count + first..p * count + p];
        for (fed, &factor) in fed.iter_mut().zip(factors) {
            for lane in 0..LANES {
                fed[lane] += error[lane] * factor;
            }
        }
    }
}

/// Rounds column `p` of the order with what other columns feed into it; returns its errors.
#[inline(always)]
fn round_column(
    tile: &mut Tile,
    groups: &Groups,
    order: &Order,
    p: usize,
    fed: &[f64; LANES],
) -> [f64; LANES] {
    let (column, k) = (order.columns[p], order.columns[p] / tile.scheme.group());
    let (mut weights, mut target, mut error) = ([0f64; LANES], *fed, [0f64; LANES]);
    for lane in 0..tile.rows.len() {
        weights[lane] = f64::from(tile.weights[lane * tile.columns + column]);
    }
    for lane in 0..LANES {
        target[lane] += weights[lane];
    }
    let (places, levels) = if tile.scheme.levels.uniform {
        next_integers(tile.scheme, &target, groups, k)
    } else {
        next_of_table(tile.scheme, &target, groups, k)
    };
    for lane in 0..LANES {
        let (scale, min) = (groups.scale[k][lane], groups.min[k][lane]);
        error[lane] = weights[lane] - decoded(scale, levels[lane] as f32, min);
    }
    for (lane, row) in tile.rows.iter_mut().enumerate() {
        if groups.scale[k][lane] != 0.0 {
            row.codes[column] = tile.scheme.levels.codes[usize::from(places[lane])];
        }
    }
    for (lane, objective) in tile.objectives.iter_mut().enumerate() {
        let (rest, e) = (target[lane] - weights[lane] + error[lane], error[lane]);
        objective.after += order.factor.pivots[p] * rest * rest - order.added * e * e;
    }
    error
}

/// The integers next to the targets, as places among the levels and as levels.
#[inline(always)]
fn next_integers(
    scheme: &Scheme,
    target: &[f64; LANES],
    groups: &Groups,
    k: usize,
) -> ([u8; LANES], [f64; LANES]) {
    let (min, inverse) = (&groups.min[k], &groups.inverse[k]);
    let (mut places, mut levels) = ([0u8; LANES], [0f64; LANES]);
    let (low, high) = scheme.levels.ends();
    for lane in 0..LANES {
        let x = (target[lane] - f64::from(min[lane])) * inverse[lane];
        let x = if x > low { x } else { low };
        let x = if x < high { x } else { high };
        // Adding 1.5 * 2^52 rounds to an integer, ties to even.
        levels[lane] = x + 6_755_399_441_055_744.0 - 6_755_399_441_055_744.0;
    }
    for lane in 0..LANES {
        places[lane] = (levels[lane] - low) as u8;
    }
    (places, levels)
}

/// As `next_integers`, of a table of levels.
#[inline(always)]
fn next_of_table(
    scheme: &Scheme,
    target: &[f64; LANES],
    groups: &Groups,
    k: usize,
) -> ([u8; LANES], [f64; LANES]) {
    let (min, inverse) = (&groups.min[k], &groups.inverse[k]);
    let (mut places, mut levels) = ([0u8; LANES], [scheme.levels.ends().0; LANES]);
    let steps = scheme.levels.values.windows(2);
    for (&middle, pair) in scheme.levels.middles.iter().zip(steps) {
        let step = f64::from(pair[1] - pair[0]);
        for lane in 0..LANES {
            let x = (target[lane] - f64::from(min[lane])) * inverse[lane];
            let beyond = x >= middle;
            levels[lane] += if beyond { step } else { 0.0 };
            places[lane] += u8::from(beyond);
        }
    }
    (places, levels)
}

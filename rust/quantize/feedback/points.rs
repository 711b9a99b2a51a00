//! Feedback and descent with points of a code book: eight columns at a time, scales as they are.
//!
//! With H = L D L^T the errors e of eight columns cost sum of D_p ((e L)_p + a_p)^2, a what
//! the columns after them feed in: a quadratic in e, whose least point is searched.

#![allow(clippy::needless_range_loop)] // i and j count across several arrays

use super::matrix::{View, ViewMut, multiversion, product};
use super::metric::{Metric, subtract};
use super::point_search::Target;
use super::rounding::{LANES, Order};
use crate::formats::{Eight, Points};

/// Columns whose errors reach each other at once.
const BLOCK: usize = 64;

/// Rows of a format with a code book.
pub struct PointRows<'a> {
    pub points: &'a Points,
    /// [rows, columns]
    pub weights: &'a [f32],
    pub columns: usize,
    /// The encoded rows.
    pub bytes: &'a mut [u8],
    /// What they hold by eight columns, [rows, columns / 8]; `write` stores it.
    pub eights: Vec<Eight>,
    pub costs: &'a mut [f64],
}

impl PointRows<'_> {
    fn count(&self) -> usize {
        self.costs.len()
    }

    fn row_bytes(&self) -> usize {
        self.columns / 256 * self.points.format.block_bytes()
    }

    /// weights - values of row `r`, and the magnitude of the scale of each 8 columns.
    fn errors(&self, r: usize, errors: &mut [f64]) -> Vec<f64> {
        let bytes = &self.bytes[r * self.row_bytes()..][..self.row_bytes()];
        let mut values = vec![0f32; self.columns];
        self.points.format.decode_row(bytes, &mut values);
        for (j, error) in errors.iter_mut().enumerate() {
            *error = f64::from(self.weights[r * self.columns + j]) - f64::from(values[j]);
        }
        let group = self.points.format.codes().map_or(32, |codes| codes.group);
        let (mut q, groups) = (vec![0; self.columns], self.columns / group);
        let (mut scale, mut min) = (vec![0f32; groups], vec![0f32; groups]);
        self.points.format.unpack_stored(bytes, self.columns, &mut q, &mut scale, &mut min);
        (0..self.columns / 8).map(|l| f64::from(scale[8 * l / group].abs())).collect()
    }

    /// Reads all points.
    pub fn read(&mut self) {
        let (points, size) = (self.points, self.points.format.block_bytes());
        let blocks = self.bytes.chunks_exact(size);
        self.eights = blocks.flat_map(|block| (0..32).map(|l| points.read(block, l))).collect();
    }

    /// Stores all points.
    pub fn write(&mut self) {
        let blocks = self.bytes.chunks_exact_mut(self.points.format.block_bytes());
        for (block, eights) in blocks.zip(self.eights.chunks_exact(32)) {
            for (l, &eight) in eights.iter().enumerate() {
                self.points.write(block, l, eight);
            }
        }
    }

    /// Chooses eight columns of row `r` anew; None unless they cost less than `bound`.
    #[inline(always)]
    fn choose(&mut self, r: usize, eighth: usize, target: &Target, bound: f64) -> Option<[f64; 8]> {
        let eight = &mut self.eights[r * self.columns / 8 + eighth];
        let choice = target.choose(self.points, eight.signs & 1);
        if choice.cost >= bound {
            return None;
        }
        *eight = choice.eight;
        Some(target.values(self.points, choice.eight))
    }
}

/// The order of columns: eights by their diagonals, the largest last.
pub fn order_of(covariance: &[f64], size: usize) -> Vec<usize> {
    let sum = |l: usize| (8 * l..8 * l + 8).map(|j| covariance[j * size + j]).sum::<f64>();
    let mut eights: Vec<(f64, usize)> = (0..size / 8).map(|l| (sum(l), l)).collect();
    eights.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    eights.iter().flat_map(|&(_, l)| 8 * l..8 * l + 8).collect()
}

/// M of eight columns, and its inverse.
struct Local {
    m: [[f64; 8]; 8],
    inverse: [[f64; 8]; 8],
}

impl Local {
    fn new(m: [[f64; 8]; 8]) -> Self {
        Self { m, inverse: inverse(&m) }
    }

    /// L D L^T of the columns from `first` on of an order.
    fn of_order(order: &Order, first: usize) -> Self {
        let (n, mut m) = (order.columns.len(), [[0.0; 8]; 8]);
        let lower = |i: usize, k: usize| order.factor.lower[(first + i) * n + first + k];
        for i in 0..8 {
            for j in 0..8 {
                m[i][j] = (0..=i.min(j))
                    .map(|k| lower(i, k) * order.factor.pivots[first + k] * lower(j, k))
                    .sum();
            }
        }
        Self::new(m)
    }

    /// H of the columns from `first` on.
    fn of_metric(metric: &Metric, first: usize) -> Self {
        let mut m = [[0.0; 8]; 8];
        for (i, m) in m.iter_mut().enumerate() {
            m.copy_from_slice(&metric.matrix[(first + i) * metric.size + first..][..8]);
        }
        Self::new(m)
    }

    #[inline(always)]
    fn target(&self, b: [f64; 8], scale: f64) -> Target<'_> {
        Target { m: &self.m, b, t: times(&self.inverse, &b), scale }
    }
}

#[inline(always)]
fn times(m: &[[f64; 8]; 8], x: &[f64; 8]) -> [f64; 8] {
    let mut out = [0.0; 8];
    for i in 0..8 {
        for j in 0..8 {
            out[i] += m[i][j] * x[j];
        }
    }
    out
}

/// The inverse of a positive definite matrix, by Gauss and Jordan.
fn inverse(m: &[[f64; 8]; 8]) -> [[f64; 8]; 8] {
    let (mut a, mut out) = (*m, [[0.0; 8]; 8]);
    for (i, line) in out.iter_mut().enumerate() {
        line[i] = 1.0;
    }
    for i in 0..8 {
        let pivot = if a[i][i] > 0.0 { 1.0 / a[i][i] } else { 0.0 };
        (a[i], out[i]) = (a[i].map(|x| x * pivot), out[i].map(|x| x * pivot));
        for k in 0..8 {
            let factor = a[k][i];
            if k != i && factor != 0.0 {
                for j in 0..8 {
                    a[k][j] -= factor * a[i][j];
                    out[k][j] -= factor * out[i][j];
                }
            }
        }
    }
    out
}

multiversion! {
    /// Error feedback in a tile of up to `LANES` rows.
    pub fn feed_back(rows: &mut PointRows, order: &Order) = feed_back_anywhere
}

#[inline(always)]
fn feed_back_anywhere(rows: &mut PointRows, order: &Order) {
    rows.read();
    let (count, n) = (rows.count(), rows.columns);
    let locals: Vec<Local> = (0..n / 8).map(|l| Local::of_order(order, 8 * l)).collect();
    let (mut natural, mut errors) = (vec![0.0; n], vec![0f64; LANES * n]);
    let mut scales = vec![];
    for r in 0..count {
        scales.push(rows.errors(r, &mut natural));
    }
    for first in (0..n).step_by(BLOCK).rev() {
        let last = n.min(first + BLOCK);
        let mut sums = [[0f64; BLOCK]; LANES];
        if last < n {
            let mut out = ViewMut { data: sums.as_flattened_mut(), stride: BLOCK };
            let a = View { data: &errors[last..], stride: n };
            let b = View { data: &order.factor.lower[last * n + first..], stride: n };
            product(&mut out, a, b, [LANES, n - last, last - first], 1.0);
        }
        for r in 0..count {
            for at in (first..last).step_by(8).rev() {
                let fed = sums[r][at - first..].first_chunk().expect("eight columns");
                let scale = scales[r][order.columns[at] / 8];
                let e = round_eight(rows, order, &locals[at / 8], (r, at), fed, scale);
                errors[r * n + at..r * n + at + 8].copy_from_slice(&e);
                for (k, &e) in e.iter().enumerate() {
                    let line = &order.factor.lower[(at + k) * n + first..(at + k) * n + at];
                    subtract(&mut sums[r][..at - first], line, -e);
                }
            }
        }
    }
    rows.write();
}

/// Rounds eight columns of row `r` at position `at` of the order; returns their errors.
#[inline(always)]
fn round_eight(
    rows: &mut PointRows,
    order: &Order,
    local: &Local,
    (r, at): (usize, usize),
    fed: &[f64; 8],
    scale: f64,
) -> [f64; 8] {
    let (n, column) = (rows.columns, order.columns[at]);
    let w: [f64; 8] = std::array::from_fn(|j| f64::from(rows.weights[r * n + column + j]));
    let mut b = times(&local.m, &w);
    for i in 0..8 {
        for j in 0..=i {
            let line = &order.factor.lower[(at + i) * n + at..];
            b[i] += line[j] * (order.factor.pivots[at + j] * fed[j]);
        }
    }
    if scale == 0.0 {
        return w;
    }
    match rows.choose(r, column / 8, &local.target(b, scale), f64::INFINITY) {
        Some(values) => std::array::from_fn(|j| w[j] - values[j]),
        None => w,
    }
}

multiversion! {
    /// Coordinate descent over the points of a tile of rows; sets what they cost.
    pub fn descend(rows: &mut PointRows, metric: &Metric, sweeps: usize) = descend_anywhere
}

#[inline(always)]
fn descend_anywhere(rows: &mut PointRows, metric: &Metric, sweeps: usize) {
    rows.read();
    let (count, n) = (rows.count(), rows.columns);
    let locals: Vec<Local> = (0..n / 8).map(|l| Local::of_metric(metric, 8 * l)).collect();
    let (mut errors, mut gradient) = (vec![0.0; count * n], vec![0.0; count * n]);
    let mut scales = vec![];
    for r in 0..count {
        scales.push(rows.errors(r, &mut errors[r * n..(r + 1) * n]));
    }
    let mut out = ViewMut { data: &mut gradient, stride: n };
    let (a, b) = (View { data: &errors, stride: n }, View { data: &metric.matrix, stride: n });
    product(&mut out, a, b, [count, n, n], 1.0);
    for r in 0..count {
        let (e, g) = (&mut errors[r * n..(r + 1) * n], &mut gradient[r * n..(r + 1) * n]);
        for _ in 0..sweeps {
            let mut changed = false;
            for at in (0..n).step_by(8) {
                let (local, scale) = (&locals[at / 8], scales[r][at / 8]);
                changed |= scale != 0.0 && move_eight(rows, metric, local, (r, at), e, g, scale);
            }
            if !changed {
                break;
            }
        }
        let pairs = e.iter().zip(g.iter());
        rows.costs[r] = pairs.map(|(e, g)| e * (g - metric.added * e)).sum();
    }
    rows.write();
}

/// Moves eight columns of row `r` to better points; true if they changed.
#[inline(always)]
fn move_eight(
    rows: &mut PointRows,
    metric: &Metric,
    local: &Local,
    (r, at): (usize, usize),
    errors: &mut [f64],
    gradient: &mut [f64],
    scale: f64,
) -> bool {
    let n = rows.columns;
    let old: [f64; 8] =
        std::array::from_fn(|j| f64::from(rows.weights[r * n + at + j]) - errors[at + j]);
    let mut b = times(&local.m, &old);
    for j in 0..8 {
        b[j] += gradient[at + j];
    }
    let target = local.target(b, scale);
    let cost = target.cost_of(&old);
    // Rounding must not make two choices take turns.
    let bound = cost - 1e-12 * cost.abs();
    let Some(new) = rows.choose(r, at / 8, &target, bound) else { return false };
    for j in 0..8 {
        let change = new[j] - old[j];
        errors[at + j] -= change;
        subtract(gradient, &metric.matrix[(at + j) * n..(at + j + 1) * n], change);
    }
    true
}

//! Coordinate descent: codes, then scales, each set to the minimum of tr(E H E^T) given all others.
//!
//! The gradient E H is kept, so that a code's best value is the level next to
//! V + (E H)_j / H_jj, and a change costs one row of H.

use super::matrix::{View, ViewMut, multiversion, product};
use super::rounding::Objective;
use super::scales::step_scales;
use super::scheme::{Scheme, decoded};
use crate::formats::QuantizedRow;

/// A symmetric matrix H of [size, size] with what was added to its diagonal.
pub struct Metric {
    pub matrix: Vec<f64>,
    pub size: usize,
    /// 1 / H_jj, 0 where H_jj is.
    pub inverse: Vec<f64>,
    pub added: f64,
}

impl Metric {
    /// The `covariance` with `added` to its diagonal.
    pub fn new(covariance: &[f64], size: usize, added: f64) -> Self {
        let mut matrix = covariance.to_vec();
        let inverse = |x: f64| if x > 0.0 { 1.0 / x } else { 0.0 };
        for j in 0..size {
            matrix[j * size + j] += added;
        }
        let inverse = (0..size).map(|j| inverse(matrix[j * size + j])).collect();
        Self { matrix, size, inverse, added }
    }
}

/// Rows with their errors and the gradient, [rows, columns].
pub struct State<'a> {
    pub scheme: &'a Scheme,
    pub metric: &'a Metric,
    pub weights: &'a [f32],
    pub rows: &'a mut [QuantizedRow],
    pub errors: Vec<f64>,
    /// E H.
    pub gradient: Vec<f64>,
}

/// How often to go over codes and scales.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The most sweeps over the codes each time.
    pub sweeps: usize,
    /// How often scales follow, and codes again.
    pub rounds: usize,
}

multiversion! {
    /// Improves rows of `weights` by descent; returns their objectives in `after`.
    pub fn descend(
        scheme: &Scheme,
        metric: &Metric,
        weights: &[f32],
        rows: &mut [QuantizedRow],
        effort: Effort,
        objectives: &mut [Objective],
    ) = descend_anywhere
}

#[inline(always)]
fn descend_anywhere(
    scheme: &Scheme,
    metric: &Metric,
    weights: &[f32],
    rows: &mut [QuantizedRow],
    effort: Effort,
    objectives: &mut [Objective],
) {
    let (count, size) = (rows.len(), metric.size);
    let mut state = State {
        scheme,
        metric,
        weights,
        rows,
        errors: vec![0.0; count * size],
        gradient: vec![0.0; count * size],
    };
    state.start();
    state.sweeps(effort.sweeps);
    for _ in 0..effort.rounds {
        step_scales(&mut state);
        state.sweeps(effort.sweeps);
    }
    for (row, objective) in objectives.iter_mut().enumerate() {
        objective.after = state.objective(row);
    }
}

impl State<'_> {
    /// Computes errors and gradient.
    #[inline(always)]
    fn start(&mut self) {
        let (count, size) = (self.rows.len(), self.metric.size);
        for (row, errors) in self.rows.iter().zip(self.errors.chunks_exact_mut(size)) {
            self.scheme.errors(row, &self.weights[..size], errors);
            self.weights = &self.weights[size..];
        }
        let mut out = ViewMut { data: &mut self.gradient, stride: size };
        let a = View { data: &self.errors, stride: size };
        let b = View { data: &self.metric.matrix, stride: size };
        product(&mut out, a, b, [count, size, size], 1.0);
    }

    /// tr(E H E^T) of a row, without what was added to the diagonal.
    #[inline(always)]
    fn objective(&self, row: usize) -> f64 {
        let size = self.metric.size;
        let range = row * size..(row + 1) * size;
        let pairs = self.errors[range.clone()].iter().zip(&self.gradient[range]);
        pairs.map(|(e, g)| e * (g - self.metric.added * e)).sum()
    }

    /// Goes over the codes of each row until none changes, at most `most` times.
    #[inline(always)]
    fn sweeps(&mut self, most: usize) {
        let size = self.metric.size;
        let states = self.errors.chunks_exact_mut(size).zip(self.gradient.chunks_exact_mut(size));
        for (row, (errors, gradient)) in self.rows.iter_mut().zip(states) {
            for _ in 0..most {
                if !sweep(self.scheme, self.metric, row, errors, gradient) {
                    break;
                }
            }
        }
    }
}

/// Sets each code of a row to its best level; true if one changed.
#[inline(always)]
fn sweep(
    scheme: &Scheme,
    metric: &Metric,
    row: &mut QuantizedRow,
    errors: &mut [f64],
    gradient: &mut [f64],
) -> bool {
    let mut changed = false;
    let (group, size, levels) = (scheme.group(), metric.size, &scheme.levels);
    for k in 0..row.scale.len() {
        let (scale, min) = (row.scale[k], row.min[k]);
        if scale == 0.0 {
            continue;
        }
        let inverse = 1.0 / f64::from(scale);
        for j in k * group..size.min((k + 1) * group) {
            let value = decoded(scale, scheme.level(row.codes[j]), min);
            let target = value + gradient[j] * metric.inverse[j];
            let place = levels.nearest((target - f64::from(min)) * inverse);
            if levels.codes[place] == row.codes[j] {
                continue;
            }
            let change = decoded(scale, levels.values[place], min) - value;
            let line = &metric.matrix[j * size..(j + 1) * size];
            if change * (change * line[j] - 2.0 * gradient[j]) < 0.0 {
                row.codes[j] = levels.codes[place];
                errors[j] -= change;
                subtract(gradient, line, change);
                changed = true;
            }
        }
    }
    changed
}

/// out -= line * factor.
#[inline(always)]
pub fn subtract(out: &mut [f64], line: &[f64], factor: f64) {
    for (out, x) in out.iter_mut().zip(line) {
        *out -= x * factor;
    }
}

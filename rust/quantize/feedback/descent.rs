//! Coordinate descent: codes, then scales, each set to the minimum of tr(E H E^T) given all others.
//!
//! The gradient E H is kept, so that a code's best value is the level next to
//! V + (E H)_j / H_jj, and a change costs one row of H.

use super::matrix::{View, ViewMut, multiversion, product};
use super::metric::{Metric, State, subtract};
use super::problem::Effort;
use super::rounding::Objective;
use super::scales::step_scales;
use super::scheme::{Scheme, decoded};
use crate::formats::QuantizedRow;

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

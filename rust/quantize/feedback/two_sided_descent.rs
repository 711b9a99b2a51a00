//! Coordinate descent in tr(G E H E^T): as `descent.rs` and `scales.rs`, but a change in one row
//! moves the gradient G E H of all rows, so rows follow one another.

#![allow(clippy::needless_range_loop)] // r and j count across several arrays

use rayon::prelude::*;

use super::matrix::{View, ViewMut, multiversion, product};
use super::metric::{Metric, subtract};
use super::problem::Effort;
use super::scales::{Block, span_width, step_row};
use super::scheme::{Scheme, decoded};
use crate::formats::QuantizedRow;

/// Columns whose gradient is computed at once.
const BLOCK: usize = 64;
/// Rows of a product that a thread computes at once.
const ROWS: usize = 24;

/// Rows that descend together.
pub struct Rows<'a> {
    pub scheme: &'a Scheme,
    pub rows: &'a mut [QuantizedRow],
    pub inputs: &'a Metric,
    pub outputs: &'a Metric,
    /// weights - values
    errors: Vec<f64>,
}

impl<'a> Rows<'a> {
    /// Computes the errors of the rows.
    pub fn new(
        scheme: &'a Scheme,
        weights: &'a [f32],
        rows: &'a mut [QuantizedRow],
        inputs: &'a Metric,
        outputs: &'a Metric,
    ) -> Self {
        let size = inputs.size;
        let mut errors = vec![0.0; rows.len() * size];
        errors
            .par_chunks_exact_mut(size)
            .zip(weights.par_chunks_exact(size))
            .zip(rows.par_iter())
            .for_each(|((errors, weights), row)| scheme.errors(row, weights, errors));
        Self { scheme, rows, inputs, outputs, errors }
    }

    /// Codes, then `rounds` times scales and codes.
    pub fn descend(&mut self, effort: Effort) {
        self.sweeps(effort.sweeps);
        for _ in 0..effort.rounds {
            self.step_scales();
            self.sweeps(effort.sweeps);
        }
    }

    /// tr(G E H E^T), without what was added to the diagonals.
    pub fn objective(&self) -> f64 {
        let (count, size, mut total) = (self.rows.len(), self.inputs.size, 0.0);
        for first in (0..size).step_by(BLOCK) {
            let width = BLOCK.min(size - first);
            let mut eh = self.errors_times_inputs(first, width);
            for (r, eh) in eh.chunks_exact_mut(width).enumerate() {
                subtract(eh, &self.errors[r * size + first..][..width], self.inputs.added);
            }
            let mut geh = vec![0.0; count * width];
            let b = View { data: &eh, stride: width };
            multiply(&self.outputs.matrix, count, b, width, &mut geh);
            subtract(&mut geh, &eh, self.outputs.added);
            for (r, geh) in geh.chunks_exact(width).enumerate() {
                let errors = &self.errors[r * size + first..][..width];
                total += errors.iter().zip(geh).map(|(e, g)| e * g).sum::<f64>();
            }
        }
        total
    }

    /// E H of the columns `first..first + width`, [rows, width].
    fn errors_times_inputs(&self, first: usize, width: usize) -> Vec<f64> {
        let (count, size) = (self.rows.len(), self.inputs.size);
        let mut out = vec![0.0; count * width];
        let h = View { data: &self.inputs.matrix[first..], stride: size };
        multiply(&self.errors, size, h, width, &mut out);
        out
    }

    /// G E H of the columns `first..first + width`, [rows, width].
    fn gradient(&self, first: usize, width: usize) -> Vec<f64> {
        let eh = self.errors_times_inputs(first, width);
        let (count, mut out) = (self.rows.len(), vec![0.0; eh.len()]);
        let b = View { data: &eh, stride: width };
        multiply(&self.outputs.matrix, count, b, width, &mut out);
        out
    }

    /// Goes over all codes until none changes, at most `most` times.
    fn sweeps(&mut self, most: usize) {
        for _ in 0..most {
            let mut changed = false;
            for first in (0..self.inputs.size).step_by(BLOCK) {
                let width = BLOCK.min(self.inputs.size - first);
                let gradient = self.gradient(first, width);
                let mut sweep = Sweep { first, width, gradient: &gradient, changed: false };
                sweep_block(self, &mut sweep);
                changed |= sweep.changed;
            }
            if !changed {
                break;
            }
        }
    }

    /// One round over all scales.
    fn step_scales(&mut self) {
        let size = self.inputs.size;
        let span = span_width(self.scheme);
        for first in (0..size).step_by(span) {
            let width = span.min(size - first);
            let mut gradient = self.gradient(first, width);
            let block = Block::new(self.inputs, first, width);
            step_block(self, &block, width, &mut gradient);
        }
    }
}

multiversion! {
    /// Steps the scales of each row in turn in the columns of a block.
    fn step_block(rows: &mut Rows, block: &Block, width: usize, gradient: &mut [f64])
        = step_block_anywhere
}

#[inline(always)]
fn step_block_anywhere(rows: &mut Rows, block: &Block, width: usize, gradient: &mut [f64]) {
    let (size, count) = (rows.inputs.size, rows.rows.len());
    for r in 0..count {
        let weight = rows.outputs.inverse[r];
        if weight == 0.0 {
            continue;
        }
        // The cost is G_rr e H e^T and terms linear in e: in units of G_rr, that of one row.
        let mut before = gradient[r * width..(r + 1) * width].to_vec();
        before.iter_mut().for_each(|g| *g *= weight);
        let mut own = before.clone();
        let errors = &mut rows.errors[r * size + block.first..][..width];
        step_row(rows.scheme, &mut rows.rows[r], block, errors, &mut own);
        if own == before {
            continue;
        }
        subtract(&mut before, &own, 1.0);
        let line = &rows.outputs.matrix[r * count..(r + 1) * count];
        for (gradient, &g) in gradient.chunks_exact_mut(width).zip(line) {
            if g != 0.0 {
                subtract(gradient, &before, g);
            }
        }
    }
}

/// out += a b, rows in parallel; `a` is [rows, depth].
fn multiply(a: &[f64], depth: usize, b: View, width: usize, out: &mut [f64]) {
    out.par_chunks_mut(ROWS * width).zip(a.par_chunks(ROWS * depth)).for_each(|(out, a)| {
        let rows = a.len() / depth;
        let mut out = ViewMut { data: out, stride: width };
        product(&mut out, View { data: a, stride: depth }, b, [rows, depth, width], 1.0);
    });
}

/// Columns to go over, and their gradient [rows, width].
struct Sweep<'a> {
    first: usize,
    width: usize,
    gradient: &'a [f64],
    changed: bool,
}

multiversion! {
    /// Sets each code of a block of columns to its best level.
    fn sweep_block(rows: &mut Rows, sweep: &mut Sweep) = sweep_block_anywhere
}

#[inline(always)]
fn sweep_block_anywhere(rows: &mut Rows, sweep: &mut Sweep) {
    let (count, size) = (rows.rows.len(), rows.inputs.size);
    // By column, so that a column's elements lie side by side.
    let mut columns = vec![0.0; count * sweep.width];
    for r in 0..count {
        for j in 0..sweep.width {
            columns[j * count + r] = sweep.gradient[r * sweep.width + j];
        }
    }
    for j in 0..sweep.width {
        let (done, later) = columns.split_at_mut((j + 1) * count);
        let own = &mut done[j * count..];
        let before = own.to_vec();
        if !sweep_column(rows, sweep.first + j, own) {
            continue;
        }
        sweep.changed = true;
        let line = &rows.inputs.matrix[(sweep.first + j) * size + sweep.first..][..sweep.width];
        let moved: Vec<f64> =
            before.iter().zip(own.iter()).map(|(b, a)| (b - a) / line[j]).collect();
        for (gradient, &h) in later.chunks_exact_mut(count).zip(&line[j + 1..]) {
            subtract(gradient, &moved, h);
        }
    }
}

/// Sets the codes of one column; true if one changed.
#[inline(always)]
fn sweep_column(rows: &mut Rows, column: usize, gradient: &mut [f64]) -> bool {
    let (scheme, count, size) = (rows.scheme, rows.rows.len(), rows.inputs.size);
    let (levels, k) = (&scheme.levels, column / scheme.group());
    let h = rows.inputs.matrix[column * size + column];
    let mut changed = false;
    for r in 0..count {
        let row = &mut rows.rows[r];
        let (scale, min, code) = (row.scale[k], row.min[k], row.codes[column]);
        let curvature = h * rows.outputs.matrix[r * count + r];
        if scale == 0.0 || curvature <= 0.0 {
            continue;
        }
        let value = decoded(scale, scheme.level(code), min);
        let target = value + gradient[r] / curvature;
        let place = levels.nearest((target - f64::from(min)) / f64::from(scale));
        if levels.codes[place] == code {
            continue;
        }
        let change = decoded(scale, levels.values[place], min) - value;
        if change * (change * curvature - 2.0 * gradient[r]) < 0.0 {
            row.codes[column] = levels.codes[place];
            rows.errors[r * size + column] -= change;
            let line = &rows.outputs.matrix[r * count..(r + 1) * count];
            subtract(gradient, line, change * h);
            changed = true;
        }
    }
    changed
}

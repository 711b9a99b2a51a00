//! Error feedback along rows and columns (YAQA, arXiv 2505.22988): errors of one output make up
//! for those of another, as the loss sees both.
//!
//! With G = E[g g^T] of the loss's gradient g at the outputs, tr(G E H E^T) is the sum of
//! DO_i DI_j ((LO^T E LI)_ij)^2 with G = LO DO LO^T and H = LI DI LI^T. Elements are rounded from
//! the last column to the first, in each from the last row to the first, so that each term is
//! least given those before it. Tiles on a diagonal do not depend on each other.

#![allow(clippy::needless_range_loop)] // i and j count across several arrays

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::matrix::{View, ViewMut, multiversion, product};
use super::rounding::Order;
use super::scheme::{Scheme, decoded};
use crate::formats::QuantizedRow;

/// Rows and columns of a tile.
const TILE: usize = 64;

/// A matrix to round, and the orders of its rows and columns.
pub struct Problem<'a> {
    pub scheme: &'a Scheme,
    /// [rows, columns]
    pub weights: &'a [f32],
    pub columns: usize,
    pub rows: &'a [QuantizedRow],
    /// The order of all columns or some.
    pub inputs: &'a Order,
    pub outputs: &'a Order,
}

/// What is known of a tile once it is rounded, by row.
struct Rounded {
    errors: Vec<f64>,
    /// E LI.
    fed: Vec<f64>,
    codes: Vec<u8>,
}

/// Rounds all elements with the scales that the rows have; returns the codes of each row.
pub fn feed_back(problem: &Problem) -> Vec<Vec<u8>> {
    let (rows, columns) = (problem.rows.len(), problem.inputs.columns.len());
    let (tall, wide) = (rows.div_ceil(TILE), columns.div_ceil(TILE));
    let upper = transposed(&problem.outputs.factor.lower, rows);
    let tiles: Vec<OnceLock<Rounded>> = (0..tall * wide).map(|_| OnceLock::new()).collect();
    let known = |i: usize, j: usize| tiles[i * wide + j].get().expect("rounded before");
    for diagonal in (0..tall + wide - 1).rev() {
        let first = diagonal.saturating_sub(wide - 1);
        (first..tall.min(diagonal + 1)).into_par_iter().for_each(|i| {
            let j = diagonal - i;
            let tile = Tile {
                problem,
                rows: i * TILE..rows.min((i + 1) * TILE),
                columns: j * TILE..columns.min((j + 1) * TILE),
            };
            let mut along = vec![0.0; tile.rows.len() * tile.columns.len()];
            let mut down = along.clone();
            for k in j + 1..wide {
                tile.add_inputs(&known(i, k).errors, k, &mut along);
            }
            for k in i + 1..tall {
                tile.add_outputs(&upper, &known(k, j).fed, k, &mut down);
            }
            let _ = tiles[i * wide + j].set(tile.round(&along, &down));
        });
    }
    collect(problem, &tiles, wide)
}

/// The codes of each row, from the tiles.
fn collect(problem: &Problem, tiles: &[OnceLock<Rounded>], wide: usize) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = problem.rows.iter().map(|row| row.codes.clone()).collect();
    for (p, &row) in problem.outputs.columns.iter().enumerate() {
        for (q, &column) in problem.inputs.columns.iter().enumerate() {
            let width = TILE.min(problem.inputs.columns.len() - q / TILE * TILE);
            let tile = tiles[p / TILE * wide + q / TILE].get().expect("all are rounded");
            out[row][column] = tile.codes[p % TILE * width + q % TILE];
        }
    }
    out
}

fn transposed(matrix: &[f64], size: usize) -> Vec<f64> {
    let mut out = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..=i {
            out[j * size + i] = matrix[i * size + j];
        }
    }
    out
}

/// A tile of the matrix, in the orders of rounding.
struct Tile<'a> {
    problem: &'a Problem<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Tile<'_> {
    /// Adds E LI of the tile `k` to the right.
    fn add_inputs(&self, errors: &[f64], k: usize, out: &mut [f64]) {
        let size = self.problem.inputs.columns.len();
        let (width, depth) = (self.columns.len(), TILE.min(size - k * TILE));
        let mut out = ViewMut { data: out, stride: width };
        let lower = &self.problem.inputs.factor.lower[k * TILE * size + self.columns.start..];
        let (a, b) = (View { data: errors, stride: depth }, View { data: lower, stride: size });
        product(&mut out, a, b, [self.rows.len(), depth, width], 1.0);
    }

    /// Adds LO^T E LI of the tile `k` below.
    fn add_outputs(&self, upper: &[f64], fed: &[f64], k: usize, out: &mut [f64]) {
        let size = self.problem.rows.len();
        let (width, depth) = (self.columns.len(), TILE.min(size - k * TILE));
        let mut out = ViewMut { data: out, stride: width };
        let upper = &upper[self.rows.start * size + k * TILE..];
        let (a, b) = (View { data: upper, stride: size }, View { data: fed, stride: width });
        product(&mut out, a, b, [self.rows.len(), depth, width], 1.0);
    }

    /// Rounds the tile's elements, given what the tiles to its right and below feed into it.
    fn round(&self, along: &[f64], down: &[f64]) -> Rounded {
        let count = self.rows.len() * self.columns.len();
        let mut out =
            Rounded { errors: vec![0.0; count], fed: vec![0.0; count], codes: vec![0; count] };
        round(self, along, down, &mut out);
        out
    }
}

multiversion! {
    /// The elements of a tile, one after the other.
    fn round(tile: &Tile, along: &[f64], down: &[f64], out: &mut Rounded) = round_anywhere
}

#[inline(always)]
fn round_anywhere(tile: &Tile, along: &[f64], down: &[f64], out: &mut Rounded) {
    let (problem, height, width) = (tile.problem, tile.rows.len(), tile.columns.len());
    // By column, so that a column's elements lie side by side.
    let (mut along, mut down) = (by_column(along, height, width), by_column(down, height, width));
    let inputs = &problem.inputs.factor.lower;
    for j in (0..width).rev() {
        let (left, own) = along.split_at_mut(j);
        let mut errors = [0f64; TILE];
        round_column(tile, j, &mut own[0], &mut down[j], &mut errors, out);
        let line = (tile.columns.start + j) * problem.inputs.columns.len() + tile.columns.start;
        for (along, &factor) in left.iter_mut().zip(&inputs[line..line + j]) {
            for i in 0..TILE {
                along[i] += errors[i] * factor;
            }
        }
    }
}

#[inline(always)]
fn by_column(data: &[f64], height: usize, width: usize) -> Vec<[f64; TILE]> {
    let mut out = vec![[0f64; TILE]; width];
    for i in 0..height {
        for j in 0..width {
            out[j][i] = data[i * width + j];
        }
    }
    out
}

/// Rounds column `j` of a tile from its last row to its first.
#[inline(always)]
fn round_column(
    tile: &Tile,
    j: usize,
    along: &mut [f64; TILE],
    down: &mut [f64; TILE],
    errors: &mut [f64; TILE],
    out: &mut Rounded,
) {
    let (problem, width) = (tile.problem, tile.columns.len());
    let scheme = problem.scheme;
    let column = problem.inputs.columns[tile.columns.start + j];
    let (k, levels) = (column / scheme.group(), &scheme.levels);
    for i in (0..tile.rows.len()).rev() {
        let r = problem.outputs.columns[tile.rows.start + i];
        let row = &problem.rows[r];
        let (scale, min, mut code) = (row.scale[k], row.min[k], row.codes[column]);
        let weight = f64::from(problem.weights[r * problem.columns + column]);
        if scale != 0.0 {
            let target = weight + along[i] + down[i];
            code = levels.codes[levels.nearest((target - f64::from(min)) / f64::from(scale))];
        }
        errors[i] = weight - decoded(scale, scheme.level(code), min);
        let fed = along[i] + errors[i];
        let at = i * width + j;
        (out.errors[at], out.fed[at], out.codes[at]) = (errors[i], fed, code);
        let line = (tile.rows.start + i) * problem.rows.len() + tile.rows.start;
        let factors = &problem.outputs.factor.lower[line..line + i];
        for (down, factor) in down.iter_mut().zip(factors) {
            *down += fed * factor;
        }
    }
}

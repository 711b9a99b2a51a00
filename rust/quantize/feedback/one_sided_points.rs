//! Feedback and descent for formats of code books, in the metric of the inputs.

use rayon::prelude::*;

use super::metric::Metric;
use super::points::{PointRows, descend, feed_back, order_of};
use super::problem::{Problem, Report};
use super::rounding::{LANES, Order};
use crate::error::Result;
use crate::formats::{Eight, Points};

/// Improves encoded rows one by one; those that do not get better stay as they are.
pub fn improve(
    problem: &Problem,
    points: &Points,
    encoded: Vec<u8>,
    mean: f64,
    report: &mut Report,
) -> Result<Vec<u8>> {
    let n = problem.columns;
    let mut bytes = encoded.clone();
    let metric = Metric::new(problem.covariance, n, 0.1 * problem.damping * mean)?;
    let mut before = vec![0.0; problem.rows];
    let mut after = before.clone();
    tiles(problem, points, &mut bytes, &mut before, |rows| descend(rows, &metric, 0));
    let columns = order_of(problem.covariance, n);
    let order = Order::of(problem.covariance, n, columns, problem.damping * mean)?;
    let pivots: f64 = order.factor.pivots.iter().sum();
    report.predicted = pivots / ((mean + order.added) * n as f64);
    report.damping = order.added / mean;
    tiles(problem, points, &mut bytes, &mut after, |rows| feed_back(rows, &order));
    drop(order); // as large as the covariance
    let sweeps = problem.effort.sweeps;
    tiles(problem, points, &mut bytes, &mut after, |rows| descend(rows, &metric, sweeps));
    let mut pairs = vec![(before, after)];
    if let Some(held_out) = problem.held_out {
        let metric = Metric::new(held_out, n, 0.0)?;
        let cost = |bytes: &[u8]| {
            let (mut bytes, mut out) = (bytes.to_vec(), vec![0.0; problem.rows]);
            tiles(problem, points, &mut bytes, &mut out, |rows| descend(rows, &metric, 0));
            out
        };
        pairs.push((cost(&encoded), cost(&bytes)));
    }
    report.kept = keep_better(&encoded, &mut bytes, &mut pairs);
    let mut sums = pairs.iter().map(|(a, b)| (a.iter().sum(), b.iter().sum()));
    (report.before, report.after) = sums.next().unwrap_or_default();
    report.held_out = sums.next();
    report.changed = changed(points, &encoded, &bytes);
    Ok(bytes)
}

/// Gives rows that cost more than before in a metric back what they were; returns how many.
fn keep_better(old: &[u8], new: &mut [u8], costs: &mut [(Vec<f64>, Vec<f64>)]) -> usize {
    let (mut kept, size) = (0, old.len() / costs[0].0.len());
    for (r, (new, old)) in new.chunks_exact_mut(size).zip(old.chunks_exact(size)).enumerate() {
        if costs.iter().all(|(before, after)| after[r] <= before[r]) {
            continue;
        }
        kept += 1;
        new.copy_from_slice(old);
        costs.iter_mut().for_each(|(before, after)| after[r] = before[r]);
    }
    kept
}

/// Elements whose level differs.
fn changed(points: &Points, old: &[u8], new: &[u8]) -> usize {
    let size = points.format.block_bytes();
    let levels = |block: &[u8], l| points.levels(points.read(block, l));
    let blocks = old.par_chunks_exact(size).zip(new.par_chunks_exact(size));
    blocks
        .map(|(old, new)| {
            let pairs = (0..32).flat_map(|l| levels(old, l).into_iter().zip(levels(new, l)));
            pairs.filter(|(a, b)| a != b).count()
        })
        .sum()
}

/// Calls `work` with each tile of rows, in parallel.
fn tiles(
    problem: &Problem,
    points: &Points,
    bytes: &mut [u8],
    costs: &mut [f64],
    work: impl Fn(&mut PointRows) + Sync,
) {
    let (n, size) = (problem.columns, bytes.len() / problem.rows);
    bytes
        .par_chunks_mut(LANES * size)
        .zip(costs.par_chunks_mut(LANES))
        .zip(problem.weights.par_chunks(LANES * n))
        .for_each(|((bytes, costs), weights)| {
            let eights: Vec<Eight> = vec![];
            work(&mut PointRows { points, weights, columns: n, bytes, eights, costs });
        });
}

//! Feedback and descent in the metric of the inputs, e H e^T: each row on its own.

use rayon::prelude::*;

use super::descent::descend;
use super::metric::Metric;
use super::problem::{Effort, Problem, Report};
use super::rounding::{LANES, Objective, Order, Tile, feed_back};
use super::scheme::Scheme;
use crate::error::Result;
use crate::formats::QuantizedRow;

/// Improves `rows` one by one; those that do not get better stay as they are.
pub fn improve(
    problem: &Problem,
    scheme: &Scheme,
    orders: Vec<Order>,
    rows: &mut [QuantizedRow],
    mean: f64,
    report: &mut Report,
) -> Result<()> {
    let (started, n) = (rows.to_vec(), problem.columns);
    let mut objectives = vec![Objective::default(); rows.len()];
    tiles(problem, rows, &mut objectives, |weights, rows, objectives| {
        feed_back(&mut Tile { scheme, weights, columns: n, rows, objectives }, &orders);
    });
    drop(orders); // as large as the covariance
    let effort = problem.effort;
    if effort.sweeps > 0 || effort.rounds > 0 {
        let metric = Metric::new(problem.covariance, n, 0.1 * problem.damping * mean)?;
        tiles(problem, rows, &mut objectives, |weights, rows, objectives| {
            descend(scheme, &metric, weights, rows, effort, objectives);
        });
    }
    let mut held_out = judge(problem, scheme, &started, rows)?;
    report.kept = keep_better(&started, rows, &mut objectives, &mut held_out);
    (report.before, report.after) = sums(&objectives);
    report.held_out = problem.held_out.map(|_| sums(&held_out));
    Ok(())
}

/// Gives rows that cost more than before back what they were; returns how many.
fn keep_better(
    started: &[QuantizedRow],
    rows: &mut [QuantizedRow],
    objectives: &mut [Objective],
    held_out: &mut [Objective],
) -> usize {
    let mut kept = 0;
    for (index, row) in rows.iter_mut().enumerate() {
        let mut found = [objectives.get_mut(index), held_out.get_mut(index)];
        if found.iter().flatten().all(|o| o.after <= o.before) {
            continue;
        }
        kept += 1;
        row.clone_from(&started[index]);
        found.iter_mut().flatten().for_each(|o| o.after = o.before);
    }
    kept
}

/// The sums before and after.
fn sums(objectives: &[Objective]) -> (f64, f64) {
    let (before, after) = (|o: &Objective| o.before, |o: &Objective| o.after);
    (objectives.iter().map(before).sum(), objectives.iter().map(after).sum())
}

/// Calls `work` with the weights, rows and objectives of each tile of rows, in parallel.
fn tiles(
    problem: &Problem,
    rows: &mut [QuantizedRow],
    objectives: &mut [Objective],
    work: impl Fn(&[f32], &mut [QuantizedRow], &mut [Objective]) + Sync,
) {
    rows.par_chunks_mut(LANES)
        .zip(objectives.par_chunks_mut(LANES))
        .zip(problem.weights.par_chunks(LANES * problem.columns))
        .for_each(|((rows, objectives), weights)| work(weights, rows, objectives));
}

/// What the rows cost in the metric held out; nothing if there is none.
fn judge(
    problem: &Problem,
    scheme: &Scheme,
    started: &[QuantizedRow],
    rows: &[QuantizedRow],
) -> Result<Vec<Objective>> {
    let Some(held_out) = problem.held_out else { return Ok(vec![]) };
    let metric = Metric::new(held_out, problem.columns, 0.0)?;
    let none = Effort { sweeps: 0, rounds: 0 };
    let cost = |rows: &[QuantizedRow]| {
        let mut rows = rows.to_vec();
        let mut out = vec![Objective::default(); rows.len()];
        tiles(problem, &mut rows, &mut out, |weights, rows, out| {
            descend(scheme, &metric, weights, rows, none, out);
        });
        out
    };
    let pairs = cost(started).into_iter().zip(cost(rows));
    Ok(pairs.map(|(a, b)| Objective { before: a.after, after: b.after }).collect())
}

//! Feedback and descent in the metric of inputs and outputs, tr(G E H E^T).
//!
//! G = E[g g^T] of the gradient g of the loss at the outputs: with labels sampled from the model,
//! G (x) H is the Kronecker-factored Fisher matrix (K-FAC, arXiv 1503.05671), and half the cost
//! is the KL divergence expected of a small error.

use rayon::prelude::*;

use super::metric::Metric;
use super::problem::{Outputs, Problem, Report};
use super::rounding::{Objective, Order};
use super::scheme::Scheme;
use super::two_sided_descent::Rows;
use super::two_sided_feedback::{self, feed_back};
use crate::error::Result;
use crate::formats::QuantizedRow;

/// What all blocks of rows share.
struct Shared<'a> {
    problem: &'a Problem<'a>,
    scheme: &'a Scheme,
    orders: &'a [Order],
    metric: Metric,
    held_out: Option<Metric>,
}

/// Costs of a block of rows.
#[derive(Default)]
struct Costs {
    objective: Objective,
    held_out: Objective,
    pivots: f64,
    trace: f64,
    kept: usize,
}

/// Improves `rows` by blocks of G; blocks that do not get better stay as they are.
pub fn improve(
    problem: &Problem,
    scheme: &Scheme,
    outputs: Outputs,
    orders: &[Order],
    rows: &mut [QuantizedRow],
    report: &mut Report,
) -> Result<()> {
    let n = problem.columns;
    let added = orders.iter().fold(0.0, |most: f64, order| most.max(order.added));
    let shared = Shared {
        problem,
        scheme,
        orders,
        metric: Metric::new(problem.covariance, n, added)?,
        held_out: problem.held_out.map(|held_out| Metric::new(held_out, n, 0.0)).transpose()?,
    };
    let size = outputs.size;
    let costs = rows
        .par_chunks_mut(size)
        .zip(problem.weights.par_chunks(size * n))
        .zip(outputs.covariance.par_chunks(size * size))
        .map(|((rows, weights), g)| shared.improve_block(rows, weights, g))
        .collect::<Result<Vec<_>>>()?;
    let sum = |of: fn(&Costs) -> f64| costs.iter().map(of).sum::<f64>();
    (report.before, report.after) = (sum(|c| c.objective.before), sum(|c| c.objective.after));
    if problem.held_out.is_some() {
        report.held_out = Some((sum(|c| c.held_out.before), sum(|c| c.held_out.after)));
    }
    let trace = sum(|c| c.trace);
    report.predicted *= if trace > 0.0 { sum(|c| c.pivots) / trace } else { 1.0 };
    report.kept = costs.iter().map(|c| c.kept).sum();
    Ok(())
}

impl Shared<'_> {
    /// Improves the rows of one block of G.
    fn improve_block(
        &self,
        rows: &mut [QuantizedRow],
        weights: &[f32],
        g: &[f64],
    ) -> Result<Costs> {
        let (size, started) = (rows.len(), rows.to_vec());
        let trace: f64 = (0..size).map(|r| g[r * size + r]).sum();
        if trace == 0.0 {
            return Ok(Costs { kept: size, ..Costs::default() });
        }
        let added = self.problem.damping * trace / size as f64;
        let order = Order::new(g, size, 0..size, added)?;
        let metric = Metric::new(g, size, order.added)?;
        let mut costs = Costs {
            objective: self.costs(weights, rows, &self.metric, &metric),
            held_out: self.held_out_costs(weights, rows, &metric),
            pivots: order.factor.pivots.iter().sum(),
            trace: trace + order.added * size as f64,
            kept: 0,
        };
        self.feed_back(rows, weights, &order);
        let mut state = Rows::new(self.scheme, weights, rows, &self.metric, &metric);
        state.descend(self.problem.effort);
        costs.objective.after = state.objective();
        costs.held_out.after = self.held_out_costs(weights, rows, &metric).before;
        let better = |o: &Objective| o.after <= o.before;
        if !(better(&costs.objective) && better(&costs.held_out)) {
            rows.clone_from_slice(&started);
            costs.kept = size;
            costs.objective.after = costs.objective.before;
            costs.held_out.after = costs.held_out.before;
        }
        Ok(costs)
    }

    /// Error feedback, one block of columns after the other.
    fn feed_back(&self, rows: &mut [QuantizedRow], weights: &[f32], outputs: &Order) {
        for inputs in self.orders {
            let codes = feed_back(&two_sided_feedback::Problem {
                scheme: self.scheme,
                weights,
                columns: self.problem.columns,
                rows,
                inputs,
                outputs,
            });
            for (row, codes) in rows.iter_mut().zip(codes) {
                row.codes = codes;
            }
        }
    }

    /// The cost of rows as they are.
    fn costs(
        &self,
        weights: &[f32],
        rows: &mut [QuantizedRow],
        inputs: &Metric,
        outputs: &Metric,
    ) -> Objective {
        let before = Rows::new(self.scheme, weights, rows, inputs, outputs).objective();
        Objective { before, after: before }
    }

    fn held_out_costs(
        &self,
        weights: &[f32],
        rows: &mut [QuantizedRow],
        outputs: &Metric,
    ) -> Objective {
        self.held_out.as_ref().map_or_else(Objective::default, |held_out| {
            self.costs(weights, rows, held_out, outputs)
        })
    }
}

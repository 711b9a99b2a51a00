//! Codes and scales that keep a layer's outputs, not its weights: error feedback and coordinate
//! descent in the metric of the inputs' covariance. Types and bytes of a file stay as they are.
//!
//! For y = W x with rows w, a quantized row with error e = w - v costs e H e^T, H = E[x x^T]. An
//! encoder that rounds each weight alone lets the errors add up where inputs are correlated.
//! Feedback (`rounding.rs`: GPTQ, arXiv 2210.17323; LDLQ, arXiv 2307.13304) makes each column's
//! error up by the columns after it; descent (`descent.rs`, `scales.rs`) then moves codes and
//! scales one at a time as long as the cost falls.

mod descent;
mod matrix;
mod metric;
mod one_sided;
mod one_sided_points;
mod point_search;
mod points;
mod problem;
mod quadratic;
mod rounding;
mod scales;
mod scheme;
mod two_sided;
mod two_sided_descent;
mod two_sided_feedback;

use rayon::prelude::*;

use super::encode_tensor;
use crate::error::Result;
use crate::formats::{Format, Points, QuantizedRow};
use crate::threads::in_pool;
pub use problem::{Effort, Outputs, Problem, Report};
use rounding::Order;
use scheme::Scheme;

/// Encodes a tensor, then improves its codes and scales; returns the bytes.
///
/// # Errors
///
/// As `encode_tensor`; `Shape` for a covariance of another size, `Format` for one that is not
/// finite, has a negative diagonal or no factor, and for a format that cannot be improved.
pub fn improve(problem: &Problem) -> Result<(Vec<u8>, Report)> {
    let points = Points::of(problem.format);
    let scheme = if points.is_none() { Some(Scheme::new(problem.format)?) } else { None };
    let mean = problem.check()?;
    let encoded = problem.start()?;
    let mut report = Report { predicted: 1.0, damping: problem.damping, ..Report::default() };
    if mean == 0.0 || problem.rows == 0 {
        return Ok((encoded, report));
    }
    let report = &mut report;
    let bytes = in_pool(problem.threads, || match (points, scheme) {
        (Some(points), _) => one_sided_points::improve(problem, &points, encoded, mean, report),
        (_, Some(scheme)) => problem.improve(&scheme, encoded, mean, report),
        _ => Ok(encoded),
    })??;
    Ok((bytes, report.clone()))
}

impl Problem<'_> {
    /// The encoder's bytes; of affine formats, whose encoder knows no importance, a search's.
    fn start(&self) -> Result<Vec<u8>> {
        let n = self.columns;
        let diagonal: Vec<f32> = (0..n).map(|j| self.covariance[j * n + j] as f32).collect();
        let importance = self.importance.unwrap_or(&diagonal);
        let mut out = vec![0; self.rows * self.format.row_bytes(n)?];
        let bytes: Vec<u8> = self.weights.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (rows, format) = (self.rows, self.format);
        encode_tensor(
            &bytes,
            Format::F32,
            &mut out,
            format,
            rows,
            n,
            Some(importance),
            self.threads,
        )?;
        if let (Format::Affine(affine), true) = (format, n > 0) {
            let size = format.row_bytes(n)?;
            in_pool(self.threads, || {
                out.par_chunks_exact_mut(size)
                    .zip(self.weights.par_chunks_exact(n))
                    .for_each(|(out, weights)| affine.fit_row(weights, importance, out));
            })?;
        }
        Ok(out)
    }

    /// Improves the rows of `encoded`.
    fn improve(
        &self,
        scheme: &Scheme,
        mut encoded: Vec<u8>,
        mean: f64,
        report: &mut Report,
    ) -> Result<Vec<u8>> {
        let n = self.columns;
        let size = self.format.row_bytes(n)?;
        let read = |bytes: &[u8]| QuantizedRow::read(self.format, &scheme.codes, bytes, n);
        let started: Vec<QuantizedRow> = encoded.par_chunks_exact(size).map(read).collect();
        let mut rows = started.clone();
        let orders = self.orders(mean, report)?;
        match self.outputs {
            None => one_sided::improve(self, scheme, orders, &mut rows, mean, report)?,
            Some(outputs) => {
                two_sided::improve(self, scheme, outputs, &orders, &mut rows, report)?;
            }
        }
        let pairs = started.iter().zip(&rows).flat_map(|(a, b)| a.codes.iter().zip(&b.codes));
        report.changed = pairs.filter(|(a, b)| a != b).count();
        encoded
            .par_chunks_exact_mut(size)
            .zip(&rows)
            .for_each(|(bytes, row)| row.write(self.format, &scheme.codes, bytes));
        Ok(encoded)
    }

    /// The orders and factors of the columns, block by block.
    fn orders(&self, mean: f64, report: &mut Report) -> Result<Vec<Order>> {
        let (n, blocks) = (self.columns, self.blocks);
        let orders = (0..blocks)
            .map(|b| {
                let range = b * n / blocks..(b + 1) * n / blocks;
                Order::new(self.covariance, n, range, self.damping * mean)
            })
            .collect::<Result<Vec<_>>>()?;
        let pivots: f64 = orders.iter().flat_map(|order| &order.factor.pivots).sum();
        let added: f64 = orders.iter().map(|order| order.added * order.columns.len() as f64).sum();
        report.predicted = pivots / (mean * n as f64 + added);
        report.damping = orders.iter().fold(0.0, |most: f64, o| most.max(o.added / mean));
        Ok(orders)
    }
}

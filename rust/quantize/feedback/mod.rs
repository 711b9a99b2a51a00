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
mod rounding;
mod scales;
mod scheme;

use rayon::prelude::*;

use super::encode_tensor;
use crate::error::{Error, Result};
use crate::formats::{Format, QuantizedRow};
use crate::threads::in_pool;
pub use descent::Effort;
use descent::{Metric, descend};
use rounding::{LANES, Objective, Order, Tile, feed_back};
use scheme::Scheme;

/// A tensor to quantize, and what its errors cost.
pub struct Problem<'a> {
    /// [rows, columns]
    pub weights: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub format: Format,
    /// E[x x^T] of the inputs, [columns, columns], symmetric.
    pub covariance: &'a [f64],
    /// A covariance of other inputs: rows whose cost in it rises keep the codes they started with.
    pub held_out: Option<&'a [f64]>,
    /// For the encoder's start; None takes the diagonal of the covariance.
    pub importance: Option<&'a [f32]>,
    /// Added to the diagonal for feedback, in units of its mean; a tenth of it for descent.
    pub damping: f64,
    pub effort: Effort,
    /// Feedback and its factor see this many diagonal blocks of the covariance.
    pub blocks: usize,
    /// 0 means all cores; the bytes do not depend on it.
    pub threads: usize,
}

/// What an improvement was worth: costs are the sum of e H e^T over the rows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// With the encoder's codes.
    pub before: f64,
    pub after: f64,
    /// after / before, as the covariance's factor predicts it: sum of D / sum of H_jj.
    pub predicted: f64,
    /// Codes that differ from the encoder's.
    pub changed: usize,
    /// Rows that kept the encoder's codes.
    pub kept: usize,
    /// `before` and `after` in the metric held out.
    pub held_out: Option<(f64, f64)>,
    /// What was added to the diagonal, in units of its mean: more than asked for where the
    /// covariance had no factor.
    pub damping: f64,
}

/// Encodes a tensor, then improves its codes and scales; returns the bytes.
///
/// # Errors
///
/// As `encode_tensor`; `Shape` for a covariance of another size, `Format` for one that is not
/// finite, has a negative diagonal or no factor, and for a format that cannot be improved.
pub fn improve(problem: &Problem) -> Result<(Vec<u8>, Report)> {
    let scheme = Scheme::new(problem.format)?;
    let mean = problem.check()?;
    let encoded = problem.start()?;
    let mut report = Report { predicted: 1.0, damping: problem.damping, ..Report::default() };
    if mean == 0.0 || problem.rows == 0 {
        return Ok((encoded, report));
    }
    in_pool(problem.threads, || problem.improve(&scheme, encoded, mean, &mut report))?
        .map(|bytes| (bytes, report))
}

impl Problem<'_> {
    /// Checks sizes and values; returns the mean of the covariance's diagonal.
    fn check(&self) -> Result<f64> {
        let n = self.columns;
        if self.weights.len() != self.rows * n {
            let (rows, found) = (self.rows, self.weights.len());
            return Err(Error::shape(format!("{rows} rows of {n} weights, found {found} weights")));
        }
        if self.blocks == 0 || self.blocks > n.max(1) {
            let blocks = self.blocks;
            return Err(Error::input(format!("cannot cut {n} columns into {blocks} blocks")));
        }
        if !(self.damping.is_finite() && self.damping >= 0.0) {
            let found = self.damping;
            return Err(Error::input(format!(
                "damping is {found}, expected a number of 0 or more"
            )));
        }
        check_covariance("covariance", self.covariance, n)?;
        if let Some(held_out) = self.held_out {
            check_covariance("held-out covariance", held_out, n)?;
        }
        let trace: f64 = (0..n).map(|j| self.covariance[j * n + j]).sum();
        Ok(if n == 0 { 0.0 } else { trace / n as f64 })
    }

    /// The encoder's bytes.
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
        Ok(out)
    }

    /// Improves the rows of `encoded` in place, tile by tile.
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
        let mut objectives = vec![Objective::default(); self.rows];
        self.feed_back(scheme, mean, &mut rows, &mut objectives, report)?;
        if self.effort.sweeps > 0 || self.effort.rounds > 0 {
            self.descend(scheme, mean, &mut rows, &mut objectives);
        }
        let held_out = self.judge(scheme, &started, &rows);
        for (index, bytes) in encoded.chunks_exact_mut(size).enumerate() {
            let objective = &mut objectives[index];
            let worse = held_out.as_ref().is_some_and(|h| !(h[index].after <= h[index].before));
            if worse || !(objective.after <= objective.before) {
                report.kept += 1;
                objective.after = objective.before;
                continue;
            }
            let pairs = rows[index].codes.iter().zip(&started[index].codes);
            report.changed += pairs.filter(|(a, b)| a != b).count();
            rows[index].write(self.format, &scheme.codes, bytes);
        }
        report.before = objectives.iter().map(|o| o.before).sum();
        report.after = objectives.iter().map(|o| o.after).sum();
        report.held_out = held_out.map(|h| {
            let after = |o: &Objective| if o.after <= o.before { o.after } else { o.before };
            (h.iter().map(|o| o.before).sum(), h.iter().map(after).sum())
        });
        Ok(encoded)
    }

    /// Error feedback in all rows.
    fn feed_back(
        &self,
        scheme: &Scheme,
        mean: f64,
        rows: &mut [QuantizedRow],
        objectives: &mut [Objective],
        report: &mut Report,
    ) -> Result<()> {
        let n = self.columns;
        let starts: Vec<usize> = (0..=self.blocks).map(|b| b * n / self.blocks).collect();
        let order =
            |pair: &[usize]| Order::new(self.covariance, n, pair[0]..pair[1], self.damping * mean);
        let orders = starts.windows(2).map(order).collect::<Result<Vec<_>>>()?;
        let pivots: f64 = orders.iter().flat_map(|order| &order.factor.pivots).sum();
        let added: f64 = orders.iter().map(|order| order.added * order.columns.len() as f64).sum();
        report.predicted = pivots / (mean * n as f64 + added);
        report.damping = orders.iter().fold(0.0, |most: f64, o| most.max(o.added / mean));
        rows.par_chunks_mut(LANES)
            .zip(objectives.par_chunks_mut(LANES))
            .zip(self.weights.par_chunks(LANES * n))
            .for_each(|((rows, objectives), weights)| {
                let mut tile = Tile { scheme, weights, columns: n, rows, objectives };
                feed_back(&mut tile, &orders);
            });
        Ok(())
    }

    /// Coordinate descent in all rows.
    fn descend(
        &self,
        scheme: &Scheme,
        mean: f64,
        rows: &mut [QuantizedRow],
        objectives: &mut [Objective],
    ) {
        let n = self.columns;
        let metric = Metric::new(self.covariance, n, 0.1 * self.damping * mean);
        rows.par_chunks_mut(LANES)
            .zip(objectives.par_chunks_mut(LANES))
            .zip(self.weights.par_chunks(LANES * n))
            .for_each(|((rows, objectives), weights)| {
                descend(scheme, &metric, weights, rows, self.effort, objectives);
            });
    }

    /// What the rows cost in the metric held out, if there is one.
    fn judge(
        &self,
        scheme: &Scheme,
        started: &[QuantizedRow],
        rows: &[QuantizedRow],
    ) -> Option<Vec<Objective>> {
        let n = self.columns;
        let metric = Metric::new(self.held_out?, n, 0.0);
        let none = Effort { sweeps: 0, rounds: 0 };
        let mut out = vec![Objective::default(); self.rows];
        out.par_chunks_mut(LANES).enumerate().for_each(|(index, out)| {
            let range = index * LANES..index * LANES + out.len();
            let weights = &self.weights[range.start * n..range.end * n];
            for (part, rows) in [started, rows].into_iter().enumerate() {
                let mut rows = rows[range.clone()].to_vec();
                descend(scheme, &metric, weights, &mut rows, none, out);
                if part == 0 {
                    out.iter_mut().for_each(|o| o.before = o.after);
                }
            }
        });
        Some(out)
    }
}

fn check_covariance(name: &str, covariance: &[f64], n: usize) -> Result<()> {
    if covariance.len() != n * n {
        let found = covariance.len();
        return Err(Error::shape(format!("the {name} must be [{n}, {n}], found {found} numbers")));
    }
    if let Some(at) = covariance.iter().position(|x| !x.is_finite()) {
        let (i, j, x) = (at / n, at % n, covariance[at]);
        return Err(Error::format(format!("the {name} has {x} at [{i}, {j}], expected a number")));
    }
    match (0..n).find(|j| covariance[j * n + j] < 0.0) {
        None => Ok(()),
        Some(j) => Err(Error::format(format!(
            "the {name} has {} at [{j}, {j}], expected 0 or more",
            covariance[j * n + j]
        ))),
    }
}

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
mod one_sided;
mod rounding;
mod scales;
mod scheme;
mod two_sided;
mod two_sided_descent;
mod two_sided_feedback;

use rayon::prelude::*;

use super::encode_tensor;
use crate::error::{Error, Result};
use crate::formats::{Format, QuantizedRow};
use crate::threads::in_pool;
pub use descent::Effort;
use rounding::Order;
use scheme::Scheme;
pub use two_sided::Outputs;

/// A tensor to quantize, and what its errors cost.
pub struct Problem<'a> {
    /// [rows, columns]
    pub weights: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub format: Format,
    /// E[x x^T] of the inputs, [columns, columns], symmetric.
    pub covariance: &'a [f64],
    /// E[g g^T] of the loss's gradients at the outputs, where it is known.
    pub outputs: Option<Outputs<'a>>,
    /// A covariance of other inputs: rows whose cost in it rises keep the codes they started with,
    /// with `outputs` all rows of a block.
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
        if let Some(outputs) = self.outputs {
            self.check_outputs(outputs)?;
        }
        let trace: f64 = (0..n).map(|j| self.covariance[j * n + j]).sum();
        Ok(if n == 0 { 0.0 } else { trace / n as f64 })
    }

    fn check_outputs(&self, outputs: Outputs) -> Result<()> {
        let (rows, size) = (self.rows, outputs.size);
        if size == 0 || !rows.is_multiple_of(size) || outputs.covariance.len() != rows * size {
            return Err(Error::shape(format!(
                "the output covariance has blocks of {size} rows, which must divide {rows} rows"
            )));
        }
        outputs
            .covariance
            .chunks_exact(size * size)
            .try_for_each(|block| check_covariance("output covariance", block, size))
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
            None => one_sided::improve(self, scheme, orders, &mut rows, mean, report),
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

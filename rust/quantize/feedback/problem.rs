//! What is to be improved, and what came of it.

use crate::error::{Error, Result};
use crate::formats::Format;

/// A tensor to quantize, and what its errors cost.
pub struct Problem<'a> {
    /// [rows, columns]
    pub weights: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub format: Format,
    /// E[x x^T] of the inputs, [columns, columns], symmetric.
    pub covariance: &'a [f64],
    /// E[g g^T] of the loss's gradients at the outputs, where it is known. Formats of code books
    /// take no notice of it, nor of `blocks` and rounds over scales.
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
    /// With the codes that feedback starts from.
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

/// Diagonal blocks of G: rows of different blocks do not make up for each other.
#[derive(Clone, Copy)]
pub struct Outputs<'a> {
    /// [blocks, size, size]; `blocks * size` is the number of rows.
    pub covariance: &'a [f64],
    pub size: usize,
}

/// How often to go over codes and scales.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The most sweeps over the codes each time.
    pub sweeps: usize,
    /// How often scales follow, and codes again.
    pub rounds: usize,
}

impl Problem<'_> {
    /// Checks sizes and values; returns the mean of the covariance's diagonal.
    pub(super) fn check(&self) -> Result<f64> {
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

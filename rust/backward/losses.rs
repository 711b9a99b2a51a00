//! The losses of the backward pass, differentiated with respect to the logits, some rows at a time.
//!
//! With p the softmax of a row of logits: -ln p(label) has the gradient p - (1 at the label); the
//! divergence KL(base || p) has the gradient p - base. `LOGITS` of them exist at a time.

use rayon::prelude::*;

use super::observer::Observer;
use super::ops::Rows;
use super::{Differentiator, LOGITS, Pass};
use crate::error::{Error, Result};
use crate::threads::in_pool;

impl Differentiator {
    /// Logits [tokens, vocabulary] of the rows of a pass.
    ///
    /// # Errors
    ///
    /// `Input` if the output layer's input is not there any more.
    pub fn logits(&self, pass: &Pass) -> Result<Vec<f32>> {
        let input = self.output_input(pass)?;
        let width = self.input_width(pass);
        in_pool(self.threads, || {
            let chunks = input.chunks(self.logit_rows() * width);
            chunks.flat_map(|x| self.head(x).pop().expect("a segment has ops")).collect()
        })
    }

    /// Differentiates the sum over rows of -ln p(label), where row i's label is sampled from its own
    /// softmax by the uniform number `uniforms[i]` in 0..1. Returns the labels.
    ///
    /// # Errors
    ///
    /// `Shape` for another number of uniforms, `Input` as `logits`.
    pub fn sampled_loss(
        &self,
        pass: &mut Pass,
        uniforms: &[f64],
        observer: &mut (dyn Observer + Send),
    ) -> Result<Vec<u32>> {
        check_rows(pass, uniforms.len())?;
        let vocab = self.width();
        let mut labels = vec![0; uniforms.len()];
        self.differentiate(pass, observer, |first, logits| {
            let rows = logits.par_chunks_exact_mut(vocab).zip(&uniforms[first..]);
            let found: Vec<u32> = rows.map(|(row, &uniform)| sample(row, uniform)).collect();
            labels[first..first + found.len()].copy_from_slice(&found);
        })?;
        Ok(labels)
    }

    /// Differentiates the mean over rows of KL(base || this model). Returns the divergence of each
    /// row in nats.
    ///
    /// # Errors
    ///
    /// `Shape` if the passes have different rows or vocabularies, `Input` as `logits`.
    pub fn divergence(
        &self,
        pass: &mut Pass,
        base: &Differentiator,
        base_pass: &Pass,
        observer: &mut (dyn Observer + Send),
    ) -> Result<Vec<f64>> {
        let n = pass.rows.tokens.len();
        check_rows(base_pass, n)?;
        let (vocab, width) = (self.width(), base.input_width(base_pass));
        if base.width() != vocab {
            let found = base.width();
            return Err(Error::shape(format!("vocabularies of {vocab} and {found} tokens")));
        }
        let input = base.output_input(base_pass)?;
        let mut found = vec![0.0; n];
        self.differentiate(pass, observer, |first, logits| {
            let rows = logits.len() / vocab;
            let x = &input[first * width..(first + rows) * width];
            let base = base.head(x).pop().expect("a segment has ops");
            let pairs = logits.par_chunks_exact_mut(vocab).zip(base.par_chunks_exact(vocab));
            let values = found[first..first + rows].par_iter_mut();
            pairs.zip(values).for_each(|((row, base), value)| *value = diverge(row, base, n));
        })?;
        Ok(found)
    }

    /// Computes the logits of some rows at a time, lets `loss` replace them by their gradient (the
    /// first row's index is given), and goes back through the output layer.
    fn differentiate(
        &self,
        pass: &mut Pass,
        observer: &mut (dyn Observer + Send),
        mut loss: impl FnMut(usize, &mut [f32]) + Send,
    ) -> Result<()> {
        let (width, input) = (self.input_width(pass), self.output_input(pass)?);
        let segment = self.segments.last().expect("there are two or more");
        let gradient = in_pool(self.threads, || {
            let mut gradient = Vec::with_capacity(input.len());
            let size = self.logit_rows();
            for (index, x) in input.chunks(size * width).enumerate() {
                let values = self.head(x);
                let mut g = values.last().expect("a segment has ops").clone();
                loss(index * size, &mut g);
                let rows = no_rows();
                gradient.extend(self.reverse(segment, (x, values), g, &rows, observer));
            }
            gradient
        })?;
        pass.gradient = gradient;
        pass.next = self.segments.len() - 1;
        pass.inputs[self.segments.len() - 1] = Vec::new();
        Ok(())
    }

    /// Rows whose logits are in memory at a time.
    fn logit_rows(&self) -> usize {
        (LOGITS / self.width()).max(64)
    }

    /// The values of the output layer's ops for some rows of its input.
    fn head(&self, x: &[f32]) -> Vec<Vec<f32>> {
        self.all_values(self.segments.last().expect("there are two or more"), x, &no_rows(), true)
    }

    fn output_input<'a>(&self, pass: &'a Pass) -> Result<&'a [f32]> {
        let input = pass.inputs.last().expect("there are two or more");
        if input.is_empty() {
            return Err(Error::input("the pass has gone through the output layer already"));
        }
        Ok(input)
    }

    /// Columns of the output layer's input.
    fn input_width(&self, pass: &Pass) -> usize {
        pass.inputs.last().map_or(0, Vec::len) / pass.rows.tokens.len()
    }
}

/// The output layer treats each row by itself: no op of it needs to know tokens or windows.
fn no_rows() -> Rows {
    Rows { tokens: Vec::new(), windows: Vec::new(), longest: 0 }
}

fn check_rows(pass: &Pass, found: usize) -> Result<()> {
    let rows = pass.rows.tokens.len();
    if rows == found {
        return Ok(());
    }
    Err(Error::shape(format!("the pass has {rows} tokens, found {found}")))
}

/// exp(x - the largest) for each logit, with their sum.
fn exponentials(row: &[f32]) -> (Vec<f64>, f64, f64) {
    let peak = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let e: Vec<f64> = row.iter().map(|&x| (f64::from(x) - peak).exp()).collect();
    let total = e.iter().sum();
    (e, total, peak)
}

/// Samples a label by the inverse of the distribution function, and replaces the logits by the
/// gradient of -ln p(label).
fn sample(row: &mut [f32], uniform: f64) -> u32 {
    let (e, total, _) = exponentials(row);
    let mut below = 0.0;
    let label = e.iter().position(|&e| {
        below += e;
        below > uniform * total
    });
    let label = label.unwrap_or(row.len() - 1);
    row.iter_mut().zip(&e).for_each(|(out, e)| *out = (e / total) as f32);
    row[label] = (e[label] / total - 1.0) as f32;
    label as u32
}

/// KL(base || row) in nats; replaces the logits by its gradient, divided by `n`.
fn diverge(row: &mut [f32], base: &[f32], n: usize) -> f64 {
    let (e, total, peak) = exponentials(row);
    let (b, base_total, base_peak) = exponentials(base);
    let shift = (peak + total.ln()) - (base_peak + base_total.ln());
    let mut sum = 0.0;
    for ((out, base), (e, b)) in row.iter_mut().zip(base).zip(e.iter().zip(&b)) {
        let p = b / base_total;
        if p > 0.0 {
            sum += p * (f64::from(*base) - f64::from(*out) + shift);
        }
        *out = ((e / total - p) / n as f64) as f32;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sampled_by_their_probabilities() {
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY, 0.0];
        for (uniform, label) in [(0.0, 0), (0.19, 0), (0.21, 1), (0.79, 1), (0.81, 3), (0.9999, 3)]
        {
            let mut row = logits;
            assert_eq!(sample(&mut row, uniform), label);
            let expected = [0.2, 0.6, 0.0, 0.2];
            for (i, (g, p)) in row.iter().zip(expected).enumerate() {
                assert!((f64::from(*g) - (p - f64::from(i as u32 == label))).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn the_divergence_of_two_coins() {
        let mut row = [0.0, 3f32.ln()];
        let found = diverge(&mut row, &[7.0, 7.0], 2);
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((found - expected).abs() < 1e-7);
        assert!((row[0] + 0.125).abs() < 1e-7 && (row[1] - 0.125).abs() < 1e-7);
    }
}

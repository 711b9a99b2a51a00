//! Gradients of a plan over entire windows of text, layer by layer, from the last to the first.
//!
//! The forward pass stores the input of each layer; the backward pass computes a layer again and
//! then its ops in reverse. Memory holds the values of one layer and the inputs of all. Products use
//! the executor's kernels, with f32 activations; weights are transposed as they are needed. Every
//! sum has one order, so that results do not depend on the number of threads.
//!
//! ```text
//! segments.rs    cuts the plan into layers
//! bound.rs       ops with their weights; scaled.rs: quantized tensors with scales that can change
//! ops.rs         values of ops; gradients.rs: their gradients
//! attention.rs, experts.rs, recurrent.rs, rows.rs, products.rs    the work of both
//! losses.rs      what is differentiated: sampled log-likelihood, KL divergence
//! observer.rs    what watches a pass, as these do:
//! covariance.rs  E[g g^T] of each product's output; scale_gradients.rs: gradients of scales and norms
//! ```

mod attention;
mod bound;
pub mod covariance;
mod experts;
mod gradients;
mod losses;
pub mod observer;
mod ops;
mod products;
mod recurrent;
mod rows;
pub mod scale_gradients;
pub mod scaled;
mod segments;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bound::Bound;
use gradients::Node;
use observer::Observer;
use ops::Rows;
use scaled::Scaled;
use segments::{Segment, segments};

use crate::error::{Error, Result};
use crate::exec::plan::{self, Kind};
use crate::exec::weights::Weights;
use crate::kernels::Kernels;
use crate::threads::in_pool;

/// Logits that are in memory at a time.
const LOGITS: usize = 1 << 25;

/// A plan with weights, to be differentiated.
pub struct Differentiator {
    ops: Vec<Bound>,
    segments: Vec<Segment>,
    kernels: &'static Kernels,
    threads: usize,
    vocab: usize,
    positions: usize,
}

/// The state of one forward and backward pass over some windows.
pub struct Pass {
    rows: Rows,
    /// The input of each segment from the second on; empty if it was not stored.
    inputs: Vec<Vec<f32>>,
    /// The gradient of the input of segment `next`.
    gradient: Vec<f32>,
    next: usize,
}

impl Pass {
    /// The gradient of the input of the segment that the pass went through last, [tokens, columns];
    /// empty before and after the embedding.
    pub fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.rows.tokens.len()
    }
}

impl Differentiator {
    /// Binds a plan (JSON) to weights; tensors in `scaled` come before those of the same name in
    /// `weights`. `threads` 0 means all cores.
    ///
    /// # Errors
    ///
    /// A tensor is missing or has another shape, or the plan is not a decoder of connected layers.
    pub fn new(
        plan: &str,
        weights: &Weights,
        scaled: &HashMap<String, Arc<Scaled>>,
        threads: usize,
        kernels: &'static Kernels,
    ) -> Result<Self> {
        let parsed = plan::parse(plan)?;
        let segments = segments(&parsed)?;
        let mut ops = Vec::with_capacity(parsed.len());
        for (index, op) in parsed.iter().enumerate() {
            let widths: Vec<usize> = op.inputs.iter().map(|&input| parsed[input].width).collect();
            let bound = Bound::new(op, &widths, weights, scaled).map_err(|error| Error {
                message: format!("op {index}: {}", error.message),
                ..error
            })?;
            ops.push(bound);
        }
        let least = |wanted: fn(&Kind) -> bool| {
            let tables = ops.iter().filter(|bound| wanted(&bound.op.kind));
            tables.map(|bound| bound.matrices[0].shape()[0]).min().unwrap_or(usize::MAX)
        };
        let vocab = least(|kind| matches!(kind, Kind::Embed {}));
        let positions = least(|kind| matches!(kind, Kind::EmbedPosition {}));
        Ok(Self { ops, segments, kernels, threads, vocab, positions })
    }

    /// The weights of products in each segment, the embedding first, the output layer last.
    pub fn products(&self) -> Vec<Vec<String>> {
        let product =
            |bound: &&Bound| matches!(bound.op.kind, Kind::Linear {} | Kind::ExpertLinear { .. });
        let names = |segment: &Segment| {
            let ops = self.ops[segment.ops.clone()].iter().filter(product);
            ops.map(|bound| bound.op.weights[0].clone()).collect()
        };
        self.segments.iter().map(names).collect()
    }

    /// The values of windows of `lengths` tokens up to the output layer. With `keep` the inputs of
    /// all layers are stored, for a backward pass; otherwise only that of the output layer.
    ///
    /// # Errors
    ///
    /// `Input` for a token or a position that the model does not have, `Shape` for lengths that do
    /// not fit.
    pub fn forward(&self, tokens: &[u32], lengths: &[usize], keep: bool) -> Result<Pass> {
        let rows = self.rows(tokens, lengths)?;
        in_pool(self.threads, || {
            let last = self.segments.len() - 1;
            let (mut inputs, mut x) = (vec![Vec::new(); last + 1], Vec::new());
            for (index, segment) in self.segments[..last].iter().enumerate() {
                let made = self.values(segment, &x, &rows, false);
                if keep {
                    inputs[index] = x;
                }
                x = made;
            }
            inputs[last] = x;
            Pass { rows, inputs, gradient: Vec::new(), next: last + 1 }
        })
    }

    fn rows(&self, tokens: &[u32], lengths: &[usize]) -> Result<Rows> {
        let total: usize = lengths.iter().sum();
        if tokens.is_empty() || total != tokens.len() || lengths.contains(&0) {
            let found = tokens.len();
            return Err(Error::shape(format!("windows of {total} tokens in all, found {found}")));
        }
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocab) {
            let vocab = self.vocab;
            return Err(Error::input(format!("token {token} is not in the vocabulary of {vocab}")));
        }
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest > self.positions {
            return Err(Error::input(format!(
                "a window of {longest} tokens, the model has {} positions",
                self.positions
            )));
        }
        let mut windows: Vec<Range<usize>> = Vec::with_capacity(lengths.len());
        for length in lengths {
            let start = windows.last().map_or(0, |window| window.end);
            windows.push(start..start + length);
        }
        Ok(Rows { tokens: tokens.to_vec(), windows, longest })
    }

    /// The value of a segment's last op, the only one that later segments read.
    fn values(&self, segment: &Segment, x: &[f32], rows: &Rows, all: bool) -> Vec<f32> {
        let mut values = self.all_values(segment, x, rows, all);
        values.pop().expect("a segment has ops")
    }

    /// The values of a segment's ops; without `all`, those that nothing more reads are dropped.
    fn all_values(&self, segment: &Segment, x: &[f32], rows: &Rows, all: bool) -> Vec<Vec<f32>> {
        let start = segment.ops.start;
        let mut values: Vec<Vec<f32>> = Vec::with_capacity(segment.ops.len());
        for (index, bound) in self.ops[segment.ops.clone()].iter().enumerate() {
            let inputs = self.inputs(segment, &bound.op.inputs, &values, x);
            let value = bound.value(self.kernels, &inputs, rows);
            values.push(value);
            if all {
                continue;
            }
            let rest = &self.ops[start + index + 1..segment.ops.end];
            for &input in bound.op.inputs.iter().filter(|&&input| input >= start) {
                if !rest.iter().any(|later| later.op.inputs.contains(&input)) {
                    values[input - start] = Vec::new();
                }
            }
        }
        values
    }

    /// The values that an op reads.
    fn inputs<'a>(
        &self,
        segment: &Segment,
        inputs: &[usize],
        values: &'a [Vec<f32>],
        x: &'a [f32],
    ) -> Vec<&'a [f32]> {
        let value = |&input: &usize| match input.checked_sub(segment.ops.start) {
            Some(place) => values[place].as_slice(),
            None => x,
        };
        inputs.iter().map(value).collect()
    }

    /// The gradient of a segment's input for the gradient `g` of its last value. `values` are those
    /// of all its ops.
    fn reverse(
        &self,
        segment: &Segment,
        (x, values): (&[f32], Vec<Vec<f32>>),
        g: Vec<f32>,
        rows: &Rows,
        observer: &mut dyn Observer,
    ) -> Vec<f32> {
        let start = segment.ops.start;
        let mut values = values;
        let mut found: Vec<Vec<f32>> = vec![Vec::new(); segment.ops.len()];
        let mut of_input = Vec::new();
        *found.last_mut().expect("a segment has ops") = g;
        for index in (0..segment.ops.len()).rev() {
            let bound = &self.ops[start + index];
            let g = std::mem::take(&mut found[index]);
            let (kernels, output) = (self.kernels, std::mem::take(&mut values[index]));
            if g.is_empty() {
                continue;
            }
            let inputs = self.inputs(segment, &bound.op.inputs, &values, x);
            let node = Node { kernels, bound, inputs: &inputs, output: &output, g: &g, rows };
            let gradients = node.gradients(observer);
            for (&input, gradient) in bound.op.inputs.iter().zip(gradients) {
                match input.checked_sub(start) {
                    Some(place) => add(&mut found[place], gradient),
                    None => add(&mut of_input, gradient),
                }
            }
        }
        of_input
    }

    /// Goes back through one layer: calls `observer` with the gradients of its weights. Returns its
    /// index among the segments, or None if the pass has arrived at the embedding before.
    ///
    /// # Errors
    ///
    /// `Input` if no loss was differentiated, or the inputs of layers were not stored.
    pub fn back(
        &self,
        pass: &mut Pass,
        observer: &mut (dyn Observer + Send),
    ) -> Result<Option<usize>> {
        if pass.next > self.segments.len() - 1 {
            return Err(Error::input("the pass has no gradient yet: differentiate a loss first"));
        }
        if pass.next == 0 {
            return Ok(None);
        }
        let index = pass.next - 1;
        if index > 0 && pass.inputs[index].is_empty() {
            return Err(Error::input("the pass was made without `keep`"));
        }
        in_pool(self.threads, || {
            let segment = &self.segments[index];
            let x = std::mem::take(&mut pass.inputs[index]);
            let values = self.all_values(segment, &x, &pass.rows, true);
            let g = std::mem::take(&mut pass.gradient);
            pass.gradient = self.reverse(segment, (&x, values), g, &pass.rows, observer);
        })?;
        pass.next = index;
        Ok(Some(index))
    }

    /// Columns of the logits.
    pub fn width(&self) -> usize {
        self.ops.last().map_or(0, |bound| bound.op.width)
    }
}

/// Adds a gradient to the sum so far, which is empty at first.
fn add(sum: &mut Vec<f32>, gradient: Vec<f32>) {
    if sum.is_empty() {
        *sum = gradient;
    } else {
        sum.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g);
    }
}

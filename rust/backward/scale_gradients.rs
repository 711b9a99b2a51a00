//! Gradients of super-block scales and of weight vectors.
//!
//! A value is V = d A + m B within a block, so that dL/dd is the block's sum of dL/dV A, and dL/dm
//! that of dL/dV B. The gradient of a weight, dL/dV = g^T x over all tokens, is computed for some
//! rows at a time and not stored.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::observer::Observer;
use super::products::{multiply_rows, transpose};
use super::scaled::Scaled;
use crate::kernels::Kernels;
use crate::kernels::layout::packed::Packed;
use crate::kernels::product::scratch::Scratch;

/// Rows of a weight whose gradients are in memory at a time, for each thread.
const ROWS: usize = 64;

/// The gradients of one tensor's scales, as `Scaled` has them.
#[derive(Clone)]
pub struct Gradients {
    pub d: Vec<f64>,
    pub m: Vec<f64>,
}

/// Sums the gradients of the scales of some tensors and of some weight vectors.
pub struct ScaleGradients {
    kernels: &'static Kernels,
    tensors: HashMap<String, (Arc<Scaled>, Gradients)>,
    vectors: HashMap<String, Vec<f64>>,
}

impl ScaleGradients {
    /// For the scales of `tensors` and the weight vectors that `vectors` names.
    pub fn new(
        kernels: &'static Kernels,
        tensors: &HashMap<String, Arc<Scaled>>,
        vectors: impl IntoIterator<Item = String>,
    ) -> Self {
        let zeros = |tensor: &Scaled| Gradients {
            d: vec![0.0; tensor.d.len()],
            m: vec![0.0; tensor.m.len()],
        };
        let tensors = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), (Arc::clone(tensor), zeros(tensor))))
            .collect();
        let vectors = vectors.into_iter().map(|name| (name, Vec::new())).collect();
        Self { kernels, tensors, vectors }
    }

    /// The gradients of each tensor's scales.
    pub fn tensors(&self) -> impl Iterator<Item = (&String, &Gradients)> {
        self.tensors.iter().map(|(name, (_, gradients))| (name, gradients))
    }

    /// The gradient of each vector; empty where the pass did not meet it.
    pub fn vectors(&self) -> &HashMap<String, Vec<f64>> {
        &self.vectors
    }
}

impl Observer for ScaleGradients {
    fn wants_product(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn product(&mut self, name: &str, matrix: usize, g: &[f32], width: usize, x: &[f32]) {
        let Some((tensor, gradients)) = self.tensors.get_mut(name).filter(|_| !x.is_empty()) else {
            return;
        };
        let (kernels, columns) = (self.kernels, tensor.columns);
        let (x, g) = (Packed::of_columns(x, columns), transpose(g, width));
        let first = matrix * width;
        let blocks = tensor.blocks();
        let d = gradients.d[first * blocks..][..width * blocks].par_chunks_mut(ROWS * blocks);
        let m: Vec<&mut [f64]> = if gradients.m.is_empty() {
            (0..width.div_ceil(ROWS)).map(|_| Default::default()).collect()
        } else {
            gradients.m[first * blocks..][..width * blocks].chunks_mut(ROWS * blocks).collect()
        };
        let rows = g.par_chunks(ROWS * x.columns).zip(d.zip(m));
        rows.enumerate().for_each_init(Scratch::default, |scratch, (tile, (g, (d, m)))| {
            let mut products = vec![0.0; d.len() / blocks * columns];
            multiply_rows(kernels, &x, g, None, (&mut products, x.blocks()), scratch);
            for (row, products) in products.chunks_exact(columns).enumerate() {
                let index = first + tile * ROWS + row;
                let d = &mut d[row * blocks..][..blocks];
                let m: &mut [f64] =
                    if m.is_empty() { &mut [] } else { &mut m[row * blocks..][..blocks] };
                add_row(tensor, index, products, d, m);
            }
        });
    }

    fn embedding(&mut self, name: &str, tokens: &[u32], g: &[f32]) {
        let Some((tensor, gradients)) = self.tensors.get_mut(name) else { return };
        let blocks = tensor.blocks();
        for (&token, g) in tokens.iter().zip(g.chunks_exact(tensor.columns)) {
            let row = token as usize;
            let d = &mut gradients.d[row * blocks..][..blocks];
            let m = match gradients.m.get_mut(row * blocks..) {
                Some(m) if !m.is_empty() => &mut m[..blocks],
                _ => &mut [],
            };
            add_row(tensor, row, g, d, m);
        }
    }

    fn wants_vector(&self, name: &str) -> bool {
        self.vectors.contains_key(name)
    }

    fn vector(&mut self, name: &str, gradient: &[f64]) {
        let Some(sums) = self.vectors.get_mut(name) else { return };
        if sums.is_empty() {
            sums.resize(gradient.len(), 0.0);
        }
        sums.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
    }
}

/// Adds the gradients of one row's scales, from those of its values.
fn add_row(tensor: &Scaled, row: usize, g: &[f32], d: &mut [f64], m: &mut [f64]) {
    let block = tensor.format.block();
    let mut of_d = vec![0.0; tensor.columns];
    let mut of_m = vec![0.0; if m.is_empty() { 0 } else { tensor.columns }];
    tensor.factors(row, &mut of_d, &mut of_m);
    for (sums, factors) in [(d, of_d), (m, of_m)] {
        for ((sum, g), factors) in
            sums.iter_mut().zip(g.chunks_exact(block)).zip(factors.chunks_exact(block))
        {
            *sum += g.iter().zip(factors).map(|(&g, &f)| f64::from(g) * f64::from(f)).sum::<f64>();
        }
    }
}

//! G = E[g g^T]: how the gradients of a product's outputs vary together, entire or in blocks.
//!
//! Gradients are multiplied in f32, up to `TOKENS` tokens at a time, and these sums added in f64 in
//! the text's order.

use std::collections::{BTreeMap, HashSet};

use super::observer::Observer;
use super::products::square;
use crate::kernels::Kernels;

/// Tokens whose products are summed in f32.
const TOKENS: usize = 512;

/// The sums of one weight's matrices.
pub struct Sums {
    /// Outputs of a matrix.
    pub width: usize,
    /// Outputs of a block, a divisor of `width`; all outputs for an entire matrix.
    pub block: usize,
    /// [matrix][block][output][output], zero above the diagonal.
    pub sums: Vec<Vec<f64>>,
    /// Tokens that each matrix multiplied.
    pub counts: Vec<u64>,
}

impl Sums {
    fn new(width: usize, block: usize) -> Self {
        Self { width, block, sums: Vec::new(), counts: Vec::new() }
    }

    fn add(&mut self, kernels: &Kernels, matrix: usize, g: &[f32]) {
        let (width, size) = (self.width, self.block);
        if self.sums.len() <= matrix {
            self.sums.resize(matrix + 1, vec![0.0; width * size]);
            self.counts.resize(matrix + 1, 0);
        }
        self.counts[matrix] += (g.len() / width) as u64;
        for g in g.chunks(TOKENS * width) {
            for (block, sums) in self.sums[matrix].chunks_exact_mut(size * size).enumerate() {
                let rows = g.chunks_exact(width).flat_map(|row| &row[block * size..][..size]);
                let products = square(kernels, &rows.copied().collect::<Vec<f32>>(), size);
                for i in 0..size {
                    for j in i * size..=i * size + i {
                        sums[j] += f64::from(products[j]);
                    }
                }
            }
        }
    }

    /// The sums of all matrices, with what lies above the diagonal filled in.
    pub fn symmetric(&self) -> Vec<f64> {
        let (mut out, size) = (self.sums.concat(), self.block);
        for block in out.chunks_exact_mut(size * size) {
            for i in 0..size {
                for j in 0..i {
                    block[j * size + i] = block[i * size + j];
                }
            }
        }
        out
    }
}

/// Collects the covariances of the outputs of products, and of the embedding's rows.
pub struct Covariances {
    kernels: &'static Kernels,
    products: HashSet<String>,
    embeddings: HashSet<String>,
    /// Most outputs of an entire matrix, and of a block of larger ones.
    sizes: [usize; 2],
    found: BTreeMap<String, Sums>,
}

impl Covariances {
    /// For the outputs of `products` and the rows of `embeddings`, by the names of their weights.
    /// Up to `sizes[0]` outputs have an entire matrix, more have equal blocks of up to `sizes[1]`.
    pub fn new(
        kernels: &'static Kernels,
        products: HashSet<String>,
        embeddings: HashSet<String>,
        sizes: [usize; 2],
    ) -> Self {
        Self { kernels, products, embeddings, sizes, found: BTreeMap::new() }
    }

    /// The sums since the last call, by name.
    pub fn take(&mut self) -> BTreeMap<String, Sums> {
        std::mem::take(&mut self.found)
    }

    fn add(&mut self, name: &str, matrix: usize, g: &[f32], width: usize) {
        let most = if width <= self.sizes[0] { width } else { self.sizes[1] };
        let block = (1..=most).rev().find(|&size| width.is_multiple_of(size)).unwrap_or(width);
        let sums = self.found.entry(name.to_owned()).or_insert_with(|| Sums::new(width, block));
        sums.add(self.kernels, matrix, g);
    }
}

impl Observer for Covariances {
    fn wants_product(&self, name: &str) -> bool {
        self.products.contains(name)
    }

    fn product(&mut self, name: &str, matrix: usize, g: &[f32], width: usize, _x: &[f32]) {
        if self.wants_product(name) {
            self.add(name, matrix, g, width);
        }
    }

    fn embedding(&mut self, name: &str, tokens: &[u32], g: &[f32]) {
        if self.embeddings.contains(name) {
            self.add(name, 0, g, g.len() / tokens.len());
        }
    }

    fn wants_vector(&self, _name: &str) -> bool {
        false
    }

    fn vector(&mut self, _name: &str, _gradient: &[f64]) {}
}

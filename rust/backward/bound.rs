//! Ops of a plan with their weights: matrices as they are stored, vectors as f32.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::scaled::Scaled;
use crate::error::{Error, Result};
use crate::exec::plan::{Kind, Op};
use crate::exec::weights::Weights;
use crate::kernels::layout::packed::Packed;

/// A matrix in memory: packed for the kernels, or rows of a tensor with scales of its own.
#[derive(Clone)]
pub enum Matrix {
    Packed(Arc<Packed>),
    Scaled { tensor: Arc<Scaled>, first: usize, rows: usize },
}

impl Matrix {
    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Packed(packed) => [packed.rows, packed.columns],
            Self::Scaled { tensor, rows, .. } => [*rows, tensor.columns],
        }
    }

    /// Decodes one row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Packed(packed) => packed.row(row, out),
            Self::Scaled { tensor, first, .. } => tensor.row(first + row, out),
        }
    }

    /// The matrix for products with rows of its columns.
    pub fn packed(&self) -> Arc<Packed> {
        match self {
            Self::Packed(packed) => Arc::clone(packed),
            Self::Scaled { tensor, first, rows } => {
                let values = values(tensor, *first, *rows);
                Arc::new(Packed::of_rows(&values, tensor.columns))
            }
        }
    }

    /// The transposed matrix, for products with rows of gradients.
    pub fn transposed(&self) -> Packed {
        match self {
            Self::Packed(packed) => packed.transposed(),
            Self::Scaled { tensor, first, rows } => {
                Packed::of_columns(&values(tensor, *first, *rows), tensor.columns)
            }
        }
    }
}

/// Some rows of a tensor as f32.
fn values(tensor: &Scaled, first: usize, rows: usize) -> Vec<f32> {
    let mut values = vec![0.0; rows * tensor.columns];
    let all = values.par_chunks_exact_mut(tensor.columns).enumerate();
    all.for_each(|(row, out)| tensor.row(first + row, out));
    values
}

/// An op with its weights.
pub struct Bound {
    pub op: Op,
    /// The matrix of a product or an embedding; of experts one each.
    pub matrices: Vec<Matrix>,
    /// Weight vectors and biases; of experts one row each.
    pub vectors: Vec<Vec<f32>>,
    /// Columns of each input.
    pub widths: Vec<usize>,
}

impl Bound {
    /// Finds the weights of `op`, whose inputs have `widths` columns; `scaled` tensors come first.
    ///
    /// # Errors
    ///
    /// `Input` if a tensor is missing, `Shape` if it has another shape.
    pub fn new(
        op: &Op,
        widths: &[usize],
        weights: &Weights,
        scaled: &HashMap<String, Arc<Scaled>>,
    ) -> Result<Self> {
        let (matrices, shape) = match op.kind {
            Kind::Embed {} | Kind::EmbedPosition {} => (1, [None, Some(op.width)]),
            Kind::Linear {} => (1, [Some(op.width), Some(widths[0])]),
            Kind::ExpertLinear { experts } => (experts, [Some(op.width / (widths[1] / 2)), None]),
            Kind::ShortConv { .. } => (1, [Some(op.width), None]),
            _ => (0, [None, None]),
        };
        let found = match op.weights.first().filter(|_| matrices > 0) {
            Some(name) => find(name, matrices, weights, scaled)?,
            None => Vec::new(),
        };
        for matrix in &found {
            let fits = |want: Option<usize>, size: usize| want.is_none_or(|want| want == size);
            let [rows, columns] = matrix.shape();
            if !fits(shape[0], rows) || !fits(shape[1], columns) {
                let name = &op.weights[0];
                return Err(Error::shape(format!("`{name}` has a matrix of {rows} x {columns}")));
            }
        }
        let vectors = op.weights[usize::from(matrices > 0)..].iter();
        let vectors =
            vectors.map(|name| vector(op, widths, name, weights)).collect::<Result<_>>()?;
        Ok(Self { op: op.clone(), matrices: found, vectors, widths: widths.to_vec() })
    }
}

/// The matrices of a tensor.
fn find(
    name: &str,
    count: usize,
    weights: &Weights,
    scaled: &HashMap<String, Arc<Scaled>>,
) -> Result<Vec<Matrix>> {
    if let Some(tensor) = scaled.get(name) {
        if !tensor.rows.is_multiple_of(count) {
            let rows = tensor.rows;
            return Err(Error::shape(format!("`{name}` has {rows} rows for {count} matrices")));
        }
        let rows = tensor.rows / count;
        let matrix =
            |index| Matrix::Scaled { tensor: Arc::clone(tensor), first: index * rows, rows };
        return Ok((0..count).map(matrix).collect());
    }
    let found = weights.matrices(name)?;
    if found.len() != count {
        return Err(Error::shape(format!("`{name}` holds {} matrices, not {count}", found.len())));
    }
    Ok(found.iter().map(|packed| Matrix::Packed(Arc::clone(packed))).collect())
}

/// A weight vector of an op, or the biases of its experts.
fn vector(op: &Op, widths: &[usize], name: &str, weights: &Weights) -> Result<Vec<f32>> {
    match op.kind {
        Kind::RmsNorm { heads, .. } => weights.vector(name, op.width / heads),
        Kind::Attend { heads, .. } => weights.vector(name, heads),
        Kind::ExpertLinear { experts } => {
            let size = op.width / (widths[1] / 2);
            let table = weights.find(name, Some(experts), size)?;
            let mut out = vec![0.0; experts * size];
            for (expert, out) in out.chunks_exact_mut(size).enumerate() {
                table.row(expert, out);
            }
            Ok(out)
        }
        _ => weights.vector(name, op.width),
    }
}

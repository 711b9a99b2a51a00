//! A covariance as the metric of errors, and rows with their errors and gradients in it.

use super::scheme::Scheme;
use crate::error::{Error, Result};
use crate::formats::QuantizedRow;
use crate::memory::zeros;

/// Zeros of [size, size].
///
/// # Errors
///
/// `Memory` where there is no place for them.
pub fn square(size: usize) -> Result<Vec<f64>> {
    let refused = || Error::memory(size.saturating_mul(size).saturating_mul(size_of::<f64>()));
    size.checked_mul(size).and_then(zeros).ok_or_else(refused)
}

/// A symmetric matrix H of [size, size] with what was added to its diagonal.
pub struct Metric {
    pub matrix: Vec<f64>,
    pub size: usize,
    /// 1 / H_jj, 0 where H_jj is.
    pub inverse: Vec<f64>,
    pub added: f64,
}

impl Metric {
    /// The `covariance` with `added` to its diagonal.
    ///
    /// # Errors
    ///
    /// `Memory` where a copy of it has no place.
    pub fn new(covariance: &[f64], size: usize, added: f64) -> Result<Self> {
        let mut matrix = square(size)?;
        matrix.copy_from_slice(covariance);
        let inverse = |x: f64| if x > 0.0 { 1.0 / x } else { 0.0 };
        for j in 0..size {
            matrix[j * size + j] += added;
        }
        let inverse = (0..size).map(|j| inverse(matrix[j * size + j])).collect();
        Ok(Self { matrix, size, inverse, added })
    }
}

/// Rows with their errors and the gradient, [rows, columns].
pub struct State<'a> {
    pub scheme: &'a Scheme,
    pub metric: &'a Metric,
    pub weights: &'a [f32],
    pub rows: &'a mut [QuantizedRow],
    pub errors: Vec<f64>,
    /// E H.
    pub gradient: Vec<f64>,
}

/// out -= line * factor.
#[inline(always)]
pub fn subtract(out: &mut [f64], line: &[f64], factor: f64) {
    for (out, x) in out.iter_mut().zip(line) {
        *out -= x * factor;
    }
}

//! A covariance as the metric of errors, and rows with their errors and gradients in it.

use super::scheme::Scheme;
use crate::formats::QuantizedRow;

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
    pub fn new(covariance: &[f64], size: usize, added: f64) -> Self {
        let mut matrix = covariance.to_vec();
        let inverse = |x: f64| if x > 0.0 { 1.0 / x } else { 0.0 };
        for j in 0..size {
            matrix[j * size + j] += added;
        }
        let inverse = (0..size).map(|j| inverse(matrix[j * size + j])).collect();
        Self { matrix, size, inverse, added }
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

//! What watches a backward pass: it sees the gradients of weights while they are made.

/// Sees the gradients of weights while the backward pass makes them.
pub trait Observer {
    /// True if `product` does anything for this weight.
    fn wants_product(&self, name: &str) -> bool;
    /// Matrix `matrix` of a weight multiplied rows `x`; `g` are the gradients of the results, rows
    /// of `width` floats.
    fn product(&mut self, name: &str, matrix: usize, g: &[f32], width: usize, x: &[f32]);
    /// The table looked up `tokens`; `g` are the gradients of their rows.
    fn embedding(&mut self, name: &str, tokens: &[u32], g: &[f32]);
    /// True if `vector` does anything for this weight.
    fn wants_vector(&self, name: &str) -> bool;
    /// The gradient of the weight vector of a norm, or of a bias.
    fn vector(&mut self, name: &str, gradient: &[f64]);
}

/// Sees nothing.
pub struct NoObserver;

impl Observer for NoObserver {
    fn wants_product(&self, _name: &str) -> bool {
        false
    }

    fn product(&mut self, _name: &str, _matrix: usize, _g: &[f32], _width: usize, _x: &[f32]) {}

    fn embedding(&mut self, _name: &str, _tokens: &[u32], _g: &[f32]) {}

    fn wants_vector(&self, _name: &str) -> bool {
        false
    }

    fn vector(&mut self, _name: &str, _gradient: &[f64]) {}
}

//! Element functions, norms and gates on rows of f32, and the derivatives of each.
//!
//! `reference/gradients.py` has the formulas. Sums over a row run in f64, in order.

use rayon::prelude::*;

use crate::kernels::Kernels;

/// Floats that a thread takes at a time.
const SIZE: usize = 1 << 14;

/// Applies a kernel to each element.
pub fn unary(f: unsafe fn(*const f32, *mut f32, usize), x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(SIZE).zip(x.par_chunks(SIZE)).for_each(|(out, x)| {
        // SAFETY: both hold as many floats, and the kernels are those of this CPU.
        unsafe { f(x.as_ptr(), out.as_mut_ptr(), out.len()) };
    });
    out
}

/// Applies a kernel to each pair of elements.
pub fn binary(
    f: unsafe fn(*const f32, *const f32, *mut f32, usize),
    x: &[f32],
    y: &[f32],
) -> Vec<f32> {
    assert_eq!(x.len(), y.len());
    let mut out = vec![0.0; x.len()];
    let pairs = x.par_chunks(SIZE).zip(y.par_chunks(SIZE));
    out.par_chunks_mut(SIZE).zip(pairs).for_each(|(out, (x, y))| {
        // SAFETY: all hold as many floats, and the kernels are those of this CPU.
        unsafe { f(x.as_ptr(), y.as_ptr(), out.as_mut_ptr(), out.len()) };
    });
    out
}

/// Applies `f` to each element of `g` and the elements of `x` and `y` at its place.
pub fn map(g: &[f32], x: &[f32], y: &[f32], f: impl Fn(f32, f32, f32) -> f32 + Sync) -> Vec<f32> {
    assert!(g.len() == x.len() && x.len() == y.len());
    let mut out = vec![0.0; g.len()];
    let pairs = x.par_chunks(SIZE).zip(y.par_chunks(SIZE));
    out.par_chunks_mut(SIZE).zip(g.par_chunks(SIZE).zip(pairs)).for_each(|(out, (g, (x, y)))| {
        for (((out, g), x), y) in out.iter_mut().zip(g).zip(x).zip(y) {
            *out = f(*g, *x, *y);
        }
    });
    out
}

/// Applies `f` to each row of `from` columns, which writes a row of `to` columns.
pub fn each_row(
    x: &[f32],
    [from, to]: [usize; 2],
    f: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut out = vec![0.0; x.len() / from * to];
    let rows = out.par_chunks_exact_mut(to).zip(x.par_chunks_exact(from)).enumerate();
    rows.with_min_len(8).for_each(|(row, (out, x))| f(row, x, out));
    out
}

/// x sigmoid(x) and its derivative, from s = sigmoid(x).
pub fn silu(x: f32, s: f32) -> [f32; 2] {
    [x * s, s * (1.0 + x * (1.0 - s))]
}

/// gelu(x) and its derivative, from s = sigmoid of `gelu_argument(x)`.
pub fn gelu(x: f32, s: f32) -> [f32; 2] {
    let slope = GELU * (1.0 + 3.0 * CUBE * x * x);
    [x * s, s * (1.0 + x * (1.0 - s) * slope)]
}

/// 2 sqrt(2 / pi)
const GELU: f32 = 1.595_769;
/// The factor of x^3 in GELU's approximation.
const CUBE: f32 = 0.044_715;

/// 2 sqrt(2 / pi) (x + 0.044715 x^3), whose sigmoid is GELU's factor of x.
pub fn gelu_argument(x: f32) -> f32 {
    GELU * (x + CUBE * x * x * x)
}

/// The gradient of a gate act(gate) * up with respect to gate and up; `act` gives the activation
/// and its derivative from the gate and the sigmoid of `argument(gate)`.
pub fn gate(
    kernels: &Kernels,
    g: &[f32],
    [gate, up]: [&[f32]; 2],
    argument: impl Fn(f32) -> f32 + Sync,
    act: impl Fn(f32, f32) -> [f32; 2] + Sync,
) -> [Vec<f32>; 2] {
    let s = unary(kernels.sigmoid, &map(gate, gate, gate, |x, _, _| argument(x)));
    let with_up = map(g, up, up, |g, up, _| g * up);
    let d_gate = map(&with_up, gate, &s, |g, x, s| g * act(x, s)[1]);
    let d_up = map(g, gate, &s, |g, x, s| g * act(x, s)[0]);
    [d_gate, d_up]
}

/// The gradients of GPT-OSS's gate: a value beyond the limit has none.
pub fn clamped_swiglu(
    kernels: &Kernels,
    g: &[f32],
    [gate_, up]: [&[f32]; 2],
    [alpha, limit]: [f32; 2],
) -> [Vec<f32>; 2] {
    let clamped = map(gate_, gate_, gate_, |x, _, _| x.min(limit));
    let raised = map(up, up, up, |u, _, _| u.clamp(-limit, limit) + 1.0);
    let act = |x: f32, s: f32| [x * s, s * (1.0 + alpha * x * (1.0 - s))];
    let [d_gate, d_up] = gate(kernels, g, [&clamped, &raised], |x| alpha * x, act);
    let d_gate = map(&d_gate, gate_, gate_, |g, x, _| if x > limit { 0.0 } else { g });
    let d_up = map(&d_up, up, up, |g, u, _| if u.abs() > limit { 0.0 } else { g });
    [d_gate, d_up]
}

/// A norm of `width` columns: x r, or (x - mean) r, with r = 1 / sqrt(sum / divisor + eps).
#[derive(Clone, Copy)]
pub struct Norm {
    pub width: usize,
    pub eps: f32,
    /// True if the mean is subtracted.
    pub centered: bool,
    /// True for the mean of squares, false for their sum.
    pub mean: bool,
}

impl Norm {
    /// The mean that is subtracted, and the factor r.
    fn facts(&self, x: &[f32]) -> (f64, f64) {
        let n = self.width as f64;
        let mean =
            if self.centered { x.iter().map(|&x| f64::from(x)).sum::<f64>() / n } else { 0.0 };
        let squares: f64 = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
        let divisor = if self.mean { n } else { 1.0 };
        (mean, 1.0 / (squares / divisor + f64::from(self.eps)).sqrt())
    }

    /// The gradient of the norm times `weight` with respect to x: rows of `g` and `x` have the
    /// norm's width. Without weights, `weight` is empty.
    pub fn gradient(&self, g: &[f32], x: &[f32], weight: &[f32]) -> Vec<f32> {
        let (width, divisor) = (self.width, if self.mean { self.width as f64 } else { 1.0 });
        let factor = |i: usize| weight.get(i).map_or(1.0, |&w| f64::from(w));
        each_row(g, [width, width], |row, g, out| {
            let x = &x[row * width..][..width];
            let (mean, r) = self.facts(x);
            let weighted = |i: usize| f64::from(g[i]) * factor(i);
            let normed = |i: usize| (f64::from(x[i]) - mean) * r;
            let along: f64 = (0..width).map(|i| weighted(i) * normed(i)).sum::<f64>() / divisor;
            let average = (0..width).map(weighted).sum::<f64>() / width as f64;
            let average = if self.centered { average } else { 0.0 };
            for (i, out) in out.iter_mut().enumerate() {
                *out = (r * (weighted(i) - average - normed(i) * along)) as f32;
            }
        })
    }

    /// The gradient with respect to the weight, summed over rows in order.
    pub fn weight_gradient(&self, g: &[f32], x: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        for (g, x) in g.chunks_exact(self.width).zip(x.chunks_exact(self.width)) {
            let (mean, r) = self.facts(x);
            for ((sum, &g), &x) in sums.iter_mut().zip(g).zip(x) {
                *sum += f64::from(g) * (f64::from(x) - mean) * r;
            }
        }
        sums
    }
}

/// The sum of all rows of `width` floats, in order.
pub fn sum_rows(g: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for row in g.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, &g)| *sum += f64::from(g));
    }
    sums
}

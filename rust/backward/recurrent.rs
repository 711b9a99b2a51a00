//! Ops with a state over entire windows: the short convolution and the gated delta rule, with
//! their gradients.
//!
//! The delta rule of one head, with a = exp(decay), for each token:
//!
//! ```text
//! S' = a S,   u = beta (v - S'^T k),   S = S' + k u^T,   o = scale S^T q
//! ```
//!
//! The backward pass needs the states S' of all tokens: a head of one window stores them while it is
//! computed.

use std::ops::Range;

use rayon::prelude::*;

use super::rows::each_row;
use crate::exec::plan::Sharing;
use crate::kernels::Kernels;

/// Applies each channel's weights, `weights` [kernel][channels], to the last rows of a window.
pub fn short_conv(
    kernels: &Kernels,
    x: &[f32],
    weights: &[f32],
    channels: usize,
    windows: &[Range<usize>],
) -> Vec<f32> {
    let kernel = weights.len() / channels;
    let starts: Vec<usize> = windows.iter().flat_map(|w| w.clone().map(|_| w.start)).collect();
    each_row(x, [channels, channels], |row, _, out| {
        let seen = (row + 1 - starts[row]).min(kernel);
        let rows = x[(row + 1 - seen) * channels..(row + 1) * channels].chunks_exact(channels);
        let rows: Vec<_> = rows.map(<[f32]>::as_ptr).collect();
        let weights = weights[(kernel - seen) * channels..].chunks_exact(channels);
        let weights: Vec<_> = weights.map(<[f32]>::as_ptr).collect();
        // SAFETY: all rows hold a float for each channel; the kernels are those of this CPU.
        unsafe { (kernels.short_conv)(&rows, &weights, out.as_mut_ptr(), channels) };
    })
}

/// The gradient of `short_conv` with respect to x.
pub fn short_conv_gradient(
    g: &[f32],
    weights: &[f32],
    channels: usize,
    windows: &[Range<usize>],
) -> Vec<f32> {
    let kernel = weights.len() / channels;
    let ends: Vec<usize> = windows.iter().flat_map(|w| w.clone().map(|_| w.end)).collect();
    each_row(g, [channels, channels], |row, _, out| {
        for j in (0..kernel).rev() {
            let later = row + kernel - 1 - j;
            if later < ends[row] {
                let g = &g[later * channels..][..channels];
                for ((out, g), w) in out.iter_mut().zip(g).zip(&weights[j * channels..]) {
                    *out += w * g;
                }
            }
        }
    })
}

/// The derivative of rate * ln(1 + exp(x + bias)) times g.
pub fn log_decay_gradient(g: &[f32], x: &[f32], rate: &[f32], bias: &[f32]) -> Vec<f32> {
    let width = rate.len();
    each_row(g, [width, width], |row, g, out| {
        for (i, out) in out.iter_mut().enumerate() {
            let y = f64::from(x[row * width + i]) + f64::from(bias[i]);
            *out = (f64::from(g[i]) * f64::from(rate[i]) / (1.0 + (-y).exp())) as f32;
        }
    })
}

/// rate * ln(1 + exp(x + bias)).
pub fn log_decay(x: &[f32], rate: &[f32], bias: &[f32]) -> Vec<f32> {
    let width = rate.len();
    each_row(x, [width, width], |_, x, out| {
        for (i, out) in out.iter_mut().enumerate() {
            let y = f64::from(x[i]) + f64::from(bias[i]);
            *out = (f64::from(rate[i]) * (y.max(0.0) + (-y.abs()).exp().ln_1p())) as f32;
        }
    })
}

/// The gated delta rule of all heads.
pub struct DeltaRule<'a> {
    pub heads: usize,
    pub key_heads: usize,
    pub key_size: usize,
    pub value_size: usize,
    pub scale: f32,
    pub sharing: Sharing,
    pub windows: &'a [Range<usize>],
}

/// q, k, v, decay and beta, each a row for each token.
pub type Inputs<'a> = [&'a [f32]; 5];

/// One head of one window: its rows of q, k and v, its decays and betas.
struct Head<'a> {
    q: Vec<&'a [f32]>,
    k: Vec<&'a [f32]>,
    v: Vec<&'a [f32]>,
    decay: Vec<f32>,
    beta: Vec<f32>,
}

/// What one head of one window gives: rows of the results, or of the gradients of each input.
type Rows = Vec<f32>;

impl DeltaRule<'_> {
    /// The results [n, heads * value size].
    pub fn forward(&self, inputs: Inputs) -> Vec<f32> {
        let mut out = vec![0.0; inputs[2].len()];
        let found: Vec<Rows> =
            self.tasks().par_iter().map(|task| self.run(&self.head(inputs, *task), None)).collect();
        for ((window, head), rows) in self.tasks().into_iter().zip(found) {
            self.add_rows(&mut out, self.heads * self.value_size, window, head, &rows);
        }
        out
    }

    /// The gradients with respect to q, k, v, decay and beta.
    pub fn backward(&self, inputs: Inputs, g: &[f32]) -> [Vec<f32>; 5] {
        let mut out = inputs.map(|x| vec![0.0; x.len()]);
        let found: Vec<[Rows; 5]> = self
            .tasks()
            .par_iter()
            .map(|&task| self.gradients(&self.head(inputs, task), &self.head_rows(g, task)))
            .collect();
        let keys = self.key_heads * self.key_size;
        for ((window, head), rows) in self.tasks().into_iter().zip(found) {
            let owner = self.owner(head);
            let places = [
                (keys, owner),
                (keys, owner),
                (self.heads * self.value_size, head),
                (self.heads, head),
                (self.heads, head),
            ];
            for ((out, rows), (width, head)) in out.iter_mut().zip(&rows).zip(places) {
                self.add_rows(out, width, window, head, rows);
            }
        }
        out
    }

    /// The key head of a value head.
    fn owner(&self, head: usize) -> usize {
        match self.sharing {
            Sharing::Runs => head / (self.heads / self.key_heads),
            Sharing::Turns => head % self.key_heads,
        }
    }

    fn tasks(&self) -> Vec<(usize, usize)> {
        let heads = |window| (0..self.heads).map(move |head| (window, head));
        (0..self.windows.len()).flat_map(heads).collect()
    }

    fn head<'a>(
        &self,
        [q, k, v, decay, beta]: Inputs<'a>,
        (window, head): (usize, usize),
    ) -> Head<'a> {
        let rows = || self.windows[window].clone();
        let (own, width) = (self.owner(head) * self.key_size, self.key_heads * self.key_size);
        let key =
            |x: &'a [f32]| rows().map(|row| &x[row * width + own..][..self.key_size]).collect();
        let column = |x: &[f32]| rows().map(|row| x[row * self.heads + head]).collect();
        let v = self.head_rows(v, (window, head));
        Head { q: key(q), k: key(k), v, decay: column(decay), beta: column(beta) }
    }

    /// The rows of one value head in a window.
    fn head_rows<'a>(&self, x: &'a [f32], (window, head): (usize, usize)) -> Vec<&'a [f32]> {
        let (width, size) = (self.heads * self.value_size, self.value_size);
        self.windows[window].clone().map(|row| &x[row * width + head * size..][..size]).collect()
    }

    /// Adds rows of one head to rows of `width` floats.
    fn add_rows(&self, out: &mut [f32], width: usize, window: usize, head: usize, rows: &[f32]) {
        let size = rows.len() / self.windows[window].len().max(1);
        let out = out[self.windows[window].start * width..].chunks_exact_mut(width);
        for (out, row) in out.zip(rows.chunks_exact(size.max(1))) {
            out[head * size..][..size].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    }

    /// The results of one head; `states`, if given, receives the decayed state of each token and
    /// its update u.
    fn run(&self, head: &Head, mut states: Option<&mut Vec<(Vec<f32>, Vec<f32>)>>) -> Rows {
        let size = self.value_size;
        let mut s = vec![0f32; self.key_size * size];
        let mut out = Vec::with_capacity(head.v.len() * size);
        for t in 0..head.v.len() {
            let a = head.decay[t].exp();
            s.iter_mut().for_each(|x| *x *= a);
            let told = rows_times(head.k[t], &s, size);
            let u: Vec<f32> =
                head.v[t].iter().zip(&told).map(|(v, old)| head.beta[t] * (v - old)).collect();
            if let Some(states) = states.as_deref_mut() {
                states.push((s.clone(), u.clone()));
            }
            add_outer(&mut s, head.k[t], &u, 1.0);
            out.extend(rows_times(head.q[t], &s, size).iter().map(|x| x * self.scale));
        }
        out
    }

    /// The gradients of one head for the gradients `g` of its results.
    fn gradients(&self, head: &Head, g: &[&[f32]]) -> [Rows; 5] {
        let (n, size) = (head.v.len(), self.value_size);
        let mut states = Vec::with_capacity(n);
        self.run(head, Some(&mut states));
        let widths = [self.key_size, self.key_size, size, 1, 1];
        let mut out = widths.map(|width| vec![0f32; n * width]);
        let mut ds = vec![0f32; self.key_size * size];
        for t in (0..n).rev() {
            let (mut s, u) = states.pop().expect("a state for each token");
            let (q, k, beta, a) = (head.q[t], head.k[t], head.beta[t], head.decay[t].exp());
            let g: Vec<f32> = g[t].iter().map(|g| g * self.scale).collect();
            let told = rows_times(k, &s, size);
            add_outer(&mut ds, q, &g, 1.0);
            let du = rows_times(k, &ds, size);
            let dv: Vec<f32> = du.iter().map(|du| beta * du).collect();
            let dtold: Vec<f32> = dv.iter().map(|dv| -dv).collect();
            let [dq, dk, out_v, d_decay, d_beta] = &mut out;
            let mut dk_t = times_column(&ds, &u);
            let more = times_column(&s, &dtold);
            dk_t.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
            add_outer(&mut ds, k, &dtold, 1.0);
            d_decay[t] = dot(&ds, &s);
            d_beta[t] = (0..size).map(|i| (head.v[t][i] - told[i]) * du[i]).sum();
            add_outer(&mut s, k, &u, 1.0);
            dq[t * self.key_size..][..self.key_size].copy_from_slice(&times_column(&s, &g));
            dk[t * self.key_size..][..self.key_size].copy_from_slice(&dk_t);
            out_v[t * size..][..size].copy_from_slice(&dv);
            ds.iter_mut().for_each(|x| *x *= a);
        }
        out
    }
}

/// S^T k: the sum of the rows of `s`, each times an element of `k`.
fn rows_times(k: &[f32], s: &[f32], size: usize) -> Vec<f32> {
    let mut out = vec![0f32; size];
    for (k, row) in k.iter().zip(s.chunks_exact(size)) {
        out.iter_mut().zip(row).for_each(|(sum, x)| *sum += k * x);
    }
    out
}

/// S u: the product of each row of `s` with `u`.
fn times_column(s: &[f32], u: &[f32]) -> Vec<f32> {
    s.chunks_exact(u.len()).map(|row| dot(row, u)).collect()
}

/// S += factor k u^T.
fn add_outer(s: &mut [f32], k: &[f32], u: &[f32], factor: f32) {
    for (k, row) in k.iter().zip(s.chunks_exact_mut(u.len())) {
        let k = factor * k;
        row.iter_mut().zip(u).for_each(|(x, u)| *x += k * u);
    }
}

/// The sum of products, in 16 sums that are added in order.
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (x, y) = (x.chunks(16), y.chunks(16));
    for (x, y) in x.zip(y) {
        sums.iter_mut().zip(x.iter().zip(y)).for_each(|(sum, (x, y))| *sum += x * y);
    }
    sums.iter().sum()
}

//! Causal attention over entire windows, and its gradients with respect to q, k and v.
//!
//! With P = softmax(scale Q K^T) of one head, O = P V and the gradient g of O:
//!
//! ```text
//! dV = P^T g,   dS = P * (g V^T - sum over a row of g * O),   dQ = scale dS K,   dK = scale dS^T Q
//! ```
//!
//! A sink takes probability and has no value, so that only P changes. A task is one key head of one
//! window; its query heads follow one another, which fixes the order of sums.

use std::ops::Range;

use rayon::prelude::*;

use super::products::multiply_rows;
use crate::kernels::Kernels;
use crate::kernels::layout::packed::Packed;
use crate::kernels::product::scratch::Scratch;
use crate::kernels::shape::LANES;

/// Queries, or keys, that a thread multiplies at a time.
const TILE: usize = 120;

/// The shape of an attention and its sinks.
pub struct Attention<'a> {
    pub kernels: &'a Kernels,
    pub heads: usize,
    pub kv_heads: usize,
    /// Elements of a head.
    pub size: usize,
    pub scale: f32,
    /// Last positions that a query sees; 0 for all.
    pub window: usize,
    pub sinks: Option<&'a [f32]>,
    /// Rows of each window of text.
    pub windows: &'a [Range<usize>],
}

/// One head's rows, [n][size], and what follows from them.
struct Head {
    n: usize,
    q: Vec<f32>,
    /// [n][n] probabilities, zero where a query sees no key.
    p: Vec<f32>,
}

impl Attention<'_> {
    /// The results [n, heads * size] of `q`, `k` and `v`, each a row for each token.
    pub fn forward(&self, [q, k, v]: [&[f32]; 3]) -> Vec<f32> {
        let mut out = vec![0.0; q.len()];
        for (task, heads) in self.tasks().iter().zip(self.run(|task| self.results(task, [q, k, v])))
        {
            for (i, values) in heads.iter().enumerate() {
                self.put(&mut out, task.0, self.heads, task.1 * self.group() + i, values);
            }
        }
        out
    }

    /// The gradients with respect to q, k and v for the gradient `g` of the results.
    pub fn backward(&self, qkv: [&[f32]; 3], g: &[f32]) -> [Vec<f32>; 3] {
        let [mut dq, mut dk, mut dv] = qkv.map(|x| vec![0.0; x.len()]);
        let found = self.run(|task| self.gradients(task, qkv, g));
        for (task, (queries, keys, values)) in self.tasks().iter().zip(found) {
            for (i, rows) in queries.iter().enumerate() {
                self.put(&mut dq, task.0, self.heads, task.1 * self.group() + i, rows);
            }
            self.put(&mut dk, task.0, self.kv_heads, task.1, &keys);
            self.put(&mut dv, task.0, self.kv_heads, task.1, &values);
        }
        [dq, dk, dv]
    }

    /// Query heads of a key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// All pairs of a window and a key head.
    fn tasks(&self) -> Vec<(usize, usize)> {
        let heads = |window| (0..self.kv_heads).map(move |head| (window, head));
        (0..self.windows.len()).flat_map(heads).collect()
    }

    fn run<R: Send>(&self, work: impl Fn((usize, usize)) -> R + Send + Sync) -> Vec<R> {
        self.tasks().into_par_iter().map(work).collect()
    }

    /// The rows of one head in a window, from rows of `heads` heads.
    fn rows(&self, x: &[f32], window: usize, heads: usize, head: usize) -> Vec<f32> {
        let width = heads * self.size;
        let rows = x[self.windows[window].start * width..self.windows[window].end * width]
            .chunks_exact(width);
        rows.flat_map(|row| &row[head * self.size..][..self.size]).copied().collect()
    }

    /// Writes the rows of one head in a window.
    fn put(&self, out: &mut [f32], window: usize, heads: usize, head: usize, values: &[f32]) {
        let width = heads * self.size;
        let rows = out[self.windows[window].start * width..].chunks_exact_mut(width);
        for (row, values) in rows.zip(values.chunks_exact(self.size)) {
            row[head * self.size..][..self.size].copy_from_slice(values);
        }
    }

    fn results(&self, (window, kv): (usize, usize), [q, k, v]: [&[f32]; 3]) -> Vec<Vec<f32>> {
        let mut scratch = Scratch::default();
        let [k, v] = [k, v].map(|x| self.rows(x, window, self.kv_heads, kv));
        let keys = Packed::of_rows(&k, self.size);
        let heads = kv * self.group()..(kv + 1) * self.group();
        heads
            .map(|head| {
                let q = self.rows(q, window, self.heads, head);
                let head = self.head(q, &keys, head, &mut scratch);
                self.times_columns(&head.p, &v, head.n, Side::Before, &mut scratch)
            })
            .collect()
    }

    #[allow(clippy::type_complexity)] // gradients of queries, keys and values
    fn gradients(
        &self,
        (window, kv): (usize, usize),
        [q, k, v]: [&[f32]; 3],
        g: &[f32],
    ) -> (Vec<Vec<f32>>, Vec<f32>, Vec<f32>) {
        let mut scratch = Scratch::default();
        let [k, v] = [k, v].map(|x| self.rows(x, window, self.kv_heads, kv));
        let (keys, values) = (Packed::of_rows(&k, self.size), Packed::of_rows(&v, self.size));
        let (mut queries, mut dk, mut dv) = (Vec::new(), vec![0.0; k.len()], vec![0.0; v.len()]);
        for head in kv * self.group()..(kv + 1) * self.group() {
            let g = self.rows(g, window, self.heads, head);
            let q = self.rows(q, window, self.heads, head);
            let mut head = self.head(q, &keys, head, &mut scratch);
            let turned = turn(&head.p, head.n);
            add(&mut dv, &self.times_columns(&turned, &g, head.n, Side::After, &mut scratch));
            self.to_scores(&mut head, &values, &g, &mut scratch);
            queries.push(self.times_columns(&head.p, &k, head.n, Side::Before, &mut scratch));
            let turned = turn(&head.p, head.n);
            add(&mut dk, &self.times_columns(&turned, &head.q, head.n, Side::After, &mut scratch));
        }
        (queries, dk, dv)
    }

    /// The probabilities of head `head`.
    fn head(&self, q: Vec<f32>, keys: &Packed, head: usize, scratch: &mut Scratch) -> Head {
        let n = q.len() / self.size;
        let mut p = self.pairs(&q, keys, n, scratch);
        let sink = self.sinks.map(|sinks| sinks[head]);
        for (query, row) in p.chunks_exact_mut(n).enumerate() {
            let seen = self.seen(query);
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
            softmax(&mut row[seen], self.scale, sink);
        }
        Head { n, q, p }
    }

    /// Keys that query `query` sees.
    fn seen(&self, query: usize) -> Range<usize> {
        let first = if self.window > 0 { (query + 1).saturating_sub(self.window) } else { 0 };
        first..query + 1
    }

    /// Turns the probabilities into the gradient of q k^T.
    fn to_scores(&self, head: &mut Head, values: &Packed, g: &[f32], scratch: &mut Scratch) {
        let n = head.n;
        let products = self.pairs(g, values, n, scratch);
        for (query, (p, dp)) in head.p.chunks_exact_mut(n).zip(products.chunks_exact(n)).enumerate()
        {
            let seen = self.seen(query);
            let (p, dp) = (&mut p[seen.clone()], &dp[seen]);
            let sum: f64 = p.iter().zip(dp).map(|(&p, &dp)| f64::from(p) * f64::from(dp)).sum();
            for (p, dp) in p.iter_mut().zip(dp) {
                *p *= (dp - sum as f32) * self.scale;
            }
        }
    }

    /// The products [n][n] of rows with all rows of `w` up to their own; those further on may be
    /// missing.
    fn pairs(&self, x: &[f32], w: &Packed, n: usize, scratch: &mut Scratch) -> Vec<f32> {
        let mut out = vec![0.0; n * n];
        let tiles = x.chunks(TILE * self.size).zip(out.chunks_mut(TILE * n));
        for (tile, (x, out)) in tiles.enumerate() {
            let blocks = (tile * TILE + out.len() / n).div_ceil(LANES);
            multiply_rows(self.kernels, w, x, None, (out, blocks), scratch);
        }
        out
    }

    /// `m` [n][n] times the rows of `x` [n][size]; the elements of `m` on one side of the diagonal
    /// are zero.
    fn times_columns(
        &self,
        m: &[f32],
        x: &[f32],
        n: usize,
        side: Side,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        for (start, out) in (0..n).step_by(TILE).zip(out.chunks_mut(TILE * self.size)) {
            let end = start + out.len() / self.size;
            let columns = if side == Side::Before { 0..end } else { start..n };
            let w = Packed::of_columns(
                &x[columns.start * self.size..][..columns.len() * self.size],
                self.size,
            );
            let rows = m[start * n..end * n].chunks_exact(n);
            let m: Vec<f32> = rows.flat_map(|row| &row[columns.clone()]).copied().collect();
            let blocks = w.blocks();
            multiply_rows(self.kernels, &w, &m, None, (out, blocks), scratch);
        }
        out
    }
}

/// On which side of the diagonal a matrix has elements, the diagonal included.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// Replaces scores by softmax(scale * scores); a sink is one more score, whose probability is left out.
fn softmax(scores: &mut [f32], scale: f32, sink: Option<f32>) {
    let start = sink.unwrap_or(f32::NEG_INFINITY);
    let peak = scores.iter().fold(start, |most, score| most.max(score * scale));
    let mut total = sink.map_or(0.0, |sink| f64::from(sink - peak).exp());
    for score in scores.iter_mut() {
        *score = exp(*score * scale - peak);
        total += f64::from(*score);
    }
    let inverse = (1.0 / total) as f32;
    scores.iter_mut().for_each(|score| *score *= inverse);
}

/// e^x for x <= 0 to about 1 unit in the last place (the polynomial of Cephes), in plain arithmetic
/// that the compiler turns into vectors; 0 below -87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 as the sum of two numbers; products of the first with small integers are exact.
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    let value = (p * r * r + r + 1.0) * power;
    if x < -87.0 { 0.0 } else { value }
}

/// The transpose of a matrix [n][n].
fn turn(x: &[f32], n: usize) -> Vec<f32> {
    const TILE: usize = 16;
    let mut out = vec![0.0; x.len()];
    for first in (0..n).step_by(TILE) {
        for column in (0..n).step_by(TILE) {
            for i in first..n.min(first + TILE) {
                for j in column..n.min(column + TILE) {
                    out[j * n + i] = x[i * n + j];
                }
            }
        }
    }
    out
}

fn add(sums: &mut [f32], x: &[f32]) {
    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_the_exponential() {
        for i in 0..=870_000 {
            let x = -1e-4 * i as f32;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 3e-7, "exp({x}) = {found}");
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_sink_takes_probability() {
        let mut scores = [0.0, 3f32.ln()];
        softmax(&mut scores, 1.0, Some(0.0));
        assert!((scores[0] - 0.2).abs() < 1e-6 && (scores[1] - 0.6).abs() < 1e-6);
    }
}

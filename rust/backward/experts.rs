//! Products with the experts of each token, the choice of experts, and their gradients.

use rayon::prelude::*;

use super::bound::{Bound, Matrix};
use super::products::multiply_rows;
use super::rows::each_row;
use crate::kernels::Kernels;
use crate::kernels::product::scratch::Scratch;

/// The rows that each expert multiplies: rows of `x`, results in slots (token * used + place).
pub struct Routed<'a> {
    pub kernels: &'a Kernels,
    pub experts: &'a Bound,
    /// Rows of a route: indices, then weights.
    pub route: &'a [f32],
    pub used: usize,
    /// True if `x` has a row for each slot, false if for each token.
    pub per_slot: bool,
}

impl Routed<'_> {
    /// The slots of each expert, in order.
    fn slots(&self) -> Vec<Vec<usize>> {
        let mut slots = vec![Vec::new(); self.experts.matrices.len()];
        for (token, row) in self.route.chunks_exact(2 * self.used).enumerate() {
            for (place, &expert) in row[..self.used].iter().enumerate() {
                slots[expert as usize].push(token * self.used + place);
            }
        }
        slots
    }

    /// The row of x that a slot reads.
    fn row_of(&self, slot: usize) -> usize {
        if self.per_slot { slot } else { slot / self.used }
    }

    /// The results [tokens, used * rows].
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let [rows, columns] = self.experts.matrices[0].shape();
        self.each(rows, |matrix, expert, slots, scratch| {
            let packed = matrix.packed();
            let x = gather(x, columns, slots.iter().map(|&slot| self.row_of(slot)));
            let bias = self.experts.vectors.first();
            let bias = bias.map(|bias| &bias[expert * rows..][..rows]);
            let mut out = vec![0.0; slots.len() * rows];
            multiply_rows(self.kernels, &packed, &x, bias, (&mut out, packed.blocks()), scratch);
            out
        })
    }

    /// The gradient with respect to x; `width` is the number of columns of a token's row.
    pub fn backward(&self, g: &[f32], width: usize) -> Vec<f32> {
        let [rows, columns] = self.experts.matrices[0].shape();
        let slots = self.each(columns, |matrix, _, slots, scratch| {
            let transposed = matrix.transposed();
            let g = gather(g, rows, slots.iter().copied());
            let mut out = vec![0.0; slots.len() * columns];
            let blocks = transposed.blocks();
            multiply_rows(self.kernels, &transposed, &g, None, (&mut out, blocks), scratch);
            out
        });
        if self.per_slot {
            return slots;
        }
        each_row(&slots, [self.used * width, width], |_, slots, out| {
            for slot in slots.chunks_exact(width) {
                out.iter_mut().zip(slot).for_each(|(sum, g)| *sum += g);
            }
        })
    }

    /// Calls `observe` with the rows of g and of x that each expert meets, in the experts' order.
    pub fn observe(&self, g: &[f32], x: &[f32], mut observe: impl FnMut(usize, &[f32], &[f32])) {
        let [rows, columns] = self.experts.matrices[0].shape();
        for (expert, slots) in self.slots().iter().enumerate() {
            let g = gather(g, rows, slots.iter().copied());
            let x = gather(x, columns, slots.iter().map(|&slot| self.row_of(slot)));
            observe(expert, &g, &x);
        }
    }

    /// Rows of `width` floats for all slots, from `work` on the slots of each expert.
    fn each(
        &self,
        width: usize,
        work: impl Fn(&Matrix, usize, &[usize], &mut Scratch) -> Vec<f32> + Sync,
    ) -> Vec<f32> {
        let slots = self.slots();
        let mut out = vec![0.0; self.route.len() / 2 * width];
        let found: Vec<Vec<f32>> = slots
            .par_iter()
            .zip(&self.experts.matrices)
            .enumerate()
            .map_init(Scratch::default, |scratch, (expert, (slots, matrix))| {
                if slots.is_empty() { Vec::new() } else { work(matrix, expert, slots, scratch) }
            })
            .collect();
        for (slots, rows) in slots.iter().zip(found) {
            for (&slot, row) in slots.iter().zip(rows.chunks_exact(width)) {
                out[slot * width..][..width].copy_from_slice(row);
            }
        }
        out
    }
}

/// Some rows of `width` floats.
fn gather(x: &[f32], width: usize, rows: impl Iterator<Item = usize>) -> Vec<f32> {
    rows.flat_map(|row| &x[row * width..][..width]).copied().collect()
}

/// The gradient of a route's weights with respect to its logits; the choice itself has none.
pub fn route(g: &[f32], logits: &[f32], route: &[f32], count: usize, normalize: bool) -> Vec<f32> {
    let width = route.len() / (logits.len() / count);
    let used = width / 2;
    each_row(logits, [count, count], |row, logits, out| {
        let (g, route) = (&g[row * width + used..][..used], &route[row * width..][..width]);
        let (chosen, weights) = route.split_at(used);
        let mean: f64 = g.iter().zip(weights).map(|(&g, &w)| f64::from(g) * f64::from(w)).sum();
        if !normalize {
            let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let e = |x: f32| f64::from(x - peak).exp();
            let total: f64 = logits.iter().map(|&x| e(x)).sum();
            for (out, &x) in out.iter_mut().zip(logits) {
                *out = (-mean * e(x) / total) as f32;
            }
        }
        for ((&expert, &weight), &g) in chosen.iter().zip(weights).zip(g) {
            let own = f64::from(weight) * (f64::from(g) - if normalize { mean } else { 0.0 });
            out[expert as usize] += own as f32;
        }
    })
}

/// The gradients of the weighted sum of experts' rows with respect to the rows and the route.
pub fn expert_sum(g: &[f32], x: &[f32], route: &[f32], used: usize) -> [Vec<f32>; 2] {
    let width = x.len() / (route.len() / 2);
    let rows = each_row(route, [2 * used, used * width], |token, route, out| {
        let g = &g[token * width..][..width];
        for (out, &weight) in out.chunks_exact_mut(width).zip(&route[used..]) {
            out.iter_mut().zip(g).for_each(|(out, g)| *out = weight * g);
        }
    });
    let weights = each_row(x, [used * width, 2 * used], |token, x, out| {
        let g = &g[token * width..][..width];
        for (out, x) in out[used..].iter_mut().zip(x.chunks_exact(width)) {
            *out = x.iter().zip(g).map(|(&x, &g)| f64::from(x) * f64::from(g)).sum::<f64>() as f32;
        }
    });
    [rows, weights]
}

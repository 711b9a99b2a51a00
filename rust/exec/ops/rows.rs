//! Ops on one row at a time: embeddings, norms, rotations, gates, routes, rounding to int8.

use crate::exec::program::{Binary, RowOp, Slot, Unary};
use crate::exec::step::Step;
use crate::kernels::ops::rows;

impl Step<'_> {
    /// Applies `op` to row `row`; if `taken`, rows are those of tokens whose logits are wanted.
    pub fn row(&self, op: &RowOp, row: usize, taken: bool) {
        let token_row = if taken { self.taken[row] } else { row };
        let token = self.tokens[token_row];
        let kernels = self.kernels;
        let at = |slot: Slot| self.at(slot, row);
        // SAFETY: slots hold a row for each token, widths were checked when the plan was compiled,
        // and the row is this thread's alone.
        unsafe {
            match op {
                RowOp::Turns { table } => self.turn(*table, row, token.position),
                RowOp::Embed { table, out } => {
                    table.row(token.id as usize, self.row_of(*out, row));
                }
                RowOp::EmbedPosition { table, out } => {
                    table.row(token.position, self.row_of(*out, row));
                }
                RowOp::RmsNorm { x, weight, out, eps } => {
                    for start in (0..x.width).step_by(weight.len()) {
                        let (x, out) = (at(*x).add(start), at(*out).add(start));
                        (kernels.rms_norm)(x, weight.as_ptr(), out, weight.len(), *eps);
                    }
                }
                RowOp::LayerNorm { x, weight, bias, out, eps } => {
                    let weights = [weight.as_ptr(), bias.as_ptr()];
                    (kernels.layer_norm)(at(*x), weights, at(*out), x.width, *eps);
                }
                RowOp::L2Norm { x, heads, out, eps } => {
                    let size = x.width / heads;
                    for start in (0..x.width).step_by(size) {
                        (kernels.l2_norm)(at(*x).add(start), at(*out).add(start), size, *eps);
                    }
                }
                RowOp::Rope { x, out, heads, table, distance, stride } => {
                    std::ptr::copy(at(*x), at(*out), x.width);
                    let pairs = self.program.ropes[*table].freqs.len();
                    let turns = self.turns[*table].add(token_row * 2 * pairs);
                    let turns = std::slice::from_raw_parts(turns, 2 * pairs);
                    for head in self.row_of(*out, row).chunks_exact_mut(x.width / heads) {
                        rows::rope(head, turns, *distance, *stride);
                    }
                }
                RowOp::Append { k, v, layer } => {
                    self.layers[*layer].append(token.sequence, token.position, at(*k), at(*v));
                }
                RowOp::Part { x, out, parts, start } => {
                    let (width, size) = (x.width / parts, out.width / parts);
                    for part in 0..*parts {
                        let source = at(*x).add(part * width + start);
                        std::ptr::copy(source, at(*out).add(part * size), size);
                    }
                }
                RowOp::Unary { x, out, function } => {
                    let (x, out, n) = (at(*x), at(*out), out.width);
                    match function {
                        Unary::Gelu => (kernels.gelu)(x, out, n),
                        Unary::Silu => (kernels.silu)(x, out, n),
                        Unary::Sigmoid => (kernels.sigmoid)(x, out, n),
                        Unary::Scale(factor) => (kernels.scale)(x, out, n, *factor),
                        Unary::Softcap(cap) => (kernels.softcap)(x, out, n, *cap),
                    }
                }
                RowOp::Binary { x, y, out, function } => {
                    let (x, y, out, n) = (at(*x), at(*y), at(*out), out.width);
                    match function {
                        Binary::Add => (kernels.add)(x, y, out, n),
                        Binary::Swiglu => (kernels.swiglu)(x, y, out, n),
                        Binary::Geglu => (kernels.geglu)(x, y, out, n),
                        Binary::ClampedSwiglu(by) => (kernels.clamped_swiglu)(x, y, out, n, *by),
                    }
                }
                RowOp::Mul { x, y, out } if x.width == y.width => {
                    (kernels.mul)(at(*x), at(*y), at(*out), x.width);
                }
                RowOp::Mul { x, y, out } => {
                    let size = x.width / y.width;
                    for group in 0..y.width {
                        let (x, out) = (at(*x).add(group * size), at(*out).add(group * size));
                        (kernels.scale)(x, out, size, *at(*y).add(group));
                    }
                }
                RowOp::Route { x, out, used, normalize } => {
                    (kernels.route)(at(*x), x.width, at(*out), *used, *normalize);
                }
                RowOp::ExpertSum { x, route, out } => {
                    let used = route.width / 2;
                    (kernels.expert_sum)(at(*x), at(*route).add(used), at(*out), used, out.width);
                }
                RowOp::LogDecay { x, rate, bias, out } => {
                    for (head, (rate, bias)) in rate.iter().zip(bias).enumerate() {
                        *at(*out).add(head) = log_decay(*at(*x).add(head), *rate, *bias);
                    }
                }
                RowOp::Quantize { x, rows, sharing } if self.int8 => {
                    let acts = self.acts_of(*x, *sharing);
                    for row in row * rows..(row + 1) * rows {
                        (kernels.quantize_row)(self.at(*x, row), x.width, &acts, row);
                    }
                }
                RowOp::Quantize { .. } => {}
            }
        }
    }

    /// Row `row` of a slot.
    ///
    /// # Safety
    ///
    /// The row is allocated and this thread's.
    #[allow(clippy::mut_from_ref)] // the slots are raw memory: rows are handed out one by one
    unsafe fn row_of(&self, slot: Slot, row: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(slot, row), slot.width) }
    }

    /// cos and sin of each pair's angle at `position`, times the factor, in f64 and then rounded.
    ///
    /// # Safety
    ///
    /// The row is allocated and this thread's.
    unsafe fn turn(&self, table: usize, row: usize, position: usize) {
        let rope = &self.program.ropes[table];
        let freqs = rope.freqs_for(self.capacity);
        for (i, freq) in freqs.iter().enumerate() {
            let (sin, cos) = (position as f64 * freq).sin_cos();
            // SAFETY: the caller's promise.
            unsafe {
                let turn = self.turns[table].add(2 * (row * freqs.len() + i));
                *turn = (cos * rope.factor) as f32;
                *turn.add(1) = (sin * rope.factor) as f32;
            }
        }
    }
}

/// rate * ln(1 + exp(x + bias)), in f64 and then rounded.
fn log_decay(x: f32, rate: f32, bias: f32) -> f32 {
    let y = f64::from(x) + f64::from(bias);
    let softplus = y.max(0.0) + (-y.abs()).exp().ln_1p();
    (f64::from(rate) * softplus) as f32
}

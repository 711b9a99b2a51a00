//! The gradient of each op with respect to its inputs, and what observers see of its weights.

use super::bound::Bound;
use super::experts;
use super::observer::Observer;
use super::ops::Rows;
use super::products::multiply;
use super::recurrent::{log_decay_gradient, short_conv_gradient};
use super::rows::{self, Norm, each_row, gelu, gelu_argument, map, silu, sum_rows, unary};
use crate::exec::plan::Kind;
use crate::kernels::Kernels;

/// An op in the backward pass: the values that it read and made, and the gradient of its result.
pub struct Node<'a> {
    pub kernels: &'a Kernels,
    pub bound: &'a Bound,
    pub inputs: &'a [&'a [f32]],
    pub output: &'a [f32],
    pub g: &'a [f32],
    pub rows: &'a Rows,
}

impl Node<'_> {
    /// The gradients with respect to the inputs, in their order.
    pub fn gradients(&self, observer: &mut dyn Observer) -> Vec<Vec<f32>> {
        let Self { kernels, bound, inputs, output, g, rows } = *self;
        let width = bound.op.width;
        match &bound.op.kind {
            Kind::Embed {} => {
                observer.embedding(&bound.op.weights[0], &rows.tokens, g);
                Vec::new()
            }
            Kind::EmbedPosition {} => Vec::new(),
            Kind::RmsNorm { .. } | Kind::LayerNorm { .. } | Kind::L2Norm { .. } => {
                vec![self.norm(observer)]
            }
            Kind::Linear {} => vec![self.linear(observer)],
            Kind::ExpertLinear { .. } => vec![self.expert_linear(observer)],
            Kind::ExpertSum {} => {
                experts::expert_sum(g, inputs[0], inputs[1], bound.input_width(1) / 2).into()
            }
            Kind::Route { normalize, .. } => {
                vec![experts::route(g, inputs[0], output, bound.input_width(0), *normalize)]
            }
            Kind::Rope { .. } | Kind::LongRope { .. } => vec![bound.rotate(g, rows, -1.0)],
            Kind::Attend { .. } => {
                let qkv = [inputs[0], inputs[1], inputs[2]];
                bound.attention(kernels, rows).backward(qkv, g).into()
            }
            Kind::ShortConv { .. } => {
                vec![short_conv_gradient(g, &bound.taps(), width, &rows.windows)]
            }
            Kind::DeltaRule { .. } => {
                let all = [0, 1, 2, 3, 4].map(|i: usize| inputs[i]);
                bound.delta(inputs, rows).backward(all, g).into()
            }
            Kind::LogDecay {} => {
                vec![log_decay_gradient(g, inputs[0], &bound.vectors[0], &bound.vectors[1])]
            }
            _ => self.element(),
        }
    }

    /// The gradients of an op that changes or moves elements of a row.
    fn element(&self) -> Vec<Vec<f32>> {
        let Self { kernels, bound, inputs, output, g, .. } = *self;
        let width = bound.op.width;
        let gate = |argument: fn(f32) -> f32, act: fn(f32, f32) -> [f32; 2]| {
            rows::gate(kernels, g, [inputs[0], inputs[1]], argument, act).into()
        };
        match &bound.op.kind {
            Kind::Add {} => vec![g.to_vec(), g.to_vec()],
            Kind::Swiglu {} => gate(|x| x, silu),
            Kind::Geglu {} => gate(gelu_argument, gelu),
            Kind::ClampedSwiglu { alpha, limit } => {
                let by = [*alpha, *limit];
                rows::clamped_swiglu(kernels, g, [inputs[0], inputs[1]], by).into()
            }
            Kind::Gelu {} => {
                let x = inputs[0];
                let s = unary(kernels.sigmoid, &map(x, x, x, |x, _, _| gelu_argument(x)));
                vec![map(g, x, &s, |g, x, s| g * gelu(x, s)[1])]
            }
            Kind::Silu {} => {
                let s = unary(kernels.sigmoid, inputs[0]);
                vec![map(g, inputs[0], &s, |g, x, s| g * silu(x, s)[1])]
            }
            Kind::Sigmoid {} => vec![map(g, output, output, |g, y, _| g * y * (1.0 - y))],
            Kind::Softcap { cap } => {
                vec![map(g, output, output, |g, y, _| g * (1.0 - (y / cap) * (y / cap)))]
            }
            Kind::Scale { factor } => vec![map(g, g, g, |g, _, _| g * factor)],
            Kind::Mul {} => self.mul(),
            Kind::Part { parts, start } => {
                let from = bound.input_width(0);
                let (size, piece) = (width / parts, from / parts);
                vec![each_row(g, [width, from], |_, g, out| {
                    for (out, g) in out.chunks_exact_mut(piece).zip(g.chunks_exact(size)) {
                        out[*start..][..size].copy_from_slice(g);
                    }
                })]
            }
            _ => vec![g.to_vec()],
        }
    }

    /// Of a product with a shorter y, whose elements each multiply a piece of x.
    fn mul(&self) -> Vec<Vec<f32>> {
        let Self { bound, inputs, g, .. } = *self;
        let (width, few) = (bound.op.width, bound.input_width(1));
        let size = width / few;
        let dx = each_row(g, [width, width], |row, g, out| {
            let y = &inputs[1][row * few..][..few];
            for (i, out) in out.iter_mut().enumerate() {
                *out = g[i] * y[i / size];
            }
        });
        let dy = each_row(g, [width, few], |row, g, out| {
            let x = &inputs[0][row * width..][..width];
            let pieces = g.chunks_exact(size).zip(x.chunks_exact(size));
            for (out, (g, x)) in out.iter_mut().zip(pieces) {
                let sum: f64 = g.iter().zip(x).map(|(&g, &x)| f64::from(g) * f64::from(x)).sum();
                *out = sum as f32;
            }
        });
        vec![dx, dy]
    }

    fn norm(&self, observer: &mut dyn Observer) -> Vec<f32> {
        let Self { bound, inputs, g, .. } = *self;
        let width = bound.op.width;
        let (heads, eps, centered, mean) = match bound.op.kind {
            Kind::RmsNorm { eps, heads } => (heads, eps, false, true),
            Kind::L2Norm { eps, heads } => (heads, eps, false, false),
            Kind::LayerNorm { eps } => (1, eps, true, true),
            _ => unreachable!("the caller has matched the kind"),
        };
        let norm = Norm { width: width / heads, eps, centered, mean };
        let names = &bound.op.weights;
        if let Some(name) = names.first().filter(|name| observer.wants_vector(name)) {
            observer.vector(name, &norm.weight_gradient(g, inputs[0]));
        }
        if let Some(name) = names.get(1).filter(|name| observer.wants_vector(name)) {
            observer.vector(name, &sum_rows(g, width));
        }
        norm.gradient(g, inputs[0], bound.vectors.first().map_or(&[], Vec::as_slice))
    }

    fn linear(&self, observer: &mut dyn Observer) -> Vec<f32> {
        let Self { kernels, bound, inputs, g, .. } = *self;
        let names = &bound.op.weights;
        observer.product(&names[0], 0, g, bound.op.width, inputs[0]);
        if let Some(name) = names.get(1).filter(|name| observer.wants_vector(name)) {
            observer.vector(name, &sum_rows(g, bound.op.width));
        }
        multiply(kernels, &bound.matrices[0].transposed(), g, None)
    }

    fn expert_linear(&self, observer: &mut dyn Observer) -> Vec<f32> {
        let routed = self.bound.routed(self.kernels, self.inputs);
        let (name, width) = (&self.bound.op.weights[0], self.bound.matrices[0].shape()[0]);
        if observer.wants_product(name) {
            routed.observe(self.g, self.inputs[0], |expert, g, x| {
                observer.product(name, expert, g, width, x);
            });
        }
        routed.backward(self.g, self.bound.input_width(0))
    }
}

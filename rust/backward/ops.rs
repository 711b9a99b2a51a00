//! The ops of a plan over entire windows: the value of each, computed with the executor's kernels.

use std::ops::Range;

use super::attention::Attention;
use super::bound::Bound;
use super::experts::Routed;
use super::products::multiply;
use super::recurrent::{DeltaRule, log_decay, short_conv};
use super::rows::{binary, each_row, unary};
use crate::exec::plan::{Kind, Pairing};
use crate::kernels::Kernels;
use crate::kernels::ops::rows::rope;

/// The rows of values: tokens of several windows of text, one after another.
pub struct Rows {
    pub tokens: Vec<u32>,
    pub windows: Vec<Range<usize>>,
    /// Tokens of the longest window, which chooses between the frequencies of LongRoPE.
    pub longest: usize,
}

impl Rows {
    /// The position of each row in its window.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.windows.iter().flat_map(|window| 0..window.len())
    }
}

impl Bound {
    /// The value of the op, a row of `op.width` floats for each token.
    pub fn value(&self, kernels: &Kernels, inputs: &[&[f32]], rows: &Rows) -> Vec<f32> {
        let width = self.op.width;
        let same = [width, width];
        match &self.op.kind {
            Kind::Embed {} => self.look_up(rows.tokens.iter().map(|&token| token as usize)),
            Kind::EmbedPosition {} => self.look_up(rows.positions()),
            Kind::RmsNorm { eps, heads } => {
                let (size, weight) = (width / heads, &self.vectors[0]);
                each_row(inputs[0], [size, size], |_, x, out| {
                    let weight = weight.as_ptr();
                    // SAFETY: a row, its result and the weight hold `size` floats.
                    unsafe { (kernels.rms_norm)(x.as_ptr(), weight, out.as_mut_ptr(), size, *eps) };
                })
            }
            Kind::LayerNorm { eps } => {
                let weights = [0, 1].map(|i: usize| &self.vectors[i]);
                each_row(inputs[0], same, |_, x, out| {
                    let weights = weights.map(|weight| weight.as_ptr());
                    // SAFETY: a row, its result and both weights hold `width` floats.
                    unsafe {
                        (kernels.layer_norm)(x.as_ptr(), weights, out.as_mut_ptr(), width, *eps)
                    };
                })
            }
            Kind::L2Norm { eps, heads } => {
                let size = width / heads;
                each_row(inputs[0], [size, size], |_, x, out| {
                    // SAFETY: a row and its result hold `size` floats.
                    unsafe { (kernels.l2_norm)(x.as_ptr(), out.as_mut_ptr(), size, *eps) };
                })
            }
            Kind::Linear {} => {
                let bias = self.vectors.first().map(Vec::as_slice);
                multiply(kernels, &self.matrices[0].packed(), inputs[0], bias)
            }
            Kind::ExpertLinear { .. } => self.routed(kernels, inputs).forward(inputs[0]),
            Kind::Rope { .. } | Kind::LongRope { .. } => self.rotate(inputs[0], rows, 1.0),
            Kind::Attend { .. } => {
                self.attention(kernels, rows).forward([inputs[0], inputs[1], inputs[2]])
            }
            Kind::ShortConv { .. } => {
                short_conv(kernels, inputs[0], &self.taps(), width, &rows.windows)
            }
            Kind::DeltaRule { .. } => {
                self.delta(inputs, rows).forward([0, 1, 2, 3, 4].map(|i: usize| inputs[i]))
            }
            Kind::LogDecay {} => log_decay(inputs[0], &self.vectors[0], &self.vectors[1]),
            _ => self.element(kernels, inputs),
        }
    }

    /// The value of an op that changes or moves elements of a row.
    fn element(&self, kernels: &Kernels, inputs: &[&[f32]]) -> Vec<f32> {
        let (x, width) = (inputs[0], self.op.width);
        match &self.op.kind {
            Kind::Add {} => binary(kernels.add, x, inputs[1]),
            Kind::Swiglu {} => binary(kernels.swiglu, x, inputs[1]),
            Kind::Geglu {} => binary(kernels.geglu, x, inputs[1]),
            Kind::Gelu {} => unary(kernels.gelu, x),
            Kind::Silu {} => unary(kernels.silu, x),
            Kind::Sigmoid {} => unary(kernels.sigmoid, x),
            Kind::Scale { factor } => each_row(x, [width, width], |_, x, out| {
                out.iter_mut().zip(x).for_each(|(out, x)| *out = x * factor);
            }),
            Kind::Softcap { cap } => each_row(x, [width, width], |_, x, out| {
                // SAFETY: a row and its result hold `width` floats.
                unsafe { (kernels.softcap)(x.as_ptr(), out.as_mut_ptr(), width, *cap) };
            }),
            Kind::ClampedSwiglu { alpha, limit } => each_row(x, [width, width], |row, x, out| {
                let (up, by) = (&inputs[1][row * width..][..width], [*alpha, *limit]);
                let (x, up, out) = (x.as_ptr(), up.as_ptr(), out.as_mut_ptr());
                // SAFETY: rows of gate, up and result hold `width` floats.
                unsafe { (kernels.clamped_swiglu)(x, up, out, width, by) };
            }),
            Kind::Mul {} => {
                let few = inputs[1].len() / (x.len() / width);
                each_row(x, [width, width], |row, x, out| {
                    let y = &inputs[1][row * few..][..few];
                    let size = width / few;
                    let pieces = out.chunks_exact_mut(size).zip(x.chunks_exact(size));
                    for ((out, x), y) in pieces.zip(y) {
                        out.iter_mut().zip(x).for_each(|(out, x)| *out = x * y);
                    }
                })
            }
            Kind::Part { parts, start } => {
                let from = self.input_width(0);
                let (size, piece) = (width / parts, from / parts);
                each_row(x, [from, width], |_, x, out| {
                    for (out, x) in out.chunks_exact_mut(size).zip(x.chunks_exact(piece)) {
                        out.copy_from_slice(&x[*start..][..size]);
                    }
                })
            }
            Kind::Route { used, normalize } => {
                let count = self.input_width(0);
                each_row(x, [count, width], |_, x, out| {
                    let (x, out) = (x.as_ptr(), out.as_mut_ptr());
                    // SAFETY: the row has `count` logits, the result two floats for each of `used`.
                    unsafe { (kernels.route)(x, count, out, *used, *normalize) };
                })
            }
            Kind::ExpertSum {} => {
                let used = self.input_width(1) / 2;
                each_row(x, [used * width, width], |row, x, out| {
                    let weights = &inputs[1][row * 2 * used + used..][..used];
                    let (x, weights, out) = (x.as_ptr(), weights.as_ptr(), out.as_mut_ptr());
                    // SAFETY: the row has `used` rows of `width` floats, with a weight for each.
                    unsafe { (kernels.expert_sum)(x, weights, out, used, width) };
                })
            }
            _ => x.to_vec(),
        }
    }

    fn look_up(&self, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        let mut out = Vec::new();
        let mut row = vec![0.0; self.op.width];
        for index in rows {
            self.matrices[0].row(index, &mut row);
            out.extend_from_slice(&row);
        }
        out
    }

    /// Rotates each head of x by the angles of its position, times `direction` (1 or -1).
    pub(super) fn rotate(&self, x: &[f32], rows: &Rows, direction: f32) -> Vec<f32> {
        let (heads, freqs, factor, pairing) = match &self.op.kind {
            Kind::Rope { heads, freqs, factor, pairing } => (heads, freqs, factor, pairing),
            Kind::LongRope { heads, short, long, original, factor, pairing } => {
                let freqs = if rows.longest > *original { long } else { short };
                (heads, freqs, factor, pairing)
            }
            _ => unreachable!("the caller has matched the kind"),
        };
        let (distance, stride) = match pairing {
            Pairing::Neighbours => (1, 2),
            Pairing::Halves => (freqs.len(), 1),
        };
        let positions: Vec<usize> = rows.positions().collect();
        let width = self.op.width;
        each_row(x, [width, width], |row, x, out| {
            let turns: Vec<f32> = freqs
                .iter()
                .flat_map(|freq| {
                    let (sin, cos) = (positions[row] as f64 * freq).sin_cos();
                    [(cos * factor) as f32, direction * (sin * factor) as f32]
                })
                .collect();
            out.copy_from_slice(x);
            for head in out.chunks_exact_mut(width / heads) {
                rope(head, &turns, distance, stride);
            }
        })
    }

    pub(super) fn routed<'a>(&'a self, kernels: &'a Kernels, inputs: &[&'a [f32]]) -> Routed<'a> {
        let used = self.input_width(1) / 2;
        let per_slot = self.input_width(0) != self.matrices[0].shape()[1];
        Routed { kernels, experts: self, route: inputs[1], used, per_slot }
    }

    pub(super) fn attention<'a>(&'a self, kernels: &'a Kernels, rows: &'a Rows) -> Attention<'a> {
        let Kind::Attend { heads, kv_heads, scale, window, .. } = self.op.kind else {
            unreachable!("the caller has matched the kind")
        };
        Attention {
            kernels,
            heads,
            kv_heads,
            size: self.op.width / heads,
            scale,
            window,
            sinks: self.vectors.first().map(Vec::as_slice),
            windows: &rows.windows,
        }
    }

    pub(super) fn delta<'a>(&self, inputs: &[&[f32]], rows: &'a Rows) -> DeltaRule<'a> {
        let Kind::DeltaRule { heads, key_heads, scale, sharing, .. } = self.op.kind else {
            unreachable!("the caller has matched the kind")
        };
        let n = rows.tokens.len();
        DeltaRule {
            heads,
            key_heads,
            key_size: inputs[0].len() / n / key_heads,
            value_size: self.op.width / heads,
            scale,
            sharing,
            windows: &rows.windows,
        }
    }

    /// The weights of a convolution as [kernel][channels].
    pub(super) fn taps(&self) -> Vec<f32> {
        let [channels, kernel] = self.matrices[0].shape();
        let (mut out, mut row) = (vec![0.0; channels * kernel], vec![0.0; kernel]);
        for channel in 0..channels {
            self.matrices[0].row(channel, &mut row);
            for (j, value) in row.iter().enumerate() {
                out[j * channels + channel] = *value;
            }
        }
        out
    }

    /// Columns of an input.
    pub(super) fn input_width(&self, input: usize) -> usize {
        self.widths[input]
    }
}

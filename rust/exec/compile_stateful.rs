//! The compiler for ops with state (attention, convolutions, delta rules) and for experts.

use super::compile::Compiler;
use super::plan::{Kind, Op};
use super::program::{
    Attend, ConvShape, DeltaRule, DeltaShape, ExpertJob, Experts, LayerShape, RowOp, ShortConv,
    Slot, Stage, Work,
};
use super::weights::Weights;
use crate::error::{Error, Result};

impl Compiler<'_> {
    pub(super) fn short_conv(
        &mut self,
        index: usize,
        op: &Op,
        layer: usize,
        weights: &Weights,
    ) -> Result<()> {
        let (x, place) = (self.values[op.inputs[0]], self.program.recurrent.convs.len());
        self.check_order(1, layer)?;
        let (weights, kernel) = transposed(weights, &op.weights[0], op.width)?;
        let shape = ConvShape { channels: op.width, kernel };
        self.program.recurrent.convs.push(shape);
        let out = self.result(index, op, false);
        self.stage(Work::ShortConv(ShortConv { x, out, weights, index: place, shape }));
        Ok(())
    }

    pub(super) fn attend(&mut self, index: usize, op: &Op, weights: &Weights) -> Result<()> {
        let Kind::Attend { layer, heads, kv_heads, scale, window } = &op.kind else {
            unreachable!("the caller has matched the kind")
        };
        let [q, k, v] = [0, 1, 2].map(|i| self.values[op.inputs[i]]);
        self.check_order(0, *layer)?;
        let layer = self.program.layers.len();
        let shape = LayerShape { kv_heads: *kv_heads, elements: op.width / heads };
        self.program.layers.push(shape);
        let sinks = op.weights.first().map(|name| weights.vector(name, *heads)).transpose()?;
        self.row(RowOp::Append { k, v, layer });
        let out = self.result(index, op, false);
        self.stage(Work::Attend(Attend {
            q,
            out,
            layer,
            heads: *heads,
            kv_heads: *kv_heads,
            scale: *scale,
            window: *window,
            sinks,
        }));
        Ok(())
    }

    pub(super) fn delta_rule(&mut self, index: usize, op: &Op) -> Result<()> {
        let Kind::DeltaRule { layer, heads, key_heads, scale, sharing } = &op.kind else {
            unreachable!("the caller has matched the kind")
        };
        self.check_order(2, *layer)?;
        let [q, k, v, decay, beta] = [0, 1, 2, 3, 4].map(|i| self.values[op.inputs[i]]);
        let shape = DeltaShape {
            heads: *heads,
            key_size: q.width / key_heads,
            value_size: op.width / heads,
        };
        let place = self.program.recurrent.deltas.len();
        self.program.recurrent.deltas.push(shape);
        let out = self.result(index, op, false);
        self.stage(Work::DeltaRule(DeltaRule {
            q,
            k,
            v,
            decay,
            beta,
            out,
            index: place,
            shape,
            key_heads: *key_heads,
            scale: *scale,
            sharing: *sharing,
        }));
        Ok(())
    }

    /// Adds a product with experts, to the last stage if that has the same input and route.
    pub(super) fn expert_linear(
        &mut self,
        index: usize,
        op: &Op,
        experts: usize,
        weights: &Weights,
    ) -> Result<()> {
        let (x, route) = (self.values[op.inputs[0]], self.values[op.inputs[1]]);
        let used = route.width / 2;
        // All experts of a token read its row, or each has a row of its own.
        let columns = weights.columns(&op.weights[0])?;
        let per_slot = x.width != columns;
        if per_slot && x.width != used * columns {
            return Err(Error::shape(format!(
                "meets matrices of {columns} columns, or {used} rows of them, with {}",
                x.width
            )));
        }
        let rows = op.width / used;
        let found = weights.experts(&op.weights[0], [experts, rows, columns])?;
        let bias = match op.weights.get(1) {
            Some(name) => {
                let table = weights.find(name, Some(experts), rows)?;
                let mut bias = vec![0.0; experts * rows];
                for (expert, out) in bias.chunks_exact_mut(rows).enumerate() {
                    table.row(expert, out);
                }
                Some(bias)
            }
            None => None,
        };
        let sharing = found[0].sharing();
        let out = self.result(index, op, false);
        let job = ExpertJob { name: op.weights[0].clone(), weights: found, bias, out };
        let taken = self.taken;
        match self.program.stages.last_mut() {
            Some(Stage { work: Work::Experts(work), taken: t })
                if work.x == x
                    && work.route == route
                    && work.per_slot == per_slot
                    && work.jobs[0].weights.len() == experts
                    && *t == taken =>
            {
                work.jobs.push(job);
            }
            _ => {
                self.rounded = [false; 2];
                let jobs = vec![job];
                self.stage(Work::Experts(Experts { x, route, used, per_slot, jobs }));
            }
        }
        let rows_per_token = if per_slot { used } else { 1 };
        self.round(Slot { width: columns, ..x }, rows_per_token, sharing);
        Ok(())
    }

    /// Checks that layers with state of a kind come in order, each once, and see all tokens.
    fn check_order(&mut self, kind: usize, layer: usize) -> Result<()> {
        if self.taken {
            return Err(Error::input("comes after `take`, but needs all tokens"));
        }
        if let Some(last) = self.last_layers[kind].replace(layer).filter(|&last| last >= layer) {
            return Err(Error::input(format!(
                "keeps the state of layer {layer} after that of layer {last}: \
                 each has one, in order"
            )));
        }
        Ok(())
    }
}

/// A matrix [channels, kernel] as [kernel][channels], and the kernel's length.
fn transposed(weights: &Weights, name: &str, channels: usize) -> Result<(Vec<f32>, usize)> {
    let table = weights.matrix(name, channels)?;
    let kernel = table.columns;
    let mut row = vec![0.0; kernel];
    let mut out = vec![0.0; channels * kernel];
    for channel in 0..channels {
        table.row(channel, &mut row);
        for (j, value) in row.iter().enumerate() {
            out[j * channels + channel] = *value;
        }
    }
    Ok((out, kernel))
}

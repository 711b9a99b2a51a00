//! From a plan to stages that threads walk with a barrier after each.
//!
//! Ops that work on one row at a time run one after the other within a stage, a row to a thread;
//! products of the same input share a stage. Both change only who computes what when, never a bit.

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::LayerShape;
use super::plan::{Kind, Op, Pairing};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::kernels::isa::CHUNK;
use crate::kernels::packed::Packed;

/// A buffer of rows of `width` floats that values share one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub index: usize,
    pub width: usize,
}

/// One op on one row.
pub enum RowOp {
    Turns { table: usize },
    Embed { table: Arc<Packed>, out: Slot },
    RmsNorm { x: Slot, weight: Vec<f32>, out: Slot, eps: f32 },
    Rope { x: Slot, out: Slot, heads: usize, table: usize, apart: usize, next: usize },
    Append { k: Slot, v: Slot, layer: usize },
    Add { x: Slot, y: Slot, out: Slot },
    Swiglu { gate: Slot, up: Slot, out: Slot },
    Quantize { x: Slot },
}

/// One matrix product.
pub struct Linear {
    pub name: String,
    pub weight: Arc<Packed>,
    pub bias: Option<Vec<f32>>,
    pub out: Slot,
}

/// Attention over one layer's cache.
pub struct Attend {
    pub q: Slot,
    pub out: Slot,
    pub layer: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub scale: f32,
    pub window: usize,
}

pub enum Work {
    Rows(Vec<RowOp>),
    Linear { x: Slot, jobs: Vec<Linear> },
    Attend(Attend),
    Take { x: Slot, out: Slot },
}

/// What happens between two barriers; `taken` when only the wanted rows are left.
pub struct Stage {
    pub work: Work,
    pub taken: bool,
}

/// The frequencies of a rotary embedding, in radians per position.
#[derive(PartialEq)]
pub struct RopeTable {
    pub freqs: Vec<f64>,
    pub factor: f64,
}

/// A plan bound to its weights.
#[derive(Default)]
pub struct Program {
    pub stages: Vec<Stage>,
    /// The widths of the slots; the last op's result is in slot `logits`.
    pub slots: Vec<usize>,
    pub logits: usize,
    pub ropes: Vec<RopeTable>,
    pub layers: Vec<LayerShape>,
    pub vocab: usize,
    /// Chunks of the widest input of a product with int8 activations.
    pub chunks: usize,
}

impl Program {
    /// Whether the plan keeps only the wanted rows; its logits then go straight to the caller.
    pub fn takes(&self) -> bool {
        self.stages.iter().any(|stage| stage.taken)
    }
}

/// Binds `ops` to `weights`.
pub fn compile(ops: &[Op], weights: &Weights) -> Result<Program> {
    let mut compiler = Compiler::new(ops);
    for (index, op) in ops.iter().enumerate() {
        compiler.op(index, op, weights).map_err(|error| Error {
            message: format!("op {index}: {}", error.message),
            ..error
        })?;
    }
    let last = ops.len() - 1;
    let mut program = compiler.program;
    program.logits = compiler.values[last].index;
    program.stages.insert(
        0,
        Stage {
            work: Work::Rows(
                (0..program.ropes.len()).map(|table| RowOp::Turns { table }).collect(),
            ),
            taken: false,
        },
    );
    if program.vocab == 0 {
        return Err(Error::input("the plan has no `embed`, so it takes no tokens"));
    }
    Ok(program)
}

struct Compiler<'a> {
    ops: &'a [Op],
    program: Program,
    values: Vec<Slot>,
    last_use: Vec<usize>,
    free: HashMap<usize, Vec<usize>>,
    taken: bool,
    /// Whether the present stage of products has its input rounded already.
    rounded: bool,
}

impl<'a> Compiler<'a> {
    fn new(ops: &'a [Op]) -> Self {
        let mut last_use: Vec<usize> = (0..ops.len()).collect();
        for (index, op) in ops.iter().enumerate() {
            for &input in &op.inputs {
                last_use[input] = index;
            }
        }
        *last_use.last_mut().expect("a plan has ops") = usize::MAX;
        let (values, free) = (Vec::new(), HashMap::new());
        Self {
            ops,
            program: Program::default(),
            values,
            last_use,
            free,
            taken: false,
            rounded: false,
        }
    }

    fn op(&mut self, index: usize, op: &Op, weights: &Weights) -> Result<()> {
        let input = |i: usize| self.values[op.inputs[i]];
        match &op.kind {
            Kind::Embed {} => {
                let table = weights.find(&op.weights[0], None, op.width)?;
                self.program.vocab = table.rows;
                let out = self.result(index, op, true);
                self.row(RowOp::Embed { table, out });
            }
            Kind::RmsNorm { eps, heads } => {
                let (x, weight) = (input(0), weights.vector(&op.weights[0], op.width / heads)?);
                let out = self.result(index, op, true);
                self.row(RowOp::RmsNorm { x, weight, out, eps: *eps });
            }
            Kind::Rope { heads, freqs, factor, pairing } => {
                let x = input(0);
                let table = self.rope_table(RopeTable { freqs: freqs.clone(), factor: *factor });
                let (apart, next) = match pairing {
                    Pairing::Neighbours => (1, 2),
                    Pairing::Halves => (freqs.len(), 1),
                };
                let out = self.result(index, op, true);
                self.row(RowOp::Rope { x, out, heads: *heads, table, apart, next });
            }
            Kind::Add {} => {
                let (x, y) = (input(0), input(1));
                let out = self.result(index, op, true);
                self.row(RowOp::Add { x, y, out });
            }
            Kind::Swiglu {} => {
                let (gate, up) = (input(0), input(1));
                let out = self.result(index, op, true);
                self.row(RowOp::Swiglu { gate, up, out });
            }
            Kind::Linear {} => self.linear(index, op, weights)?,
            Kind::Attend { layer, heads, kv_heads, scale, window } => {
                let (q, k, v) = (input(0), input(1), input(2));
                let shape = LayerShape { kv_heads: *kv_heads, elements: op.width / heads };
                self.layer(*layer, shape)?;
                self.row(RowOp::Append { k, v, layer: *layer });
                let out = self.result(index, op, false);
                self.stage(Work::Attend(Attend {
                    q,
                    out,
                    layer: *layer,
                    heads: *heads,
                    kv_heads: *kv_heads,
                    scale: *scale,
                    window: *window,
                }));
            }
            Kind::Take {} => {
                let x = input(0);
                let out = self.result(index, op, false);
                self.taken = true;
                self.stage(Work::Take { x, out });
            }
        }
        Ok(())
    }

    /// A product joins the stage before it if that one has the same input.
    fn linear(&mut self, index: usize, op: &Op, weights: &Weights) -> Result<()> {
        let x = self.values[op.inputs[0]];
        let weight = weights.find(&op.weights[0], Some(op.width), x.width)?;
        let bias = op.weights.get(1).map(|name| weights.vector(name, op.width)).transpose()?;
        let rounds = weight.takes_int8();
        let out = self.result(index, op, false);
        let job = Linear { name: op.weights[0].clone(), weight, bias, out };
        let taken = self.taken;
        match self.program.stages.last_mut() {
            Some(Stage { work: Work::Linear { x: shared, jobs }, taken: t })
                if *shared == x && *t == taken =>
            {
                jobs.push(job);
            }
            _ => {
                self.rounded = false;
                self.stage(Work::Linear { x, jobs: vec![job] });
            }
        }
        if rounds && !self.rounded {
            let products = self.program.stages.pop().expect("just pushed");
            self.row(RowOp::Quantize { x });
            self.program.stages.push(products);
            self.program.chunks = self.program.chunks.max(x.width.div_ceil(CHUNK));
            self.rounded = true;
        }
        Ok(())
    }

    /// The slot of an op's result. Where each row is done by itself (`in_place`), the result may
    /// take over the slot of an input of the same width that nothing needs any more.
    fn result(&mut self, index: usize, op: &Op, in_place: bool) -> Slot {
        if in_place {
            self.release(index);
        }
        // The logits go straight to the caller: their slot is shared with nothing.
        let last = index + 1 == self.ops.len();
        let found = if last { None } else { self.free.get_mut(&op.width).and_then(Vec::pop) };
        let slot = Slot {
            index: found.unwrap_or_else(|| {
                self.program.slots.push(op.width);
                self.program.slots.len() - 1
            }),
            width: op.width,
        };
        self.values.push(slot);
        if !in_place {
            self.release(index);
        }
        slot
    }

    fn release(&mut self, index: usize) {
        let mut inputs = self.ops[index].inputs.clone();
        inputs.dedup();
        for value in inputs.into_iter().filter(|&value| self.last_use[value] == index) {
            let slot = self.values[value];
            self.free.entry(slot.width).or_default().push(slot.index);
        }
    }

    fn rope_table(&mut self, table: RopeTable) -> usize {
        let ropes = &mut self.program.ropes;
        ropes.iter().position(|known| *known == table).unwrap_or_else(|| {
            ropes.push(table);
            ropes.len() - 1
        })
    }

    fn layer(&mut self, layer: usize, shape: LayerShape) -> Result<()> {
        if layer != self.program.layers.len() {
            return Err(Error::input(format!(
                "attends over layer {layer}, expected layer {}: each has one, in order",
                self.program.layers.len()
            )));
        }
        self.program.layers.push(shape);
        Ok(())
    }

    fn row(&mut self, op: RowOp) {
        let taken = self.taken;
        match self.program.stages.last_mut() {
            Some(Stage { work: Work::Rows(ops), taken: t }) if *t == taken => ops.push(op),
            _ => self.stage(Work::Rows(vec![op])),
        }
    }

    fn stage(&mut self, work: Work) {
        self.program.stages.push(Stage { work, taken: self.taken });
    }
}

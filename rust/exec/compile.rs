//! From a plan to stages that threads walk with a barrier after each.
//!
//! Ops that work on one row at a time run one after the other within a stage, a row to a thread;
//! products of the same input share a stage. Both change only who computes what when, never a bit.

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::LayerShape;
use super::experts::Experts;
use super::plan::{Kind, Op, Pairing};
use super::recurrent::{DeltaRule, Shapes, ShortConv};
use super::row::{Binary, RowOp, Unary};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::kernels::layout::packed::Packed;
use crate::kernels::shape::CHUNK;

/// A buffer of rows of `width` floats that values share one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub index: usize,
    pub width: usize,
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
    /// One a head, or none.
    pub sinks: Option<Vec<f32>>,
}

pub enum Work {
    Rows(Vec<RowOp>),
    Linear { x: Slot, jobs: Vec<Linear> },
    Experts(Experts),
    Attend(Attend),
    ShortConv(ShortConv),
    DeltaRule(DeltaRule),
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
    /// Other frequencies, for caches with room for more than so many tokens.
    pub long: Option<(usize, Vec<f64>)>,
}

impl RopeTable {
    /// The frequencies for a cache of `capacity` tokens.
    pub fn freqs_for(&self, capacity: usize) -> &[f64] {
        match &self.long {
            Some((original, long)) if capacity > *original => long,
            _ => &self.freqs,
        }
    }
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
    pub recurrent: Shapes,
    pub vocab: usize,
    /// How many positions have an embedding, where the plan asks for one.
    pub positions: Option<usize>,
    /// Chunks of the widest input of products with int8 activations, all rows of a token together: where
    /// each chunk has a scale, and where a span shares one.
    pub chunks: [usize; 2],
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

pub(super) struct Compiler<'a> {
    pub(super) ops: &'a [Op],
    pub(super) program: Program,
    pub(super) values: Vec<Slot>,
    pub(super) last_use: Vec<usize>,
    pub(super) free: HashMap<usize, Vec<usize>>,
    pub(super) taken: bool,
    /// Whether the present stage of products has its input rounded already, in each of both ways.
    pub(super) rounded: [bool; 2],
    /// The layer of the last op of each kind that keeps state: `attend`, `short_conv`, `delta_rule`.
    pub(super) kept: [Option<usize>; 3],
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
            rounded: [false; 2],
            kept: [None; 3],
        }
    }

    fn op(&mut self, index: usize, op: &Op, weights: &Weights) -> Result<()> {
        let input = |i: usize| self.values[op.inputs[i]];
        match &op.kind {
            Kind::Linear {} => self.linear(index, op, weights)?,
            Kind::ExpertLinear { experts } => self.expert_linear(index, op, *experts, weights)?,
            Kind::Attend { .. } => self.attend(index, op, weights)?,
            Kind::ShortConv { layer } => self.short_conv(index, op, *layer, weights)?,
            Kind::DeltaRule { .. } => self.delta_rule(index, op)?,
            Kind::Take {} => {
                let x = input(0);
                let out = self.result(index, op, false);
                self.taken = true;
                self.stage(Work::Take { x, out });
            }
            _ => self.row_op(index, op, weights)?,
        }
        Ok(())
    }

    /// An op that does each row by itself.
    fn row_op(&mut self, index: usize, op: &Op, weights: &Weights) -> Result<()> {
        let input = |i: usize| self.values[op.inputs[i]];
        let vector = |i: usize, size: usize| weights.vector(&op.weights[i], size);
        let unary = |function: Unary| Some((function, input(0)));
        let binary = |function: Binary| Some((function, input(0), input(1)));
        // Parts and sums of slots read other columns than they write: they get a slot of their own.
        let in_place = !matches!(
            op.kind,
            Kind::Part { .. } | Kind::Route { .. } | Kind::ExpertSum {} | Kind::Mul {}
        );
        let simple = match &op.kind {
            Kind::Gelu {} => unary(Unary::Gelu),
            Kind::Silu {} => unary(Unary::Silu),
            Kind::Sigmoid {} => unary(Unary::Sigmoid),
            Kind::Scale { factor } => unary(Unary::Scale(*factor)),
            Kind::Softcap { cap } => unary(Unary::Softcap(*cap)),
            _ => None,
        };
        let pair = match &op.kind {
            Kind::Add {} => binary(Binary::Add),
            Kind::Swiglu {} => binary(Binary::Swiglu),
            Kind::Geglu {} => binary(Binary::Geglu),
            Kind::ClampedSwiglu { alpha, limit } => binary(Binary::ClampedSwiglu([*alpha, *limit])),
            _ => None,
        };
        if let Some((function, x)) = simple {
            let out = self.result(index, op, true);
            self.row(RowOp::Unary { x, out, function });
            return Ok(());
        }
        if let Some((function, x, y)) = pair {
            let out = self.result(index, op, true);
            self.row(RowOp::Binary { x, y, out, function });
            return Ok(());
        }
        let inputs: Vec<Slot> = op.inputs.iter().map(|&value| self.values[value]).collect();
        let made: Box<dyn FnOnce(Slot) -> RowOp> = match &op.kind {
            Kind::Embed {} => {
                let table = weights.find(&op.weights[0], None, op.width)?;
                let known = self.program.vocab; // 0 before the first table
                self.program.vocab = if known == 0 { table.rows } else { known.min(table.rows) };
                Box::new(|out| RowOp::Embed { table, out })
            }
            Kind::EmbedPosition {} => {
                let table = weights.find(&op.weights[0], None, op.width)?;
                let known = self.program.positions.unwrap_or(usize::MAX);
                self.program.positions = Some(known.min(table.rows));
                Box::new(|out| RowOp::EmbedPosition { table, out })
            }
            Kind::RmsNorm { eps, heads } => {
                let (x, weight, eps) = (inputs[0], vector(0, op.width / heads)?, *eps);
                Box::new(move |out| RowOp::RmsNorm { x, weight, out, eps })
            }
            Kind::LayerNorm { eps } => {
                let (x, eps) = (inputs[0], *eps);
                let (weight, bias) = (vector(0, op.width)?, vector(1, op.width)?);
                Box::new(move |out| RowOp::LayerNorm { x, weight, bias, out, eps })
            }
            Kind::L2Norm { eps, heads } => {
                let (x, heads, eps) = (inputs[0], *heads, *eps);
                Box::new(move |out| RowOp::L2Norm { x, heads, out, eps })
            }
            Kind::Rope { heads, freqs, factor, pairing } => {
                let table = RopeTable { freqs: freqs.clone(), factor: *factor, long: None };
                self.rope(inputs[0], *heads, table, *pairing)
            }
            Kind::LongRope { heads, short, long, original, factor, pairing } => {
                let long = Some((*original, long.clone()));
                let table = RopeTable { freqs: short.clone(), factor: *factor, long };
                self.rope(inputs[0], *heads, table, *pairing)
            }
            Kind::Part { parts, start } => {
                let (x, parts, start) = (inputs[0], *parts, *start);
                Box::new(move |out| RowOp::Part { x, out, parts, start })
            }
            Kind::Route { used, normalize } => {
                let (x, used, normalize) = (inputs[0], *used, *normalize);
                Box::new(move |out| RowOp::Route { x, out, used, normalize })
            }
            Kind::Mul {} => Box::new(move |out| RowOp::Mul { x: inputs[0], y: inputs[1], out }),
            Kind::LogDecay {} => {
                let (rate, bias) = (vector(0, op.width)?, vector(1, op.width)?);
                Box::new(move |out| RowOp::LogDecay { x: inputs[0], rate, bias, out })
            }
            _ => Box::new(move |out| RowOp::ExpertSum { x: inputs[0], route: inputs[1], out }),
        };
        let out = self.result(index, op, in_place);
        self.row(made(out));
        Ok(())
    }

    fn rope(
        &mut self,
        x: Slot,
        heads: usize,
        table: RopeTable,
        pairing: Pairing,
    ) -> Box<dyn FnOnce(Slot) -> RowOp> {
        let (apart, next) = match pairing {
            Pairing::Neighbours => (1, 2),
            Pairing::Halves => (table.freqs.len(), 1),
        };
        let table = self.rope_table(table);
        Box::new(move |out| RowOp::Rope { x, out, heads, table, apart, next })
    }

    /// A product joins the stage before it if that one has the same input.
    fn linear(&mut self, index: usize, op: &Op, weights: &Weights) -> Result<()> {
        let x = self.values[op.inputs[0]];
        let weight = weights.find(&op.weights[0], Some(op.width), x.width)?;
        let bias = op.weights.get(1).map(|name| weights.vector(name, op.width)).transpose()?;
        let sharing = weight.sharing();
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
                self.rounded = [false; 2];
                self.stage(Work::Linear { x, jobs: vec![job] });
            }
        }
        self.round(x, 1, sharing);
        Ok(())
    }

    /// Has the input of the last stage rounded, unless it is: `parts` rows of `x.width` a token.
    pub(super) fn round(&mut self, x: Slot, parts: usize, sharing: Option<usize>) {
        let Some(sharing) = sharing else { return };
        let way = usize::from(sharing > 1);
        if !self.rounded[way] {
            let products = self.program.stages.pop().expect("just pushed");
            self.row(RowOp::Quantize { x, parts, sharing });
            self.program.stages.push(products);
            let chunks = &mut self.program.chunks[way];
            *chunks = (*chunks).max(parts * x.width.div_ceil(CHUNK));
            self.rounded[way] = true;
        }
    }

    /// The slot of an op's result. Where each row is done by itself (`in_place`), the result may
    /// take over the slot of an input of the same width that nothing needs any more.
    pub(super) fn result(&mut self, index: usize, op: &Op, in_place: bool) -> Slot {
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
        inputs.sort_unstable();
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

    pub(super) fn row(&mut self, op: RowOp) {
        let taken = self.taken;
        match self.program.stages.last_mut() {
            Some(Stage { work: Work::Rows(ops), taken: t }) if *t == taken => ops.push(op),
            _ => self.stage(Work::Rows(vec![op])),
        }
    }

    pub(super) fn stage(&mut self, work: Work) {
        self.program.stages.push(Stage { work, taken: self.taken });
    }
}

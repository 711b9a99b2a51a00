//! The compiler: from a plan and its weights to stages that threads execute, a barrier after each.
//!
//! Ops that work on one row at a time run one after the other within a stage, a row to a thread;
//! products of the same input share a stage. Neither changes a bit of any result.

use std::collections::HashMap;

use super::plan::{Kind, Op, Pairing};
use super::program::{Binary, Linear, Program, RopeTable, RowOp, Slot, Stage, Unary, Work};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::kernels::shape::CHUNK;

/// Binds `ops` to `weights`.
///
/// # Errors
///
/// A tensor is missing or has another shape, or the plan is not a language model's.
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

/// The compiled part of a plan, and the values that later ops read.
pub(super) struct Compiler<'a> {
    pub(super) ops: &'a [Op],
    pub(super) program: Program,
    pub(super) values: Vec<Slot>,
    pub(super) last_use: Vec<usize>,
    pub(super) free: HashMap<usize, Vec<usize>>,
    pub(super) taken: bool,
    /// True once the input of the present stage is rounded: by chunks of 32, by 256 columns.
    pub(super) rounded: [bool; 2],
    /// The layer of the last op of each kind with state: `attend`, `short_conv`, `delta_rule`.
    pub(super) last_layers: [Option<usize>; 3],
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
            last_layers: [None; 3],
        }
    }

    /// Compiles one op.
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

    /// Adds an op that needs one row at a time.
    fn row_op(&mut self, index: usize, op: &Op, weights: &Weights) -> Result<()> {
        let input = |i: usize| self.values[op.inputs[i]];
        let vector = |i: usize, size: usize| weights.vector(&op.weights[i], size);
        let unary = |function: Unary| Some((function, input(0)));
        let binary = |function: Binary| Some((function, input(0), input(1)));
        // These ops read other columns than they write, so their results need slots of their own.
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

    /// A rotation of each head by the angles of `table`.
    fn rope(
        &mut self,
        x: Slot,
        heads: usize,
        table: RopeTable,
        pairing: Pairing,
    ) -> Box<dyn FnOnce(Slot) -> RowOp> {
        let (distance, stride) = match pairing {
            Pairing::Neighbours => (1, 2),
            Pairing::Halves => (table.freqs.len(), 1),
        };
        let table = self.rope_table(table);
        Box::new(move |out| RowOp::Rope { x, out, heads, table, distance, stride })
    }

    /// Adds a product, to the last stage if that has the same input.
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

    /// Rounds the input of the last stage, if it is not yet: `rows` rows of `x.width` a token.
    pub(super) fn round(&mut self, x: Slot, rows: usize, sharing: Option<usize>) {
        let Some(sharing) = sharing else { return };
        let way = usize::from(sharing > 1);
        if !self.rounded[way] {
            let products = self.program.stages.pop().expect("just pushed");
            self.row(RowOp::Quantize { x, rows, sharing });
            self.program.stages.push(products);
            let chunks = &mut self.program.chunks[way];
            *chunks = (*chunks).max(rows * x.width.div_ceil(CHUNK));
            self.rounded[way] = true;
        }
    }

    /// A slot for an op's result. With `in_place` it may be the slot of an input of the same width
    /// that no later op reads.
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

    /// Frees the slots of inputs that no later op reads.
    fn release(&mut self, index: usize) {
        let mut inputs = self.ops[index].inputs.clone();
        inputs.sort_unstable();
        inputs.dedup();
        for value in inputs.into_iter().filter(|&value| self.last_use[value] == index) {
            let slot = self.values[value];
            self.free.entry(slot.width).or_default().push(slot.index);
        }
    }

    /// The index of a table, which equal rotations share.
    fn rope_table(&mut self, table: RopeTable) -> usize {
        let ropes = &mut self.program.ropes;
        ropes.iter().position(|known| *known == table).unwrap_or_else(|| {
            ropes.push(table);
            ropes.len() - 1
        })
    }

    /// Adds an op on rows to the last stage, or begins a stage.
    pub(super) fn row(&mut self, op: RowOp) {
        let taken = self.taken;
        match self.program.stages.last_mut() {
            Some(Stage { work: Work::Rows(ops), taken: t }) if *t == taken => ops.push(op),
            _ => self.stage(Work::Rows(vec![op])),
        }
    }

    /// Adds a stage.
    pub(super) fn stage(&mut self, work: Work) {
        self.program.stages.push(Stage { work, taken: self.taken });
    }
}

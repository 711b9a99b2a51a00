//! The plan as `python/fewbit/plan.py` writes it: a flat list of ops in JSON.

use serde::Deserialize;

use crate::error::{Error, Result};

/// One op: its inputs are results of earlier ops, its weights are tensor names.
#[derive(Debug, Clone, Deserialize)]
pub struct Op {
    pub inputs: Vec<usize>,
    pub weights: Vec<String>,
    pub width: usize,
    #[serde(flatten)]
    pub kind: Kind,
}

/// What the op does, with its attributes; the meaning of each is in `reference/ops.py`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Kind {
    Embed {},
    RmsNorm { eps: f32, heads: usize },
    Linear {},
    Rope { heads: usize, freqs: Vec<f64>, factor: f64, pairing: Pairing },
    Attend { layer: usize, heads: usize, kv_heads: usize, scale: f32, window: usize },
    Add {},
    Swiglu {},
    Take {},
}

/// Which elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// (2i, 2i + 1)
    Neighbours,
    /// (i, i + half)
    Halves,
}

impl Kind {
    /// Inputs, and the least and most weights.
    fn arity(&self) -> (usize, usize, usize) {
        match self {
            Kind::Embed {} => (0, 1, 1),
            Kind::RmsNorm { .. } => (1, 1, 1),
            Kind::Linear {} => (1, 1, 2),
            Kind::Rope { .. } | Kind::Take {} => (1, 0, 0),
            Kind::Attend { .. } => (3, 0, 0),
            Kind::Add {} | Kind::Swiglu {} => (2, 0, 0),
        }
    }
}

/// Parses a plan and checks everything that needs no weights.
pub fn parse(json: &str) -> Result<Vec<Op>> {
    let list: Vec<serde_json::Value> = serde_json::from_str(json)
        .map_err(|error| Error::input(format!("the plan is not a list in JSON: {error}")))?;
    let mut ops: Vec<Op> = Vec::with_capacity(list.len());
    for (index, value) in list.into_iter().enumerate() {
        let name = value["op"].as_str().unwrap_or("?").to_owned();
        let op: Op = serde_json::from_value(value)
            .map_err(|error| Error::unsupported(format!("op {index} ({name}): {error}")))?;
        check(index, &name, &op, &ops)?;
        ops.push(op);
    }
    if ops.is_empty() {
        return Err(Error::input("the plan has no ops"));
    }
    Ok(ops)
}

fn check(index: usize, name: &str, op: &Op, earlier: &[Op]) -> Result<()> {
    let fail = |what: String| Err(Error::shape(format!("op {index} ({name}) {what}")));
    let (inputs, least, most) = op.kind.arity();
    if op.inputs.len() != inputs || !(least..=most).contains(&op.weights.len()) {
        return fail(format!(
            "takes {inputs} inputs and {least} to {most} weights, found {} and {}",
            op.inputs.len(),
            op.weights.len()
        ));
    }
    if let Some(value) = op.inputs.iter().find(|&&value| value >= index) {
        return fail(format!("names value {value}, which is not made yet"));
    }
    if op.width == 0 {
        return fail("has no columns".to_owned());
    }
    let width = |i: usize| earlier[op.inputs[i]].width;
    let wrong = match &op.kind {
        Kind::Embed {} | Kind::Linear {} => None,
        Kind::Take {} => (width(0) != op.width).then(|| expected(op.width, width(0))),
        Kind::Add {} | Kind::Swiglu {} => (width(0) != op.width || width(1) != op.width)
            .then(|| expected(op.width, width(0).max(width(1)))),
        Kind::RmsNorm { heads, .. } => (width(0) != op.width || !divides(*heads, op.width))
            .then(|| format!("splits {} columns into {heads} heads", width(0))),
        Kind::Rope { heads, freqs, .. } => {
            let fits = divides(*heads, op.width) && 2 * freqs.len() <= op.width / heads;
            (width(0) != op.width || !fits).then(|| {
                format!("rotates {} pairs in {heads} heads of {} columns", freqs.len(), width(0))
            })
        }
        Kind::Attend { heads, kv_heads, .. } => {
            let fits = divides(*kv_heads, *heads)
                && divides(*heads, op.width)
                && width(0) == op.width
                && width(1) == op.width / heads * kv_heads
                && width(2) == width(1);
            (!fits).then(|| {
                format!(
                    "has {heads} query and {kv_heads} key heads over q, k, v of {}, {}, {} columns",
                    width(0),
                    width(1),
                    width(2)
                )
            })
        }
    };
    wrong.map_or(Ok(()), fail)
}

fn divides(part: usize, whole: usize) -> bool {
    part > 0 && whole.is_multiple_of(part)
}

fn expected(want: usize, found: usize) -> String {
    format!("expects {want} columns, found {found}")
}

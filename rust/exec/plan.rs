//! The plan of a model as Python writes it in JSON: a flat list of ops, parsed and checked.

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

/// The kind of an op and its attributes; `reference/ops.py` defines each.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Kind {
    Embed {},
    EmbedPosition {},
    RmsNorm {
        eps: f32,
        heads: usize,
    },
    LayerNorm {
        eps: f32,
    },
    L2Norm {
        eps: f32,
        heads: usize,
    },
    Linear {},
    Part {
        parts: usize,
        start: usize,
    },
    Rope {
        heads: usize,
        freqs: Vec<f64>,
        factor: f64,
        pairing: Pairing,
    },
    LongRope {
        heads: usize,
        short: Vec<f64>,
        long: Vec<f64>,
        original: usize,
        factor: f64,
        pairing: Pairing,
    },
    Attend {
        layer: usize,
        heads: usize,
        kv_heads: usize,
        scale: f32,
        window: usize,
    },
    Add {},
    Mul {},
    Scale {
        factor: f32,
    },
    Softcap {
        cap: f32,
    },
    Gelu {},
    Silu {},
    Sigmoid {},
    Swiglu {},
    Geglu {},
    ClampedSwiglu {
        alpha: f32,
        limit: f32,
    },
    Route {
        used: usize,
        normalize: bool,
    },
    ExpertLinear {
        experts: usize,
    },
    ExpertSum {},
    ShortConv {
        layer: usize,
    },
    LogDecay {},
    DeltaRule {
        layer: usize,
        heads: usize,
        key_heads: usize,
        scale: f32,
        sharing: Sharing,
    },
    Take {},
}

/// Which key head a value head has, of fewer: i / r (`Runs`), r value heads each, or i modulo the
/// number of key heads (`Turns`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    Runs,
    Turns,
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
            Kind::Embed {} | Kind::EmbedPosition {} => (0, 1, 1),
            Kind::RmsNorm { .. } | Kind::ShortConv { .. } => (1, 1, 1),
            Kind::LayerNorm { .. } | Kind::LogDecay {} => (1, 2, 2),
            Kind::Linear {} => (1, 1, 2),
            Kind::ExpertLinear { .. } => (2, 1, 2),
            Kind::Attend { .. } => (3, 0, 1),
            Kind::DeltaRule { .. } => (5, 0, 0),
            Kind::Add {}
            | Kind::Mul {}
            | Kind::Swiglu {}
            | Kind::Geglu {}
            | Kind::ClampedSwiglu { .. }
            | Kind::ExpertSum {} => (2, 0, 0),
            Kind::Rope { .. }
            | Kind::LongRope { .. }
            | Kind::Take {}
            | Kind::L2Norm { .. }
            | Kind::Part { .. }
            | Kind::Scale { .. }
            | Kind::Softcap { .. }
            | Kind::Gelu {}
            | Kind::Silu {}
            | Kind::Sigmoid {}
            | Kind::Route { .. } => (1, 0, 0),
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

/// Most columns of a value: products of two widths do not overflow.
const WIDEST: usize = 1 << 30;

/// Most experts of a route, which gives their indices as f32.
const MOST_EXPERTS: usize = 1 << 24;

/// The mistake of an op after a `take`, which leaves only the wanted rows.
fn mistaken(op: &Op, earlier: &[Op]) -> Option<String> {
    let take = earlier.iter().position(|op| matches!(op.kind, Kind::Take {}))?;
    if matches!(op.kind, Kind::Take {}) {
        return Some(format!("takes rows that op {take} has taken already"));
    }
    if op.inputs.is_empty() {
        return Some(format!("makes a row for every token, after the take of op {take}"));
    }
    let before = op.inputs.iter().find(|&&value| value < take)?;
    Some(format!("names value {before}, from before the take of op {take}"))
}

/// The mistake in the route of an op that needs one: its numbers are used as indices.
fn misrouted(op: &Op, earlier: &[Op]) -> Option<String> {
    let experts = match op.kind {
        Kind::ExpertLinear { experts } => Some(experts),
        Kind::ExpertSum {} => None,
        _ => return None,
    };
    let route = &earlier[op.inputs[1]];
    if !matches!(route.kind, Kind::Route { .. }) {
        return Some("takes its experts from an op that is no route".to_owned());
    }
    let routed = earlier[route.inputs[0]].width;
    experts
        .filter(|&experts| experts != routed)
        .map(|experts| format!("has {experts} experts, its route chooses among {routed}"))
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
    if op.width > WIDEST {
        return fail(format!("has {} columns, more than {WIDEST}", op.width));
    }
    if let Some(what) = misrouted(op, earlier).or_else(|| mistaken(op, earlier)) {
        return fail(what);
    }
    let widths: Vec<usize> = op.inputs.iter().map(|&input| earlier[input].width).collect();
    misfit(&op.kind, op.width, &widths).map_or(Ok(()), fail)
}

/// The mistake in inputs of `widths` columns for a result of `out` columns.
fn misfit(kind: &Kind, out: usize, widths: &[usize]) -> Option<String> {
    let same = || widths.iter().find(|&&width| width != out).map(|&width| expected(out, width));
    let in_heads = |heads: usize| {
        (widths[0] != out || !divides(heads, out))
            .then(|| format!("splits {} columns into {heads} heads", widths[0]))
    };
    match kind {
        Kind::Embed {} | Kind::EmbedPosition {} | Kind::Linear {} => None,
        Kind::Take {}
        | Kind::Add {}
        | Kind::LayerNorm { .. }
        | Kind::Scale { .. }
        | Kind::Softcap { .. }
        | Kind::Gelu {}
        | Kind::Silu {}
        | Kind::Sigmoid {}
        | Kind::Swiglu {}
        | Kind::Geglu {}
        | Kind::ClampedSwiglu { .. }
        | Kind::ShortConv { .. }
        | Kind::LogDecay {} => same(),
        Kind::Mul {} => (widths[0] != out || !divides(widths[1], out))
            .then(|| format!("multiplies {} columns by {}", widths[0], widths[1])),
        Kind::RmsNorm { heads, .. } | Kind::L2Norm { heads, .. } => in_heads(*heads),
        Kind::Part { parts, start } => {
            let fits = divides(*parts, widths[0])
                && divides(*parts, out)
                && start.checked_add(out / parts).is_some_and(|end| end <= widths[0] / parts);
            (!fits).then(|| {
                format!("takes {out} columns from {start} on in {parts} parts of {}", widths[0])
            })
        }
        Kind::Rope { heads, freqs, .. } => misfit_rope(*heads, freqs.len(), out, widths[0]),
        Kind::LongRope { heads, short, long, .. } if short.len() == long.len() => {
            misfit_rope(*heads, short.len(), out, widths[0])
        }
        Kind::LongRope { short, long, .. } => {
            Some(format!("has {} short and {} long frequencies", short.len(), long.len()))
        }
        Kind::Attend { heads, kv_heads, .. } => {
            let fits = divides(*kv_heads, *heads)
                && divides(*heads, out)
                && widths[0] == out
                && widths[1] == out / heads * kv_heads
                && widths[2] == widths[1];
            (!fits).then(|| {
                format!(
                    "has {heads} query and {kv_heads} key heads over q, k, v of {}, {}, {} columns",
                    widths[0], widths[1], widths[2]
                )
            })
        }
        Kind::Route { .. } if widths[0] > MOST_EXPERTS => {
            Some(format!("chooses among {} experts, more than {MOST_EXPERTS}", widths[0]))
        }
        Kind::Route { used, .. } => (*used == 0 || *used > widths[0] || out != 2 * used)
            .then(|| format!("chooses {used} of {} experts in {out} columns", widths[0])),
        Kind::ExpertLinear { experts } => {
            let used = widths[1] / 2;
            (used == 0 || used > *experts || !divides(used, out))
                .then(|| format!("gives {used} of {experts} experts {out} columns"))
        }
        Kind::ExpertSum {} => (widths[1] < 2 || widths[0] != out * (widths[1] / 2))
            .then(|| expected(out * (widths[1] / 2), widths[0])),
        Kind::DeltaRule { heads, key_heads, .. } => {
            let fits = divides(*key_heads, *heads)
                && divides(*heads, out)
                && widths[0] == widths[1]
                && divides(*key_heads, widths[0])
                && widths[2] == out
                && widths[3..] == [*heads, *heads];
            (!fits).then(|| {
                format!("has {heads} heads and {key_heads} key heads over columns of {widths:?}")
            })
        }
    }
}

fn misfit_rope(heads: usize, pairs: usize, out: usize, width: usize) -> Option<String> {
    let fits = divides(heads, out) && 2 * pairs <= out / heads;
    (width != out || !fits)
        .then(|| format!("rotates {pairs} pairs in {heads} heads of {width} columns"))
}

fn divides(divisor: usize, number: usize) -> bool {
    divisor > 0 && number.is_multiple_of(divisor)
}

fn expected(want: usize, found: usize) -> String {
    format!("expects {want} columns, found {found}")
}

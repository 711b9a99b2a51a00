//! The compiled plan: the stages that threads execute, with all weights and shapes bound.

use std::sync::Arc;

use super::plan::Sharing;
use crate::kernels::delta::SPAN as CHUNK_TOKENS;
use crate::kernels::isa::LANES;
use crate::kernels::packed::Packed;

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

/// What happens between two barriers; `taken` when only the wanted rows are left.
pub struct Stage {
    pub work: Work,
    pub taken: bool,
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

/// One product with each token's experts.
pub struct ExpertJob {
    /// The weight's name in the plan.
    pub name: String,
    pub weights: Vec<Arc<Packed>>,
    /// [expert][row]
    pub bias: Option<Vec<f32>>,
    pub out: Slot,
}

/// Products of the same rows with the same experts: `x` has one row a token, or one a slot.
pub struct Experts {
    pub x: Slot,
    pub route: Slot,
    pub used: usize,
    pub per_slot: bool,
    pub jobs: Vec<ExpertJob>,
}

impl Experts {
    /// The rows of `x` that each product reads: `used` of them in a token's row, or one.
    pub fn rows(&self) -> Slot {
        let parts = if self.per_slot { self.used } else { 1 };
        Slot { width: self.x.width / parts, ..self.x }
    }

    /// Which of those rows a slot (token x used + place in its route) reads.
    pub fn row_of(&self, slot: usize) -> usize {
        if self.per_slot { slot } else { slot / self.used }
    }
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

/// What one attending layer stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    pub kv_heads: usize,
    pub elements: usize,
}

/// A convolution over the last positions: `weights` are [kernel][channels], the oldest first.
pub struct ShortConv {
    pub x: Slot,
    pub out: Slot,
    pub weights: Vec<f32>,
    pub index: usize,
    pub shape: ConvShape,
}

/// What one convolving layer keeps: the inputs of the last positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    pub channels: usize,
    pub kernel: usize,
}

impl ConvShape {
    /// Positions that are kept: a kernel's, and all that can be taken back.
    pub fn rows(self) -> usize {
        CHUNK_TOKENS + self.kernel
    }

    /// Floats of one sequence, None where they are beyond counting.
    pub fn floats(self) -> Option<usize> {
        self.rows().checked_mul(self.channels)
    }
}

/// The delta rule of all heads of a layer.
pub struct DeltaRule {
    pub q: Slot,
    pub k: Slot,
    pub v: Slot,
    pub decay: Slot,
    pub beta: Slot,
    pub out: Slot,
    pub index: usize,
    pub shape: DeltaShape,
    pub key_heads: usize,
    pub scale: f32,
    pub sharing: Sharing,
}

/// What one layer of the delta rule keeps (`kernels::delta`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaShape {
    pub heads: usize,
    pub key_size: usize,
    pub value_size: usize,
}

impl DeltaShape {
    pub fn width(self) -> usize {
        self.value_size.next_multiple_of(LANES)
    }

    /// Floats of the state, the keys, the updates and the decays of one head.
    pub fn parts(self) -> [usize; 4] {
        [
            self.key_size * self.width(),
            self.key_size * CHUNK_TOKENS,
            CHUNK_TOKENS * self.width(),
            CHUNK_TOKENS,
        ]
    }

    /// Floats of one sequence, None where they are beyond counting.
    pub fn floats(self) -> Option<usize> {
        self.key_size.checked_mul(self.width())?;
        self.parts()
            .iter()
            .try_fold(0usize, |sum, &part| sum.checked_add(part))?
            .checked_mul(self.heads)
    }
}

/// The layers of each kind, in the plan's order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Shapes {
    pub convs: Vec<ConvShape>,
    pub deltas: Vec<DeltaShape>,
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

/// One op on one row.
pub enum RowOp {
    Turns {
        table: usize,
    },
    Embed {
        table: Arc<Packed>,
        out: Slot,
    },
    EmbedPosition {
        table: Arc<Packed>,
        out: Slot,
    },
    RmsNorm {
        x: Slot,
        weight: Vec<f32>,
        out: Slot,
        eps: f32,
    },
    LayerNorm {
        x: Slot,
        weight: Vec<f32>,
        bias: Vec<f32>,
        out: Slot,
        eps: f32,
    },
    L2Norm {
        x: Slot,
        heads: usize,
        out: Slot,
        eps: f32,
    },
    Rope {
        x: Slot,
        out: Slot,
        heads: usize,
        table: usize,
        apart: usize,
        next: usize,
    },
    Append {
        k: Slot,
        v: Slot,
        layer: usize,
    },
    Part {
        x: Slot,
        out: Slot,
        parts: usize,
        start: usize,
    },
    Unary {
        x: Slot,
        out: Slot,
        function: Unary,
    },
    Binary {
        x: Slot,
        y: Slot,
        out: Slot,
        function: Binary,
    },
    Mul {
        x: Slot,
        y: Slot,
        out: Slot,
    },
    Route {
        x: Slot,
        out: Slot,
        used: usize,
        normalize: bool,
    },
    ExpertSum {
        x: Slot,
        route: Slot,
        out: Slot,
    },
    LogDecay {
        x: Slot,
        rate: Vec<f32>,
        bias: Vec<f32>,
        out: Slot,
    },
    /// Rounds `parts` rows of `x.width` floats that lie in a token's row; `sharing` chunks share a scale.
    Quantize {
        x: Slot,
        parts: usize,
        sharing: usize,
    },
}

/// A function of each element.
#[derive(Debug, Clone, Copy)]
pub enum Unary {
    Gelu,
    Silu,
    Sigmoid,
    Scale(f32),
    Softcap(f32),
}

/// A function of two values, element by element.
#[derive(Debug, Clone, Copy)]
pub enum Binary {
    Add,
    Swiglu,
    Geglu,
    ClampedSwiglu([f32; 2]),
}

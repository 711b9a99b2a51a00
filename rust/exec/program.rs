//! The compiled plan: the stages that threads execute, with all weights and shapes bound.

use std::sync::Arc;

use super::plan::Sharing;
use crate::kernels::layout::packed::Packed;
use crate::kernels::ops::delta::CHUNK_TOKENS;
use crate::kernels::shape::LANES;

/// A compiled plan: its stages, their buffers, and shapes that caches must have.
#[derive(Default)]
pub struct Program {
    pub stages: Vec<Stage>,
    /// Floats in a row of each slot.
    pub slots: Vec<usize>,
    /// The slot of the last op's result.
    pub logits: usize,
    pub ropes: Vec<RopeTable>,
    /// Layers with attention, in the plan's order.
    pub layers: Vec<LayerShape>,
    pub recurrent: Shapes,
    /// Token ids are below it.
    pub vocab: usize,
    /// Positions with a learned embedding; None if the plan has no `embed_position`.
    pub positions: Option<usize>,
    /// Chunks of 32 activations that a token needs to round its widest input to int8: with a scale
    /// for each chunk, and with a scale for 256 columns.
    pub chunks: [usize; 2],
}

impl Program {
    /// True if the plan drops tokens whose logits nobody wants; logits then go straight to the
    /// caller.
    pub fn takes(&self) -> bool {
        self.stages.iter().any(|stage| stage.taken)
    }
}

/// Work between two barriers; `taken` if it has rows only for tokens whose logits are wanted.
pub struct Stage {
    pub work: Work,
    pub taken: bool,
}

/// What a stage computes.
pub enum Work {
    /// Ops that need one row at a time, run one after the other on each row.
    Rows(Vec<RowOp>),
    /// Matrix products with the same input.
    Linear {
        x: Slot,
        jobs: Vec<Linear>,
    },
    Experts(Experts),
    Attend(Attend),
    ShortConv(ShortConv),
    DeltaRule(DeltaRule),
    /// Copies the rows of tokens whose logits are wanted.
    Take {
        x: Slot,
        out: Slot,
    },
}

/// A buffer of rows of `width` floats; values that are not needed at the same time share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub index: usize,
    pub width: usize,
}

/// A matrix product: [rows of the input, columns] by `weight` transposed, plus `bias`.
pub struct Linear {
    /// The weight's name in the plan.
    pub name: String,
    pub weight: Arc<Packed>,
    pub bias: Option<Vec<f32>>,
    pub out: Slot,
}

/// A matrix product with the experts of each token.
pub struct ExpertJob {
    /// The weight's name in the plan.
    pub name: String,
    /// One matrix for each expert.
    pub weights: Vec<Arc<Packed>>,
    /// [expert][row]
    pub bias: Option<Vec<f32>>,
    pub out: Slot,
}

/// Products of the same rows with the same `used` experts a token: `x` has one row a token, or
/// (`per_slot`) one for each expert of a token.
pub struct Experts {
    pub x: Slot,
    pub route: Slot,
    pub used: usize,
    pub per_slot: bool,
    pub jobs: Vec<ExpertJob>,
}

impl Experts {
    /// The rows of `x` that products read: `used` of them in a token's row, or one.
    pub fn rows(&self) -> Slot {
        let rows = if self.per_slot { self.used } else { 1 };
        Slot { width: self.x.width / rows, ..self.x }
    }

    /// The index of the row that a slot (token x used + place in its route) reads.
    pub fn row_of(&self, slot: usize) -> usize {
        if self.per_slot { slot } else { slot / self.used }
    }
}

/// Attention over the KV cache of one layer.
pub struct Attend {
    pub q: Slot,
    pub out: Slot,
    pub layer: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Last positions that a query sees; 0 for all.
    pub window: usize,
    /// A score for each head that takes probability and adds no value.
    pub sinks: Option<Vec<f32>>,
}

/// The KV cache of one layer: heads, and elements of a head's key or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    pub kv_heads: usize,
    pub elements: usize,
}

/// A causal convolution of each channel over the last positions.
pub struct ShortConv {
    pub x: Slot,
    pub out: Slot,
    /// [kernel][channels], the oldest position first.
    pub weights: Vec<f32>,
    /// Its place among the plan's convolutions.
    pub index: usize,
    pub shape: ConvShape,
}

/// The state of one convolution: its inputs at the last positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    pub channels: usize,
    pub kernel: usize,
}

impl ConvShape {
    /// Positions in the state: those of the kernel, and all that can be taken back.
    pub fn rows(self) -> usize {
        CHUNK_TOKENS + self.kernel
    }

    /// Floats of one sequence, None where `usize` overflows.
    pub fn floats(self) -> Option<usize> {
        self.rows().checked_mul(self.channels)
    }
}

/// The gated delta rule of all heads of a layer.
pub struct DeltaRule {
    pub q: Slot,
    pub k: Slot,
    pub v: Slot,
    pub decay: Slot,
    pub beta: Slot,
    pub out: Slot,
    /// Its place among the plan's delta rules.
    pub index: usize,
    pub shape: DeltaShape,
    pub key_heads: usize,
    pub scale: f32,
    pub sharing: Sharing,
}

/// The state of one delta rule (`kernels::delta`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaShape {
    pub heads: usize,
    pub key_size: usize,
    pub value_size: usize,
}

impl DeltaShape {
    /// Floats of a row of the state.
    pub fn width(self) -> usize {
        self.value_size.next_multiple_of(LANES)
    }

    /// Floats of the state, the keys, the updates and the decays of one head.
    pub fn fields(self) -> [usize; 4] {
        [
            self.key_size * self.width(),
            self.key_size * CHUNK_TOKENS,
            CHUNK_TOKENS * self.width(),
            CHUNK_TOKENS,
        ]
    }

    /// Floats of one sequence, None where `usize` overflows.
    pub fn floats(self) -> Option<usize> {
        self.key_size.checked_mul(self.width())?;
        self.fields()
            .iter()
            .try_fold(0usize, |sum, &field| sum.checked_add(field))?
            .checked_mul(self.heads)
    }
}

/// The states of all recurrent ops, each kind in the plan's order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Shapes {
    pub convs: Vec<ConvShape>,
    pub deltas: Vec<DeltaShape>,
}

/// The frequencies of a rotary embedding, in radians per position.
#[derive(PartialEq)]
pub struct RopeTable {
    pub freqs: Vec<f64>,
    /// Factor of the cosines and sines.
    pub factor: f64,
    /// A number of tokens, and the frequencies for caches with room for more.
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

/// An op on one row at a time.
pub enum RowOp {
    /// Cosines and sines of a rotary embedding at the token's position.
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
        /// From the first element of a pair to the second.
        distance: usize,
        /// From the first element of a pair to that of the next pair.
        stride: usize,
    },
    /// Stores keys and values in the KV cache.
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
    /// Rounds `rows` rows of `x.width` floats in a token's row to int8; `sharing` chunks share a
    /// scale.
    Quantize {
        x: Slot,
        rows: usize,
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

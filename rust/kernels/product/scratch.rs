//! The working memory of one thread, reused from product to product.

use super::{activation_terms, activation_tiles, bf16_rounding};
use crate::kernels::data::Span;
use crate::kernels::layout::line::{Line, grow};
use crate::kernels::shape::{CHUNK_BYTES, SPAN};

/// Working memory of one thread.
#[derive(Default)]
pub struct Scratch {
    span_codes: Vec<Line>,
    span_scales: Vec<Line>,
    span_mins: Vec<Line>,
    span_shared: Vec<Line>,
    pub(super) terms: activation_terms::Memory,
    pub(super) tiles: activation_tiles::Memory,
    pub(super) rounded: bf16_rounding::Memory,
    /// Weights of a span as f32.
    pub(super) weights: Vec<Line>,
    /// Sums of rows of activations.
    pub(super) sums: Vec<Line>,
}

impl Scratch {
    /// Forgets what depends on activations: call it when they have changed.
    pub fn forget(&mut self) {
        self.terms.forget();
        self.tiles.forget();
        self.rounded.forget();
    }

    /// Room for `chunks` unpacked chunks.
    pub(super) fn span(&mut self, chunks: usize) -> Span {
        // The 16 scales of a group take one line.
        grow(&mut self.span_codes, chunks * CHUNK_BYTES / size_of::<Line>());
        grow(&mut self.span_scales, 2 * chunks);
        grow(&mut self.span_mins, 2 * chunks);
        grow(&mut self.span_shared, 2 * chunks.div_ceil(SPAN));
        Span {
            codes: self.span_codes.as_mut_ptr().cast(),
            scales: self.span_scales.as_mut_ptr().cast(),
            mins: self.span_mins.as_mut_ptr().cast(),
            shared: self.span_shared.as_mut_ptr().cast(),
        }
    }
}

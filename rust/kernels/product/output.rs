//! What both kinds of matrix product share: where results go, and a thread's working memory.

use crate::kernels::isa::floats::{Isa, LANES};
use crate::kernels::layout::packed::Packed;
use crate::kernels::layout::scales::SPAN;
use crate::kernels::product::{
    activation_terms as shares, activation_tiles as arranged, bf16 as linear_bf16,
};
use crate::kernels::unpack::span::{CHUNK_BYTES, Span};

/// Where the results go: row `n` of [n, stride], an optional bias of one float a column.
#[derive(Clone, Copy)]
pub struct Output {
    pub data: *mut f32,
    pub stride: usize,
    pub bias: Option<*const f32>,
}

/// A cache line: a vector of 64 bytes that lies across two costs half as much again.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(#[allow(dead_code)] pub(crate) [u8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Working memory of one thread.
#[derive(Default)]
pub struct Scratch {
    span_codes: Vec<Line>,
    span_scales: Vec<Line>,
    span_mins: Vec<Line>,
    span_shared: Vec<Line>,
    pub(crate) starts: Vec<i32>,
    pub(crate) scales: Vec<f32>,
    pub(crate) lows: Vec<f32>,
    pub(crate) shares_of: Option<shares::Subject>,
    pub(crate) weights: Vec<Line>,
    pub(crate) sums: Vec<Line>,
    pub(crate) arranged: Vec<Line>,
    pub(crate) arranged_of: Option<arranged::Subject>,
    pub(crate) rounded: Vec<u32>,
    pub(crate) rounded_of: Option<linear_bf16::Subject>,
}

impl Scratch {
    /// Forgets what it keeps from product to product: to be called when activations have changed.
    pub fn forget(&mut self) {
        (self.shares_of, self.arranged_of, self.rounded_of) = (None, None, None);
    }

    /// Room for `chunks` chunks, unpacked.
    pub(crate) fn span(&mut self, chunks: usize) -> Span {
        // 16 scales of a part take a line.
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

/// Makes `buffer` at least `n` long; what it holds does not matter.
pub(crate) fn grow<T: Clone + Default>(buffer: &mut Vec<T>, n: usize) {
    if buffer.len() < n {
        buffer.resize(n, T::default());
    }
}

/// Adds the bias and writes the block's 16 results (fewer in the last block) of row `row`.
#[inline(always)]
pub(crate) unsafe fn finish<I: Isa>(w: &Packed, block: usize, sum: I::F, row: usize, out: Output) {
    // SAFETY: the contract of `linear_int8`.
    unsafe {
        let first = block * LANES;
        let count = (w.rows - first).min(LANES);
        // The data of some of a matrix's rows may be addressed from where its first row would be.
        let target = out.data.wrapping_add(row * out.stride + first);
        if count == LANES && out.bias.is_none() {
            I::store(target, sum);
            return;
        }
        let mut lanes = [0f32; LANES];
        I::store(lanes.as_mut_ptr(), sum);
        for (lane, value) in lanes.iter().enumerate().take(count) {
            *target.add(lane) = match out.bias {
                Some(bias) => *value + *bias.add(first + lane),
                None => *value,
            };
        }
    }
}

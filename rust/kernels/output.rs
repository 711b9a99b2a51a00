//! What both kinds of matrix product share: where results go, and a thread's working memory.

use super::isa::{Isa, LANES};
use super::packed::Packed;
use super::scales::SPAN;
use super::span::{CHUNK_BYTES, Span};
use super::{arranged, linear_bf16, shares};

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
pub(super) struct Line(#[allow(dead_code)] pub(super) [u8; 64]);

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
    pub(super) starts: Vec<i32>,
    pub(super) scales: Vec<f32>,
    pub(super) lows: Vec<f32>,
    pub(super) shares_of: Option<shares::Subject>,
    pub(super) weights: Vec<Line>,
    pub(super) sums: Vec<Line>,
    pub(super) arranged: Vec<Line>,
    pub(super) arranged_of: Option<arranged::Subject>,
    pub(super) rounded: Vec<u32>,
    pub(super) rounded_of: Option<linear_bf16::Subject>,
}

impl Scratch {
    /// Forgets what it keeps from product to product: to be called when activations have changed.
    pub fn forget(&mut self) {
        (self.shares_of, self.arranged_of, self.rounded_of) = (None, None, None);
    }

    /// Room for `chunks` chunks, unpacked.
    pub(super) fn span(&mut self, chunks: usize) -> Span {
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
pub(super) fn grow<T: Clone + Default>(buffer: &mut Vec<T>, n: usize) {
    if buffer.len() < n {
        buffer.resize(n, T::default());
    }
}

/// Adds the bias and writes the block's 16 results (fewer in the last block) of row `row`.
#[inline(always)]
pub(super) unsafe fn finish<I: Isa>(w: &Packed, block: usize, sum: I::F, row: usize, out: Output) {
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

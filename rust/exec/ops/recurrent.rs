//! Recurrent ops: threads divide the channels of `short_conv` and the heads of `delta_rule`.

use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use crate::exec::plan::Sharing;
use crate::exec::program::{ConvShape, DeltaRule, DeltaShape, ShortConv, Slot};
use crate::exec::step::{Step, Token};
use crate::kernels::ops::delta::{CHUNK_TOKENS, DeltaState, DeltaToken, Place};
use crate::kernels::shape::LANES;

/// Channels that a thread convolves at a time.
const CHANNELS: usize = 16 * LANES;

/// The rows that a convolution reads; models have kernels of four.
type Taps = SmallVec<[*const f32; 4]>;

impl Step<'_> {
    /// Claims channels; each thread goes through all tokens in order.
    pub fn short_conv(&self, claims: &AtomicUsize, conv: &ShortConv) {
        loop {
            let start = claims.fetch_add(1, Ordering::Relaxed) * CHANNELS;
            if start >= conv.shape.channels {
                return;
            }
            let count = CHANNELS.min(conv.shape.channels - start);
            for (row, token) in self.tokens.iter().enumerate() {
                self.convolve(conv, row, token, start, count);
            }
        }
    }

    /// Convolves `count` channels from `start` on for one token.
    fn convolve(&self, conv: &ShortConv, row: usize, token: &Token, start: usize, count: usize) {
        let ConvShape { channels, kernel } = conv.shape;
        let state = self.state.convs[conv.index]
            .wrapping_add(token.sequence * conv.shape.rows() * conv.shape.channels);
        let place =
            |position: usize| state.wrapping_add(position % conv.shape.rows() * channels + start);
        let first = (token.position + 1).saturating_sub(kernel);
        let skipped = kernel - (token.position + 1 - first);
        let rows: Taps =
            (first..=token.position).map(|position| place(position).cast_const()).collect();
        let weights: Taps =
            (skipped..kernel).map(|j| conv.weights[j * channels + start..].as_ptr()).collect();
        let (x, out) = (self.at(conv.x, row), self.at(conv.out, row));
        // SAFETY: these channels of all rows are this thread's; the rows before are stored.
        unsafe {
            std::ptr::copy_nonoverlapping(x.add(start), place(token.position), count);
            (self.kernels.short_conv)(&rows, &weights, out.add(start), count);
        }
    }

    /// Claims heads; each thread goes through all tokens in order, chunk by chunk.
    pub fn delta_rule(&self, claims: &AtomicUsize, delta: &DeltaRule, scratch: &mut Vec<f32>) {
        loop {
            let head = claims.fetch_add(1, Ordering::Relaxed);
            if head >= delta.shape.heads {
                return;
            }
            let mut start = 0;
            while start < self.tokens.len() {
                let first = self.tokens[start];
                let run = self.tokens[start..]
                    .iter()
                    .take_while(|token| {
                        token.sequence == first.sequence
                            && token.position / CHUNK_TOKENS == first.position / CHUNK_TOKENS
                    })
                    .count();
                self.delta_run(delta, head, start..start + run, scratch);
                start += run;
            }
        }
    }

    /// Applies the delta rule to `rows`, tokens of one sequence and one chunk.
    fn delta_run(
        &self,
        delta: &DeltaRule,
        head: usize,
        rows: std::ops::Range<usize>,
        scratch: &mut Vec<f32>,
    ) {
        let DeltaShape { heads, key_size, value_size } = delta.shape;
        let key_head = match delta.sharing {
            Sharing::Runs => head / (heads / delta.key_heads),
            Sharing::Turns => head % delta.key_heads,
        };
        let at = |slot: Slot, row: usize, element: usize| self.at(slot, row).wrapping_add(element);
        let tokens: SmallVec<[DeltaToken; 1]> = rows
            .clone()
            .map(|row| DeltaToken {
                q: at(delta.q, row, key_head * key_size),
                k: at(delta.k, row, key_head * key_size),
                v: at(delta.v, row, head * value_size),
                out: at(delta.out, row, head * value_size),
                // SAFETY: the rows of decays and betas have a float a head.
                decay: unsafe { *at(delta.decay, row, head) },
                // SAFETY: as above.
                beta: unsafe { *at(delta.beta, row, head) },
            })
            .collect();
        let Token { sequence, position, fold, .. } = self.tokens[rows.start];
        let state = self.head_state(delta, sequence, head);
        // SAFETY: the head of this sequence is this thread's, with all that lies before.
        unsafe { (self.kernels.delta_rule)(state, Place { position, fold }, &tokens, scratch) };
    }

    /// The state of one head of one sequence.
    fn head_state(&self, delta: &DeltaRule, sequence: usize, head: usize) -> DeltaState {
        let shape = delta.shape;
        let [state, keys, updates, decays] = shape.fields();
        let size = state + keys + updates + decays;
        let base =
            self.state.deltas[delta.index].wrapping_add((sequence * shape.heads + head) * size);
        DeltaState {
            state: base,
            keys: base.wrapping_add(state),
            updates: base.wrapping_add(state + keys),
            decays: base.wrapping_add(state + keys + updates),
            key_size: shape.key_size,
            value_size: shape.value_size,
            width: shape.width(),
            scale: delta.scale,
        }
    }
}

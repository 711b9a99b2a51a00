//! The gated delta rule (linear attention, arXiv 2412.06464) of one head, and the convolution before it.
//!
//! The rule, token by token: S = exp(g) S, u = beta (v - S^T k), S = S + k u^T, o = scale S^T q.
//! Computed this way, a prompt would read and write S once per token. Instead, S is constant for
//! `CHUNK_TOKENS` positions, counted from the sequence's start, and the keys k, updates u and summed decays G
//! of these tokens are stored beside it:
//!
//! ```text
//! u_i = beta_i (v_i - exp(G_i) S^T k_i - sum over j < i in order of exp(G_i - G_j) (k_j k_i) u_j)
//! o_i = scale (exp(G_i) S^T q_i + sum over j <= i in order of exp(G_i - G_j) (k_j q_i) u_j)
//! ```
//!
//! The next chunk of tokens begins by folding the last one into S:
//! S = exp(G) S + sum of exp(G - G_j) k_j u_j^T. Row i depends only on the rows before it, so that one token at
//! a time, an entire prompt or anything between gives the same bits. A prompt shares the loads of S between
//! tokens, and generation reads S without writing it. Tokens that are not folded yet can be removed again
//! (`truncate`).

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use crate::kernels::isa::floats::Isa;
use crate::kernels::ops::rows::{exp, load_lanes, store_lanes};
use crate::kernels::shape::LANES;

/// Tokens of a chunk, after which they are folded into the state.
pub const CHUNK_TOKENS: usize = 32;
/// Tokens that share the loads of the state.
const TILE: usize = 4;

/// The state of one head; `width` is `value_size`, padded to a multiple of 16.
#[derive(Clone, Copy)]
pub struct DeltaState {
    /// S, [key_size][width].
    pub state: *mut f32,
    /// Keys of the chunk, [key_size][CHUNK_TOKENS].
    pub keys: *mut f32,
    /// Updates of the chunk, [CHUNK_TOKENS][width].
    pub updates: *mut f32,
    /// Sums of log decays from the chunk's start, [CHUNK_TOKENS].
    pub decays: *mut f32,
    pub key_size: usize,
    pub value_size: usize,
    pub width: usize,
    pub scale: f32,
}

/// The inputs of one head for one token; `out` receives `value_size` floats.
#[derive(Clone, Copy)]
pub struct DeltaToken {
    pub q: *const f32,
    pub k: *const f32,
    pub v: *const f32,
    pub out: *mut f32,
    /// The natural logarithm of the decay of the state, and the factor of the update.
    pub decay: f32,
    pub beta: f32,
}

/// The position of a run of tokens in its sequence; a run lies within one chunk.
#[derive(Clone, Copy)]
pub struct Place {
    pub position: usize,
    /// True if the chunk before has not been folded yet.
    pub fold: bool,
}

/// Applies the rule to consecutive tokens of one sequence that lie in one chunk.
///
/// # Safety
///
/// The pointers of the state and of the tokens have the sizes that their fields' comments give, the
/// positions before `place` are stored, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn delta_rule<I: Isa>(
    head: DeltaState,
    place: Place,
    tokens: &[DeltaToken],
    scratch: &mut Vec<f32>,
) {
    let size = tokens.len() * 2 * head.width;
    if scratch.len() < size {
        scratch.resize(size, 0.0);
    }
    let reads = scratch.as_mut_ptr();
    // SAFETY: the caller's promise; the scratch holds two rows a token.
    unsafe {
        if place.fold {
            fold::<I>(head, place.position == CHUNK_TOKENS);
        }
        let live = place.position >= CHUNK_TOKENS;
        if live {
            let mut first = 0;
            while first + TILE <= tokens.len() {
                read::<I, TILE>(head, tokens, first, reads);
                first += TILE;
            }
            while first < tokens.len() {
                read::<I, 1>(head, tokens, first, reads);
                first += 1;
            }
        }
        for (index, token) in tokens.iter().enumerate() {
            let rows = live.then(|| reads.add(index * 2 * head.width).cast_const());
            step::<I>(head, (place.position + index) % CHUNK_TOKENS, token, rows);
        }
    }
}

/// S = exp(G) S + sum over the chunk in order of exp(G - G_j) k_j u_j^T; S counts as 0 if `first`.
#[inline(always)]
unsafe fn fold<I: Isa>(head: DeltaState, first: bool) {
    // SAFETY: the contract of `delta_rule`.
    unsafe {
        let last = I::splat(*head.decays.add(CHUNK_TOKENS - 1));
        let mut weights = [0f32; CHUNK_TOKENS];
        for block in (0..CHUNK_TOKENS).step_by(LANES) {
            let since = I::sub(last, I::load(head.decays.add(block)));
            I::store(weights.as_mut_ptr().add(block), exp::<I>(since));
        }
        let fade = exp::<I>(last);
        for d in 0..head.key_size {
            let mut factors = [0f32; CHUNK_TOKENS];
            for block in (0..CHUNK_TOKENS).step_by(LANES) {
                let keys = I::load(head.keys.add(d * CHUNK_TOKENS + block));
                let weights = I::load(weights.as_ptr().add(block));
                I::store(factors.as_mut_ptr().add(block), I::mul(keys, weights));
            }
            for at in (0..head.width).step_by(LANES) {
                let place = head.state.add(d * head.width + at);
                let mut sum =
                    if first { I::splat(0.0) } else { I::mul(fade, I::load(place.cast_const())) };
                for (j, factor) in factors.iter().enumerate() {
                    let u = I::load(head.updates.add(j * head.width + at));
                    sum = I::fma(I::splat(*factor), u, sum);
                }
                I::store(place, sum);
            }
        }
    }
}

/// S^T k and S^T q of T tokens from `first` on, each a sum over the key's elements in order.
#[inline(always)]
unsafe fn read<I: Isa, const T: usize>(
    head: DeltaState,
    tokens: &[DeltaToken],
    first: usize,
    reads: *mut f32,
) {
    // SAFETY: the contract of `delta_rule`.
    unsafe {
        for at in (0..head.width).step_by(LANES) {
            let mut by_k = [I::splat(0.0); T];
            let mut by_q = [I::splat(0.0); T];
            for d in 0..head.key_size {
                let state = I::load(head.state.add(d * head.width + at));
                for t in 0..T {
                    let token = &tokens[first + t];
                    by_k[t] = I::fma(I::splat(*token.k.add(d)), state, by_k[t]);
                    by_q[t] = I::fma(I::splat(*token.q.add(d)), state, by_q[t]);
                }
            }
            for t in 0..T {
                let rows = reads.add((first + t) * 2 * head.width);
                I::store(rows.add(at), by_k[t]);
                I::store(rows.add(head.width + at), by_q[t]);
            }
        }
    }
}

/// Computes one token, the `i`th of its chunk; `rows` are its reads of the state, unless that is zero.
#[inline(always)]
unsafe fn step<I: Isa>(head: DeltaState, i: usize, token: &DeltaToken, rows: Option<*const f32>) {
    // SAFETY: the contract of `delta_rule`.
    unsafe {
        let before = if i == 0 { 0.0 } else { *head.decays.add(i - 1) };
        let decay = before + token.decay;
        *head.decays.add(i) = decay;
        for d in 0..head.key_size {
            *head.keys.add(d * CHUNK_TOKENS + i) = *token.k.add(d);
        }
        let mut by_k = [0f32; CHUNK_TOKENS];
        let mut by_q = [0f32; CHUNK_TOKENS];
        let decay = I::splat(decay);
        for block in (0..=i).step_by(LANES) {
            let (mut k, mut q) = (I::splat(0.0), I::splat(0.0));
            for d in 0..head.key_size {
                let keys = I::load(head.keys.add(d * CHUNK_TOKENS + block));
                k = I::fma(I::splat(*token.k.add(d)), keys, k);
                q = I::fma(I::splat(*token.q.add(d)), keys, q);
            }
            let fade = exp::<I>(I::sub(decay, I::load(head.decays.add(block))));
            I::store(by_k.as_mut_ptr().add(block), I::mul(fade, k));
            I::store(by_q.as_mut_ptr().add(block), I::mul(fade, q));
        }
        let fade = exp::<I>(decay);
        for at in (0..head.width).step_by(LANES) {
            let (mut seen, mut out) = match rows {
                Some(rows) => (
                    I::mul(fade, I::load(rows.add(at))),
                    I::mul(fade, I::load(rows.add(head.width + at))),
                ),
                None => (I::splat(0.0), I::splat(0.0)),
            };
            for j in 0..i {
                let u = I::load(head.updates.add(j * head.width + at));
                seen = I::fma(I::splat(by_k[j]), u, seen);
                out = I::fma(I::splat(by_q[j]), u, out);
            }
            let v = load_lanes::<I>(token.v, at, head.value_size);
            let u = I::mul(I::splat(token.beta), I::sub(v, seen));
            I::store(head.updates.add(i * head.width + at), u);
            out = I::fma(I::splat(by_q[i]), u, out);
            store_lanes::<I>(token.out, at, head.value_size, I::mul(out, I::splat(head.scale)));
        }
    }
}

/// The convolution of one token over its channels and the `rows` before it, the oldest first: the
/// sum of weight x row in that order, fused, starting from zero; `weights` are [rows][n].
///
/// # Safety
///
/// Each pointer holds `n` floats, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn short_conv<I: Isa>(
    rows: &[*const f32],
    weights: &[*const f32],
    out: *mut f32,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..n).step_by(LANES) {
            let mut sum = I::splat(0.0);
            for (row, weight) in rows.iter().zip(weights) {
                let x = load_lanes::<I>(*row, start, n);
                sum = I::fma(load_lanes::<I>(*weight, start, n), x, sum);
            }
            store_lanes::<I>(out, start, n, sum);
        }
    }
}

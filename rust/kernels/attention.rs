//! Attention of a few queries over the cache of one key/value head.
//!
//! Keys lie as [position / 16][element][16], so a lane is a position; values as [position][element]
//! with the elements padded to a multiple of 16, so a lane is an element. For one query:
//!
//! ```text
//! s[p] = (sum over elements in order of q k, fused) * scale
//! e[p] = exp(s[p] - max s),   total = sum of e through lanes p % 16
//! out  = (sum over positions in order of e v, fused) / total
//! ```
//!
//! A head's sink is one more score: it enters the largest and, last of all, the total, and has no v.
//!
//! A tile shares the loads of its queries; positions outside a query's range weigh exactly zero,
//! so its bits do not depend on which queries lie beside it.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use super::isa::{Isa, LANES};
use super::rows::exp;

/// Queries of one tile at the most.
pub const TILE: usize = 4;

/// One query: its row, where its result goes, and the positions it sees, both ends included.
#[derive(Clone, Copy)]
pub struct Query {
    pub q: *const f32,
    pub out: *mut f32,
    pub first: usize,
    pub last: usize,
    /// A score that takes its share of the weight and adds nothing, negative infinity for none.
    pub sink: f32,
}

/// The cache of one key/value head.
#[derive(Clone, Copy)]
pub struct Head {
    pub keys: *const f32,
    pub values: *const f32,
    pub elements: usize,
    pub scale: f32,
}

/// Attends each of `queries` (1, 2 or 4 of them) over `head`.
///
/// # Safety
///
/// Pointers hold `head.elements` floats a query and whole blocks of 16 positions up to the last
/// one that a query sees; the CPU has the instruction set.
#[inline(always)]
pub unsafe fn attend<I: Isa>(queries: &[Query], head: Head, scores: &mut Vec<f32>) {
    // SAFETY: the caller's promise.
    unsafe {
        match *queries {
            [a, b, c, d] => tile::<I, 4>([a, b, c, d], head, scores),
            [a, b] => tile::<I, 2>([a, b], head, scores),
            _ => {
                for query in queries {
                    tile::<I, 1>([*query], head, scores);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<I: Isa, const T: usize>(queries: [Query; T], head: Head, scores: &mut Vec<f32>) {
    let (mut first, mut last) = (usize::MAX, 0);
    for query in &queries {
        first = first.min(query.first);
        last = last.max(query.last);
    }
    let start = first / LANES * LANES;
    let length = (last + 1 - start).next_multiple_of(LANES);
    if scores.len() < T * length {
        scores.resize(T * length, 0.0);
    }
    // SAFETY: the caller's promise; scores hold T rows of `length`.
    unsafe {
        let e = scores.as_mut_ptr();
        dot_keys::<I, T>(&queries, head, start, length, e);
        let mut totals = [0f32; T];
        for (t, query) in queries.iter().enumerate() {
            let row = std::slice::from_raw_parts_mut(e.add(t * length), length);
            totals[t] = softmax::<I>(row, query.first - start, query.last - start, query.sink);
        }
        mix_values::<I, T>(&queries, head, first..last + 1, e.add(first - start), length, totals);
    }
}

#[inline(always)]
unsafe fn dot_keys<I: Isa, const T: usize>(
    queries: &[Query; T],
    head: Head,
    start: usize,
    length: usize,
    e: *mut f32,
) {
    // SAFETY: the contract of `attend`.
    unsafe {
        let scale = I::splat(head.scale);
        for block in (0..length).step_by(LANES) {
            let keys = head.keys.add((start + block) * head.elements);
            let mut sums = [I::splat(0.0); T];
            for d in 0..head.elements {
                let k = I::load(keys.add(d * LANES));
                for t in 0..T {
                    sums[t] = I::fma(I::splat(*queries[t].q.add(d)), k, sums[t]);
                }
            }
            for t in 0..T {
                I::store(e.add(t * length + block), I::mul(sums[t], scale));
            }
        }
    }
}

/// e^(s - max) within first..=last, zero outside; returns the sum, with the sink's share.
#[inline(always)]
unsafe fn softmax<I: Isa>(s: &mut [f32], first: usize, last: usize, sink: f32) -> f32 {
    s[..first].fill(f32::NEG_INFINITY);
    s[last + 1..].fill(f32::NEG_INFINITY);
    let mut share = [0f32; LANES];
    // SAFETY: `s` holds whole vectors; the CPU has the instruction set.
    unsafe {
        let p = s.as_mut_ptr();
        let mut best = I::splat(sink);
        for at in (0..s.len()).step_by(LANES) {
            best = I::max(best, I::load(p.add(at)));
        }
        let best = I::splat(I::largest(best));
        for at in (0..s.len()).step_by(LANES) {
            I::store(p.add(at), exp::<I>(I::sub(I::load(p.add(at)), best)));
        }
        if sink > f32::NEG_INFINITY {
            I::store(share.as_mut_ptr(), exp::<I>(I::sub(I::splat(sink), best)));
        }
    }
    s[..first].fill(0.0);
    s[last + 1..].fill(0.0);
    // SAFETY: as above.
    unsafe {
        let mut sum = I::splat(0.0);
        for at in (0..s.len()).step_by(LANES) {
            sum = I::add(sum, I::load(s.as_ptr().add(at)));
        }
        I::sum(sum) + share[0]
    }
}

#[inline(always)]
unsafe fn mix_values<I: Isa, const T: usize>(
    queries: &[Query; T],
    head: Head,
    positions: std::ops::Range<usize>,
    e: *const f32,
    length: usize,
    totals: [f32; T],
) {
    let padded = head.elements.next_multiple_of(LANES);
    // SAFETY: the contract of `attend`.
    unsafe {
        for start in (0..head.elements).step_by(LANES) {
            let mut sums = [I::splat(0.0); T];
            for (i, p) in positions.clone().enumerate() {
                let v = I::load(head.values.add(p * padded + start));
                for t in 0..T {
                    sums[t] = I::fma(I::splat(*e.add(t * length + i)), v, sums[t]);
                }
            }
            for t in 0..T {
                let result = I::div(sums[t], I::splat(totals[t]));
                let mut lanes = [0f32; LANES];
                I::store(lanes.as_mut_ptr(), result);
                let count = (head.elements - start).min(LANES);
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), queries[t].out.add(start), count);
            }
        }
    }
}

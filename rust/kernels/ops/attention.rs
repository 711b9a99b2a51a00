//! Attention of some queries over the KV cache of one key/value head.
//!
//! Keys lie as [position / 16][element][16], so that a lane is a position; values as [position][element]
//! with the elements padded to a multiple of 16, so that a lane is an element. For one query:
//!
//! ```text
//! s[p] = (sum over elements in order of q k, fused) * scale
//! e[p] = exp(s[p] - max s),   total = sum of e through lanes p % 16
//! out  = (sum over positions in order of e v, fused) / total
//! ```
//!
//! If keys and values are int8 codes, s[p] is multiplied with the key's scale before `scale`, and e[p]
//! with the value's scale after the total is summed.
//! A head's sink is one more score: it enters the maximum and, as the last term, the total, and has no v.
//!
//! All queries read a block of positions before the next block, so that keys and values are read from
//! memory once for all of them. Tiles of 4 queries share the loads. Positions outside a query's range have
//! probability zero exactly, so that a query's result does not depend on the other queries of its tile.
//! A value there that is not finite would turn that zero into NaN: a query whose sums are not finite adds
//! the values of its own positions again, alone.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use crate::kernels::isa::floats::Isa;
use crate::kernels::ops::rows::exp;
use crate::kernels::shape::LANES;

/// Queries that share the loads of keys and values.
pub const TILE: usize = 4;
/// Positions of a block, whose keys or values stay in the first-level cache.
const BLOCK: usize = 64;
/// Most queries of one call of `attend`.
pub const MOST: usize = 32;

/// The element type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    F32,
    F16,
    /// Codes within -127..=127 and a scale for each head and position.
    Int8,
}

impl KvType {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
            KvType::Int8 => 1,
        }
    }
}

/// One query: its row, where its result goes, and the positions that it attends to, both ends included.
#[derive(Clone, Copy)]
pub struct Query {
    pub q: *const f32,
    pub out: *mut f32,
    pub first: usize,
    pub last: usize,
    /// The score of the attention sink, which takes a probability and adds no value; -infinity for none.
    pub sink: f32,
}

/// The KV cache of one key/value head.
#[derive(Clone, Copy)]
pub struct Head {
    pub kv_type: KvType,
    pub keys: *const u8,
    pub values: *const u8,
    /// One f32 for each position; only read for `KvType::Int8`.
    pub key_scales: *const f32,
    pub value_scales: *const f32,
    pub elements: usize,
    pub scale: f32,
}

/// Computes attention of `queries`, at most `MOST`, over `head`.
///
/// # Safety
///
/// Queries hold `head.elements` floats, the head holds all blocks of 16 positions up to the last position
/// that a query attends to, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn attend<I: Isa>(queries: &[Query], head: Head, scratch: &mut Vec<f32>) {
    // SAFETY: the caller's promise.
    unsafe {
        match head.kv_type {
            KvType::F32 => walk::<I, 4>(queries, head, scratch),
            KvType::F16 => walk::<I, 2>(queries, head, scratch),
            KvType::Int8 => walk::<I, 1>(queries, head, scratch),
        }
    }
}

/// 16 keys or values of BYTES bytes, as floats.
#[inline(always)]
unsafe fn load_kv<I: Isa, const BYTES: usize>(data: *const u8, at: usize) -> I::F {
    // SAFETY: the caller has the elements, and the CPU the instruction set.
    unsafe {
        match BYTES {
            4 => I::load(data.cast::<f32>().add(at)),
            2 => I::load_f16(data.cast::<u16>().add(at)),
            _ => I::float(I::load_i8(data.add(at))),
        }
    }
}

/// Working memory of the queries: a row of scores from position `start` on, and a row of sums.
#[derive(Clone, Copy)]
struct QueryRows {
    scores: *mut f32,
    length: usize,
    sums: *mut f32,
    padded: usize,
    start: usize,
}

impl QueryRows {
    fn of(self, query: usize) -> Self {
        Self {
            scores: self.scores.wrapping_add(query * self.length),
            sums: self.sums.wrapping_add(query * self.padded),
            ..self
        }
    }
}

/// Runs a function for all queries in tiles of T = 4, 2 or 1.
macro_rules! each_tile {
    ($queries:expr, $at:ident => $function:ident::<$i:ident, $bytes:ident>($($argument:expr),*)) => {{
        let mut $at = 0;
        while $at < $queries.len() {
            match $queries.len() - $at {
                4.. => {
                    $function::<$i, $bytes, 4>(&$queries[$at..$at + 4], $($argument),*);
                    $at += 4;
                }
                2 | 3 => {
                    $function::<$i, $bytes, 2>(&$queries[$at..$at + 2], $($argument),*);
                    $at += 2;
                }
                _ => {
                    $function::<$i, $bytes, 1>(&$queries[$at..$at + 1], $($argument),*);
                    $at += 1;
                }
            }
        }
    }};
}

#[inline(always)]
unsafe fn walk<I: Isa, const BYTES: usize>(queries: &[Query], head: Head, scratch: &mut Vec<f32>) {
    let seen = seen(queries);
    let start = seen.start / LANES * LANES;
    let length = (seen.end - start).next_multiple_of(LANES);
    let padded = head.elements.next_multiple_of(LANES);
    let wanted = queries.len() * (length + padded);
    if scratch.len() < wanted {
        scratch.resize(wanted, 0.0);
    }
    let (scores, sums) = scratch.split_at_mut(queries.len() * length);
    sums[..queries.len() * padded].fill(0.0);
    let rows =
        QueryRows { scores: scores.as_mut_ptr(), length, sums: sums.as_mut_ptr(), padded, start };
    // SAFETY: the caller's promise; every query has both rows.
    unsafe {
        for block in (start..seen.end).step_by(BLOCK) {
            let block = block..seen.end.min(block + BLOCK);
            each_tile!(queries, at => dot_keys::<I, BYTES>(&head, block.clone(), rows.of(at)));
        }
        let mut totals = [0f32; MOST];
        for (at, query) in queries.iter().enumerate() {
            totals[at] = probabilities::<I, BYTES>(query, &head, rows.of(at));
        }
        for block in (start..seen.end).step_by(BLOCK) {
            let block = block..seen.end.min(block + BLOCK);
            each_tile!(queries, at => mix_values::<I, BYTES>(&head, block.clone(), rows.of(at)));
        }
        for (at, query) in queries.iter().enumerate() {
            let row = rows.of(at);
            let finite = all_finite(std::slice::from_raw_parts(row.sums, padded));
            if !finite && queries.len() > 1 {
                std::slice::from_raw_parts_mut(row.sums, padded).fill(0.0);
                let own = query.first..query.last + 1;
                mix_values::<I, BYTES, 1>(std::slice::from_ref(query), &head, own, row);
            }
            let sums = std::slice::from_raw_parts(row.sums, head.elements);
            for (d, sum) in sums.iter().enumerate() {
                *query.out.add(d) = sum / totals[at];
            }
        }
    }
}

/// Whether no number is NaN or infinite. The loop is vectorized: it runs once for each query.
#[inline(always)]
fn all_finite(x: &[f32]) -> bool {
    let mut largest = 0;
    for x in x {
        largest = largest.max(x.abs().to_bits());
    }
    largest < f32::INFINITY.to_bits()
}

/// The positions that at least one of the queries attends to.
fn seen(queries: &[Query]) -> Range<usize> {
    let (mut first, mut end) = (usize::MAX, 0);
    for query in queries {
        first = first.min(query.first);
        end = end.max(query.last + 1);
    }
    first..end
}

/// Writes the scores of the positions of `block`, which starts at a multiple of 16.
#[inline(always)]
unsafe fn dot_keys<I: Isa, const BYTES: usize, const T: usize>(
    queries: &[Query],
    head: &Head,
    block: Range<usize>,
    rows: QueryRows,
) {
    let seen = seen(queries);
    let first = block.start.max(seen.start / LANES * LANES);
    // SAFETY: the contract of `attend`.
    unsafe {
        let scale = I::splat(head.scale);
        for position in (first..block.end.min(seen.end)).step_by(LANES) {
            let mut sums = [I::splat(0.0); T];
            for d in 0..head.elements {
                let k = load_kv::<I, BYTES>(head.keys, position * head.elements + d * LANES);
                for t in 0..T {
                    sums[t] = I::fma(I::splat(*queries[t].q.add(d)), k, sums[t]);
                }
            }
            for t in 0..T {
                if BYTES == 1 {
                    sums[t] = I::mul(sums[t], I::load(head.key_scales.add(position)));
                }
                let at = rows.of(t).scores.add(position - rows.start);
                I::store(at, I::mul(sums[t], scale));
            }
        }
    }
}

/// Turns a query's scores into e of its values (times their scales), zero outside its range; returns the
/// sum of e, with the sink's.
#[inline(always)]
unsafe fn probabilities<I: Isa, const BYTES: usize>(
    query: &Query,
    head: &Head,
    rows: QueryRows,
) -> f32 {
    // SAFETY: the row is padded to vectors; the CPU has the instruction set.
    unsafe {
        let s = std::slice::from_raw_parts_mut(rows.scores, rows.length);
        let (first, last) = (query.first - rows.start, query.last - rows.start);
        let total = softmax::<I>(s, first, last, query.sink);
        if BYTES == 1 {
            for at in (first / LANES * LANES..last + 1).step_by(LANES) {
                let scales = I::load(head.value_scales.add(rows.start + at));
                let p = rows.scores.add(at);
                I::store(p, I::mul(I::load(p), scales));
            }
        }
        total
    }
}

/// Replaces s by e^(s - max) within first..=last, by zero outside; returns the sum, with the sink's e.
#[inline(always)]
unsafe fn softmax<I: Isa>(s: &mut [f32], first: usize, last: usize, sink: f32) -> f32 {
    let aligned = first / LANES * LANES..(last + 1).next_multiple_of(LANES);
    s[aligned.start..first].fill(f32::NEG_INFINITY);
    s[last + 1..aligned.end].fill(f32::NEG_INFINITY);
    let mut of_sink = [0f32; LANES];
    // SAFETY: `s` is padded to vectors; the CPU has the instruction set.
    unsafe {
        let p = s.as_mut_ptr();
        let mut best = I::splat(sink);
        for at in aligned.clone().step_by(LANES) {
            best = I::max(best, I::load(p.add(at)));
        }
        let best = I::splat(I::largest(best));
        for at in aligned.clone().step_by(LANES) {
            I::store(p.add(at), exp::<I>(I::sub(I::load(p.add(at)), best)));
        }
        if sink > f32::NEG_INFINITY {
            I::store(of_sink.as_mut_ptr(), exp::<I>(I::sub(I::splat(sink), best)));
        }
    }
    s[..first].fill(0.0);
    s[last + 1..].fill(0.0);
    // SAFETY: as above.
    unsafe {
        let mut sum = I::splat(0.0);
        for at in aligned.step_by(LANES) {
            sum = I::add(sum, I::load(s.as_ptr().add(at)));
        }
        I::sum(sum) + of_sink[0]
    }
}

/// Adds e times the values of the positions of `block` to the sums.
#[inline(always)]
unsafe fn mix_values<I: Isa, const BYTES: usize, const T: usize>(
    queries: &[Query],
    head: &Head,
    block: Range<usize>,
    rows: QueryRows,
) {
    let seen = seen(queries);
    let range = block.start.max(seen.start)..block.end.min(seen.end);
    // SAFETY: the contract of `attend`.
    unsafe {
        for start in (0..rows.padded).step_by(LANES) {
            let mut sums = [I::splat(0.0); T];
            for t in 0..T {
                sums[t] = I::load(rows.of(t).sums.add(start));
            }
            for position in range.clone() {
                let v = load_kv::<I, BYTES>(head.values, position * rows.padded + start);
                for t in 0..T {
                    let e = *rows.of(t).scores.add(position - rows.start);
                    sums[t] = I::fma(I::splat(e), v, sums[t]);
                }
            }
            for t in 0..T {
                I::store(rows.of(t).sums.add(start), sums[t]);
            }
        }
    }
}

//! Attention of some queries over the cache of one key/value head.
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
//! Where keys and values are codes, s[p] is multiplied with the key's scale before `scale`, and e[p]
//! with the value's behind the total.
//! A head's sink is one more score: it enters the largest and, last of all, the total, and has no v.
//!
//! All queries go through a block of positions before the next is looked at, so keys and values are
//! read from memory once for all of them. Tiles of 4 share the loads; positions outside a query's
//! range weigh exactly zero, so its bits do not depend on which queries lie beside it.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;

use crate::kernels::isa::floats::Isa;
use crate::kernels::ops::rows::exp;
use crate::kernels::shape::LANES;

/// Queries that share the loads of keys and values.
pub const TILE: usize = 4;
/// Positions that all queries meet before the next ones: as many as the first cache holds.
const BLOCK: usize = 64;
/// Queries of one walk at the most.
pub const MOST: usize = 32;

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    F32,
    F16,
    /// Codes within -127..=127 and a scale for each head and position.
    Int8,
}

impl Kept {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Kept::F32 => 4,
            Kept::F16 => 2,
            Kept::Int8 => 1,
        }
    }
}

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
    pub kept: Kept,
    pub keys: *const u8,
    pub values: *const u8,
    /// One for each position; not read unless codes are kept.
    pub key_scales: *const f32,
    pub value_scales: *const f32,
    pub elements: usize,
    pub scale: f32,
}

/// Attends each of `queries`, at most `MOST` of them, over `head`.
///
/// # Safety
///
/// Queries hold `head.elements` floats, and the head whole blocks of 16 positions up to the last
/// one that a query sees; the CPU has the instruction set.
#[inline(always)]
pub unsafe fn attend<I: Isa>(queries: &[Query], head: Head, scratch: &mut Vec<f32>) {
    // SAFETY: the caller's promise.
    unsafe {
        match head.kept {
            Kept::F32 => walk::<I, 4>(queries, head, scratch),
            Kept::F16 => walk::<I, 2>(queries, head, scratch),
            Kept::Int8 => walk::<I, 1>(queries, head, scratch),
        }
    }
}

/// 16 elements of BYTES bytes, as floats.
#[inline(always)]
unsafe fn kept<I: Isa, const BYTES: usize>(data: *const u8, at: usize) -> I::F {
    // SAFETY: the caller has the elements, and the CPU the instruction set.
    unsafe {
        match BYTES {
            4 => I::load(data.cast::<f32>().add(at)),
            2 => I::load_f16(data.cast::<u16>().add(at)),
            _ => I::float(I::load_i8(data.add(at))),
        }
    }
}

/// Where a walk keeps its numbers: rows of scores from position `start` on, rows of sums.
#[derive(Clone, Copy)]
struct Rows {
    scores: *mut f32,
    length: usize,
    sums: *mut f32,
    padded: usize,
    start: usize,
}

impl Rows {
    fn of(self, query: usize) -> Self {
        Self {
            scores: self.scores.wrapping_add(query * self.length),
            sums: self.sums.wrapping_add(query * self.padded),
            ..self
        }
    }
}

/// Runs a function with T = 4, 2 or 1 for the queries that remain.
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
    let rows = Rows { scores: scores.as_mut_ptr(), length, sums: sums.as_mut_ptr(), padded, start };
    // SAFETY: the caller's promise; there is a row of each kind for every query.
    unsafe {
        for block in (start..seen.end).step_by(BLOCK) {
            let block = block..seen.end.min(block + BLOCK);
            each_tile!(queries, at => dot_keys::<I, BYTES>(&head, block.clone(), rows.of(at)));
        }
        let mut totals = [0f32; MOST];
        for (at, query) in queries.iter().enumerate() {
            totals[at] = weigh::<I, BYTES>(query, &head, rows.of(at));
        }
        for block in (start..seen.end).step_by(BLOCK) {
            let block = block..seen.end.min(block + BLOCK);
            each_tile!(queries, at => mix_values::<I, BYTES>(&head, block.clone(), rows.of(at)));
        }
        for (at, query) in queries.iter().enumerate() {
            let sums = std::slice::from_raw_parts(rows.of(at).sums, head.elements);
            for (d, sum) in sums.iter().enumerate() {
                *query.out.add(d) = sum / totals[at];
            }
        }
    }
}

/// The positions that any of the queries sees.
fn seen(queries: &[Query]) -> Range<usize> {
    let (mut first, mut end) = (usize::MAX, 0);
    for query in queries {
        first = first.min(query.first);
        end = end.max(query.last + 1);
    }
    first..end
}

/// The scores of the positions of `block`, whose start is a multiple of 16, that the queries see.
#[inline(always)]
unsafe fn dot_keys<I: Isa, const BYTES: usize, const T: usize>(
    queries: &[Query],
    head: &Head,
    block: Range<usize>,
    rows: Rows,
) {
    let seen = seen(queries);
    let first = block.start.max(seen.start / LANES * LANES);
    // SAFETY: the contract of `attend`.
    unsafe {
        let scale = I::splat(head.scale);
        for position in (first..block.end.min(seen.end)).step_by(LANES) {
            let mut sums = [I::splat(0.0); T];
            for d in 0..head.elements {
                let k = kept::<I, BYTES>(head.keys, position * head.elements + d * LANES);
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

/// Turns a query's scores into weights of the values, zero where it does not see; returns the
/// sum of e, with the sink's share.
#[inline(always)]
unsafe fn weigh<I: Isa, const BYTES: usize>(query: &Query, head: &Head, rows: Rows) -> f32 {
    // SAFETY: the row has whole vectors; the CPU has the instruction set.
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

/// e^(s - max) within first..=last, zero outside; returns the sum, with the sink's share.
#[inline(always)]
unsafe fn softmax<I: Isa>(s: &mut [f32], first: usize, last: usize, sink: f32) -> f32 {
    let whole = first / LANES * LANES..(last + 1).next_multiple_of(LANES);
    s[whole.start..first].fill(f32::NEG_INFINITY);
    s[last + 1..whole.end].fill(f32::NEG_INFINITY);
    let mut share = [0f32; LANES];
    // SAFETY: `s` holds whole vectors; the CPU has the instruction set.
    unsafe {
        let p = s.as_mut_ptr();
        let mut best = I::splat(sink);
        for at in whole.clone().step_by(LANES) {
            best = I::max(best, I::load(p.add(at)));
        }
        let best = I::splat(I::largest(best));
        for at in whole.clone().step_by(LANES) {
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
        for at in whole.step_by(LANES) {
            sum = I::add(sum, I::load(s.as_ptr().add(at)));
        }
        I::sum(sum) + share[0]
    }
}

/// Adds what the positions of `block` weigh to the sums.
#[inline(always)]
unsafe fn mix_values<I: Isa, const BYTES: usize, const T: usize>(
    queries: &[Query],
    head: &Head,
    block: Range<usize>,
    rows: Rows,
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
                let v = kept::<I, BYTES>(head.values, position * rows.padded + start);
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

//! Choose a token from a row of logits: top-k, top-p, min-p, temperature, then one draw.
//!
//! Probabilities are whole numbers: exp(logit - largest), rounded to a multiple of 2^-40. Their sums
//! are exact in any order, so top-p needs no sorted row and the draw no order of additions.
//! `reference/draw.py` defines the result.

use crate::measure::exp;

/// How tokens are kept and drawn; see `fewbit.Sampling`.
#[derive(Debug, Clone, Copy)]
pub struct Filters {
    pub temperature: f64,
    /// 0 keeps all tokens.
    pub top_k: usize,
    pub top_p: f64,
    pub min_p: f64,
}

/// A logit: f32 from the model, f64 once it was changed.
pub trait Logit: Copy + PartialOrd {
    /// The same number.
    fn wide(self) -> f64;

    /// True for NaN.
    fn is_nan(self) -> bool;
}

impl Logit for f32 {
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

impl Logit for f64 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

/// A token that is kept, with its logit.
type Candidate<T> = (T, u32);

/// The next token: `random` are 64 random bits, `weights` is working memory. None for rows without
/// a softmax: with NaN or +inf, or nothing but -inf.
pub fn choose<T: Logit>(
    row: &[T],
    filters: &Filters,
    random: u64,
    weights: &mut Vec<u64>,
) -> Option<u32> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found on this processor.
        return unsafe { choose_avx2(row, filters, random, weights) };
    }
    choose_of(row, filters, random, weights)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn choose_avx2<T: Logit>(
    row: &[T],
    filters: &Filters,
    random: u64,
    weights: &mut Vec<u64>,
) -> Option<u32> {
    choose_of(row, filters, random, weights)
}

#[inline(always)]
fn choose_of<T: Logit>(
    row: &[T],
    filters: &Filters,
    random: u64,
    weights: &mut Vec<u64>,
) -> Option<u32> {
    let top = largest(row)?;
    if filters.temperature == 0.0 {
        return row.iter().position(|&x| x == top).map(|id| id as u32);
    }
    if filters.top_k > 0 {
        return Some(choose_likeliest(row, top.wide(), filters, random, weights));
    }
    Some(choose_any(row, top.wide(), filters, random, weights))
}

/// The largest logit; None without a softmax.
#[inline(always)]
fn largest<T: Logit>(row: &[T]) -> Option<T> {
    const WIDTH: usize = 16;
    let mut lanes = [*row.first()?; WIDTH];
    let (chunks, rest) = row.as_chunks::<WIDTH>();
    let mut nan = false;
    for chunk in chunks {
        for (most, &x) in lanes.iter_mut().zip(chunk) {
            *most = if x > *most { x } else { *most };
        }
        nan |= chunk.iter().fold(false, |any, x| any | x.is_nan());
    }
    for (most, &x) in lanes.iter_mut().zip(rest) {
        *most = if x > *most { x } else { *most };
        nan |= x.is_nan();
    }
    let most = lanes.into_iter().reduce(|a, b| if b > a { b } else { a })?;
    (!nan && most.wide().is_finite()).then_some(most)
}

/// Draws from the `top_k` likeliest tokens, the likeliest first.
#[inline(always)]
fn choose_likeliest<T: Logit>(
    row: &[T],
    top: f64,
    filters: &Filters,
    random: u64,
    weights: &mut Vec<u64>,
) -> u32 {
    let mut kept = likeliest(row, filters.top_k);
    if filters.top_p < 1.0 {
        let total = kept.iter().map(|x| weight(x.0.wide() - top)).sum();
        let target = reach(filters.top_p, total);
        let mut sum = 0;
        let last = kept.iter().position(|x| {
            sum += weight(x.0.wide() - top);
            sum >= target
        });
        kept.truncate(last.map_or(kept.len(), |last| last + 1));
    }
    if filters.min_p > 0.0 {
        let least = top + filters.min_p.ln();
        kept.truncate(kept.partition_point(|x| x.0.wide() >= least).max(1));
    }
    weights.clear();
    weights.extend(kept.iter().map(|x| weight((x.0.wide() - top) / filters.temperature)));
    kept[draw(weights, random)].1
}

/// Draws from all tokens that top-p and min-p keep, in the order of their ids.
#[inline(always)]
fn choose_any<T: Logit>(
    row: &[T],
    top: f64,
    filters: &Filters,
    random: u64,
    weights: &mut Vec<u64>,
) -> u32 {
    let all = (f64::NEG_INFINITY, u32::MAX);
    let (bound, last) = if filters.top_p < 1.0 { nucleus(row, top, filters, weights) } else { all };
    // the likeliest stays whatever rounding does
    let least = if filters.min_p > 0.0 { (top + filters.min_p.ln()).min(top) } else { bound };
    weigh(row, top, filters.temperature, bound.max(least), weights);
    if last != u32::MAX {
        // of tokens as likely as the least likely one that is kept, those up to its id are kept
        for (weight, _) in
            weights.iter_mut().zip(row).skip(last as usize + 1).filter(|x| x.1.wide() == bound)
        {
            *weight = 0;
        }
    }
    draw(weights, random) as u32
}

/// The weight of each logit at a temperature, 0 for those below `least`.
#[inline(always)]
fn weigh<T: Logit>(row: &[T], top: f64, temperature: f64, least: f64, weights: &mut Vec<u64>) {
    weights.clear();
    weights.resize(row.len(), 0);
    let (chunks, rest) = row.as_chunks::<LANES>();
    let (outs, rest_out) = weights.as_chunks_mut::<LANES>();
    for (out, x) in outs.iter_mut().zip(chunks) {
        *out = weigh_chunk(x, top, temperature, least);
    }
    if let Some(&first) = rest.first() {
        let mut x = [first; LANES];
        x[..rest.len()].copy_from_slice(rest);
        rest_out.copy_from_slice(&weigh_chunk(&x, top, temperature, least)[..rest.len()]);
    }
}

/// Logits that are weighed side by side.
const LANES: usize = 8;

#[inline(always)]
fn weigh_chunk<T: Logit>(x: &[T; LANES], top: f64, temperature: f64, least: f64) -> [u64; LANES] {
    let x = x.map(Logit::wide);
    // exp of less is below half of 2^-40: most chunks of a row cost only this comparison.
    const NOTHING: f64 = -28.5;
    let most = x.iter().fold(f64::NEG_INFINITY, |most, &x| if x > most { x } else { most });
    if most < least || (most - top) / temperature < NOTHING {
        return [0; LANES];
    }
    let mut out = [0; LANES];
    for (out, x) in out.iter_mut().zip(x) {
        let weight = weight((x - top) / temperature);
        *out = if x >= least { weight } else { 0 };
    }
    out
}

/// exp(a) for a <= 0 as a multiple of 2^-40, to nearest even.
#[inline(always)]
fn weight(a: f64) -> u64 {
    const ONE: f64 = (1u64 << 40) as f64;
    // Adding 2^52 leaves the integer in the low bits.
    const ROUND: f64 = (1u64 << 52) as f64;
    (exp(a) * ONE + ROUND).to_bits() & ((1 << 52) - 1)
}

/// The sum that top-p reaches.
fn reach(top_p: f64, total: u64) -> u64 {
    ((top_p * total as f64).ceil() as u64).min(total)
}

/// The index whose share of all weights holds the random number.
#[inline(always)]
fn draw(weights: &[u64], random: u64) -> usize {
    let total: u64 = weights.iter().sum();
    let mut place = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    const BLOCK: usize = 256;
    for (block, some) in weights.chunks(BLOCK).enumerate() {
        let sum = some.iter().sum();
        if place < sum {
            for (index, &weight) in some.iter().enumerate() {
                if place < weight {
                    return block * BLOCK + index;
                }
                place -= weight;
            }
        }
        place -= sum;
    }
    unreachable!("the number is below the sum of all weights, and the largest weight is not 0")
}

/// The least likely token that top-p keeps: its logit and id.
///
/// Tokens are counted in buckets of similar logits; only the bucket that reaches the sum is sorted.
#[inline(always)]
fn nucleus<T: Logit>(
    row: &[T],
    top: f64,
    filters: &Filters,
    weights: &mut Vec<u64>,
) -> Candidate<f64> {
    const BUCKETS: usize = 512;
    let bucket = |x: T| (((top - x.wide()) * 16.0) as usize).min(BUCKETS - 1);
    weigh(row, top, 1.0, f64::NEG_INFINITY, weights);
    let mut sums = [0u64; BUCKETS];
    for (&x, &weight) in row.iter().zip(weights.iter()).filter(|pair| *pair.1 > 0) {
        sums[bucket(x)] += weight;
    }
    let target = reach(filters.top_p, sums.iter().sum());
    let (mut sum, mut found) = (0, 0);
    while sum + sums[found] < target {
        sum += sums[found];
        found += 1;
    }
    let mut tokens: Vec<(Candidate<T>, u64)> = (0u32..)
        .zip(row.iter().zip(weights.iter()))
        .filter(|(_, (x, weight))| **weight > 0 && bucket(**x) == found)
        .map(|(id, (&x, &weight))| ((x, id), weight))
        .collect();
    tokens.sort_unstable_by(|a, b| before(&a.0, &b.0));
    let reaching = tokens.iter().find(|token| {
        sum += token.1;
        sum >= target
    });
    reaching.map_or((f64::NEG_INFINITY, u32::MAX), |&((x, id), _)| (x.wide(), id))
}

/// The likelier token first, of equal ones the lower id; the row has no NaN.
fn before<T: Logit>(a: &Candidate<T>, b: &Candidate<T>) -> std::cmp::Ordering {
    b.0.wide().partial_cmp(&a.0.wide()).unwrap_or(std::cmp::Ordering::Equal).then(a.1.cmp(&b.1))
}

/// The `count` likeliest tokens, sorted.
///
/// A token enters only if it is likelier than the least of the `count` best so far, so most chunks
/// of a row cost one comparison.
#[inline(always)]
pub fn likeliest<T: Logit>(row: &[T], count: usize) -> Vec<Candidate<T>> {
    const CHUNK: usize = 16;
    let count = count.min(row.len());
    let room = count.saturating_mul(2) + 256;
    let mut found: Vec<Candidate<T>> = Vec::with_capacity(room.min(row.len()) + CHUNK);
    let mut least = None;
    for (index, chunk) in row.chunks(CHUNK).enumerate() {
        if let Some(least) = least
            && !chunk.iter().fold(false, |any, x| any | (*x > least))
        {
            continue;
        }
        let ids = (index * CHUNK) as u32..;
        found.extend(chunk.iter().copied().zip(ids).filter(|x| least.is_none_or(|y| x.0 > y)));
        if found.len() >= room && count > 0 {
            found.select_nth_unstable_by(count - 1, before);
            found.truncate(count);
            least = found.last().map(|x| x.0);
        }
    }
    found.sort_unstable_by(before);
    found.truncate(count);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits with many ties.
    fn row(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * step) % 101) as f32 * 0.125).collect()
    }

    #[test]
    fn the_likeliest_are_those_of_a_sorted_row() {
        for (size, step) in [(1, 1), (5, 3), (1003, 37), (5000, 53)] {
            let row = row(size, step);
            let mut sorted: Vec<_> = row.iter().copied().zip(0..).collect();
            sorted.sort_by(before);
            for count in [0, 1, 2, 40, 300, 1003, usize::MAX] {
                let expected = &sorted[..count.min(size)];
                assert_eq!(likeliest(&row, count), expected, "{count} of {size}");
            }
        }
    }

    #[test]
    fn vectors_change_no_token() {
        let (row, mut weights) = (row(3001, 37), Vec::new());
        for (top_k, top_p) in [(0, 1.0), (0, 0.7), (40, 0.9)] {
            let filters = Filters { temperature: 0.7, top_k, top_p, min_p: 0.01 };
            for i in 0..200u64 {
                let random = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let plain = choose_of(&row, &filters, random, &mut weights);
                assert_eq!(choose(&row, &filters, random, &mut weights), plain);
            }
        }
    }

    #[test]
    fn rows_without_a_softmax_give_no_token() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let filters = Filters { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0 };
        for at in [0, 16, 40] {
            for bad in [nan, inf] {
                let mut row = vec![0f32; 41];
                row[at] = bad;
                assert_eq!(choose(&row, &filters, 0, &mut Vec::new()), None);
            }
        }
        assert_eq!(choose(&[-inf, -inf], &filters, 0, &mut Vec::new()), None);
        assert_eq!(choose::<f32>(&[], &filters, 0, &mut Vec::new()), None);
    }

    #[test]
    fn the_ends_of_chance_are_tokens_that_may_be_drawn() {
        let row = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        let filters = Filters { temperature: 1e-300, top_k: 0, top_p: 1.0, min_p: 0.0 };
        assert_eq!(choose(&row, &filters, 0, &mut Vec::new()), Some(1));
        assert_eq!(choose(&row, &filters, u64::MAX, &mut Vec::new()), Some(3));
    }
}

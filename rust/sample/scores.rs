//! Log-probabilities of tokens, and the likeliest tokens of each row.

use rayon::prelude::*;

use super::filters::likeliest;
use crate::error::{Error, Result};
use crate::measure::Row;
use crate::threads::in_pool;

/// Stands for the token of a row without a softmax.
pub const NO_TOKEN: u32 = u32::MAX;

/// What rows of logits say about their targets, in nats; NaN for rows without a softmax.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// ln p(target), the negated bits of `measure::nll`.
    pub logprobs: Vec<f64>,
    /// [rows, top_n], the likeliest first; of equal ones the lower id.
    pub top_ids: Vec<u32>,
    pub top_logprobs: Vec<f64>,
}

/// Scores of `logits` [targets.len(), vocab]. The target `NO_TOKEN` scores NaN.
///
/// # Errors
/// `logits` has another size, a target is not in the vocabulary, or `top_n` is larger than it.
pub fn scores(logits: &[f32], vocab: usize, targets: &[u32], top_n: usize) -> Result<Scores> {
    check(logits, vocab, targets)?;
    if top_n > vocab {
        let message = format!("`top_n` is {top_n}, the vocabulary has {vocab} tokens");
        return Err(Error::input(message));
    }
    let row = |(logits, &target)| row_scores(logits, target, top_n);
    let found: Vec<_> =
        in_pool(0, || logits.par_chunks_exact(vocab).zip(targets).map(row).collect())?;
    let mut all = Scores::default();
    for (logprob, top) in found {
        all.logprobs.push(logprob);
        for (id, logprob) in top {
            all.top_ids.push(id);
            all.top_logprobs.push(logprob);
        }
    }
    Ok(all)
}

fn check(logits: &[f32], vocab: usize, targets: &[u32]) -> Result<()> {
    let (found, rows) = (logits.len(), targets.len());
    if vocab == 0 || found != rows * vocab {
        let message = format!("expected {rows} x {vocab} logits for {rows} targets, found {found}");
        return Err(Error::shape(message));
    }
    let wrong = targets.iter().find(|&&target| target as usize >= vocab && target != NO_TOKEN);
    wrong.map_or(Ok(()), |target| {
        Err(Error::input(format!("token {target} is not in the vocabulary of {vocab}")))
    })
}

fn row_scores(logits: &[f32], target: u32, top_n: usize) -> (f64, Vec<(u32, f64)>) {
    let row = Row::new(logits);
    // 0 - x instead of -x: a certain token scores 0, not -0
    let logprob = |token: u32| 0.0 - row.nll(token);
    if !row.has_softmax() {
        return (f64::NAN, (0..top_n as u32).map(|id| (id, f64::NAN)).collect());
    }
    let top = if top_n > 0 { likeliest(logits, top_n) } else { Vec::new() };
    let own = if target == NO_TOKEN { f64::NAN } else { logprob(target) };
    (own, top.into_iter().map(|(_, id)| (id, logprob(id))).collect())
}

//! Choose the next tokens of several sequences from the logits of one step.
//!
//! A row's token depends on its logits, its sampler and the tokens so far: not on the other rows,
//! nor on the number of threads.

pub mod filters;
pub mod penalties;
mod philox;
pub mod scores;

use std::sync::MutexGuard;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::threads::{ForkMutex, in_pool};
use filters::{Filters, choose};
use penalties::Changes;
pub use philox::random_bits;
pub use scores::NO_TOKEN;

/// How one sequence's tokens are drawn, and its tokens so far.
#[derive(Debug, Clone)]
pub struct Sampler {
    pub seed: u64,
    pub filters: Filters,
    pub changes: Changes,
    /// Prompt and text; the next token's position is their number.
    pub history: Vec<u32>,
}

impl Sampler {
    /// Logits [vocab] as the filters see them, into `out`.
    pub fn changed(&self, row: &[f32], out: &mut Vec<f64>) {
        out.clear();
        out.extend(row.iter().map(|&x| f64::from(x)));
        self.changes.apply(out, &self.history);
    }

    fn choose(&self, row: &[f32], allowed: Option<&[u32]>, memory: &mut Memory) -> u32 {
        let random = random_bits(self.seed, self.history.len() as u64);
        let found = if self.changes.nothing() && allowed.is_none() {
            choose(row, &self.filters, random, &mut memory.weights)
        } else {
            self.changed(row, &mut memory.logits);
            forbid(&mut memory.logits, allowed);
            choose(&memory.logits, &self.filters, random, &mut memory.weights)
        };
        found.unwrap_or(NO_TOKEN)
    }

    /// Refuses a logit bias beyond the vocabulary.
    fn check(&self, vocab: usize) -> Result<()> {
        match self.changes.bias.iter().find(|bias| bias.0 as usize >= vocab) {
            None => Ok(()),
            Some((token, _)) => Err(Error::input(format!(
                "logit bias of token {token}, the vocabulary has {vocab} tokens"
            ))),
        }
    }
}

/// Where a row's token comes from.
pub struct Request<'a> {
    pub sampler: &'a ForkMutex<Sampler>,
    /// A bit for each token, the lowest of each word first; None allows all.
    pub allowed: Option<&'a [u32]>,
    /// The token, if it is given.
    pub forced: Option<u32>,
}

/// Working memory of a thread.
#[derive(Default)]
struct Memory {
    logits: Vec<f64>,
    weights: Vec<u64>,
}

/// The token after each row of `logits` [requests.len(), vocab]; `NO_TOKEN` where a row has no
/// softmax, or no token that is allowed. The samplers' histories stay as they are.
///
/// # Errors
/// `logits` has another size, a mask is too short, or a token is not in the vocabulary.
pub fn sample(logits: &[f32], vocab: usize, requests: &[Request]) -> Result<Vec<u32>> {
    check(logits, vocab, requests)?;
    let one = |memory: &mut Memory, (row, request): (&[f32], &Request)| match request.forced {
        Some(token) => Ok(token),
        None => Ok(locked(request.sampler)?.choose(row, request.allowed, memory)),
    };
    if let [request] = requests {
        return Ok(vec![one(&mut Memory::default(), (logits, request))?]);
    }
    let rows = logits.par_chunks_exact(vocab).zip(requests);
    in_pool(0, || rows.map_init(Memory::default, one).collect())?
}

/// The sampler, once no other thread uses it.
///
/// # Errors
/// `Input` in a child that was forked while a thread of the parent used it.
pub fn locked(sampler: &ForkMutex<Sampler>) -> Result<MutexGuard<'_, Sampler>> {
    sampler.lock().ok_or_else(|| Error::held_at_fork("the sampler"))
}

fn check(logits: &[f32], vocab: usize, requests: &[Request]) -> Result<()> {
    let (found, rows) = (logits.len(), requests.len());
    if vocab == 0 || vocab >= NO_TOKEN as usize || found != rows * vocab {
        let message =
            format!("expected {rows} x {vocab} logits for {rows} samplers, found {found}");
        return Err(Error::shape(message));
    }
    for request in requests {
        locked(request.sampler)?.check(vocab)?;
        if let Some(mask) = request.allowed
            && mask.len() < vocab.div_ceil(32)
        {
            let (words, expected) = (mask.len(), vocab.div_ceil(32));
            let message = format!("a mask has {words} words, expected {expected}: a bit a token");
            return Err(Error::shape(message));
        }
        if let Some(token) = request.forced
            && token as usize >= vocab
        {
            let message = format!("token {token} is not in the vocabulary of {vocab}");
            return Err(Error::input(message));
        }
    }
    Ok(())
}

/// Sets the logits of tokens to -inf whose bit is 0.
fn forbid(row: &mut [f64], allowed: Option<&[u32]>) {
    for (some, word) in row.chunks_mut(32).zip(allowed.into_iter().flatten()) {
        if *word == u32::MAX {
            continue;
        }
        for (bit, x) in some.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *x = f64::NEG_INFINITY;
            }
        }
    }
}

//! Change logits before a token is drawn: logit bias, penalties on repetition, and DRY.
//!
//! Formulas and order are llama.cpp's; `reference/sampling.py` defines them.

use std::collections::HashMap;

/// For each id that begins a sequence breaker, the ids that may follow it to complete one.
pub type Breakers = HashMap<u32, Vec<Vec<u32>>>;

/// Natural logarithm of the largest binary32 number: DRY's power stays below it.
const LARGEST_LOG: f64 = 88.722_839_1;

/// What changes logits; see `fewbit.Sampling`.
#[derive(Debug, Clone)]
pub struct Changes {
    pub bias: Vec<(u32, f64)>,
    pub repeat: f64,
    pub presence: f64,
    pub frequency: f64,
    /// Last tokens that the penalties see, None for all.
    pub window: Option<usize>,
    pub dry: Dry,
}

/// "Don't repeat yourself", by p-e-w and pi6am.
#[derive(Debug, Clone)]
pub struct Dry {
    pub multiplier: f64,
    pub base: f64,
    pub allowed: usize,
    /// Last tokens that count, None for all.
    pub window: Option<usize>,
    pub breakers: Breakers,
}

impl Changes {
    /// True if no logit changes after any tokens.
    pub fn nothing(&self) -> bool {
        self.bias.is_empty() && !self.penalizes() && self.dry.multiplier == 0.0
    }

    fn penalizes(&self) -> bool {
        (self.repeat, self.presence, self.frequency) != (1.0, 0.0, 0.0)
    }

    /// Changes `row` [vocab] after the tokens `history`, prompt and text.
    pub fn apply(&self, row: &mut [f64], history: &[u32]) {
        for &(token, bias) in &self.bias {
            if let Some(x) = row.get_mut(token as usize) {
                *x += bias;
            }
        }
        if self.penalizes() {
            self.penalize(row, last(history, self.window));
        }
        if self.dry.multiplier != 0.0 {
            self.dry.apply(row, last(history, self.dry.window));
        }
    }

    fn penalize(&self, row: &mut [f64], recent: &[u32]) {
        let mut sorted = recent.to_vec();
        sorted.sort_unstable();
        for same in sorted.chunk_by(|a, b| a == b) {
            let Some(x) = row.get_mut(same[0] as usize) else { continue };
            let value = if *x > 0.0 { *x / self.repeat } else { *x * self.repeat };
            *x = value - same.len() as f64 * self.frequency - self.presence;
        }
    }
}

impl Dry {
    fn apply(&self, row: &mut [f64], recent: &[u32]) {
        let limit = self.repeat_limit(recent);
        if recent.len() <= self.allowed || limit < self.allowed {
            return;
        }
        let most = if self.base > 1.000_001 { (LARGEST_LOG / self.base.ln()) as usize } else { 0 };
        // longer repetitions cost no more than `most`, so their length need not be known
        let limit = if most > 0 { limit.min(self.allowed.saturating_add(most)) } else { limit };
        for (token, length) in repeats(recent, limit) {
            let alone =
                self.breakers.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty));
            let Some(x) = row.get_mut(token as usize) else { continue };
            if length >= self.allowed && !alone {
                *x -= self.multiplier * self.base.powf((length - self.allowed) as f64);
            }
        }
    }

    /// How many tokens at the end of `recent` follow its last sequence breaker.
    fn repeat_limit(&self, recent: &[u32]) -> usize {
        if self.breakers.is_empty() {
            return recent.len();
        }
        let breaker = |start: usize| {
            let behind = &recent[start + 1..];
            let tails = self.breakers.get(&recent[start])?;
            let complete = tails.iter().filter(|tail| behind.starts_with(tail));
            complete.map(Vec::len).max().map(|longest| behind.len() - longest)
        };
        (0..recent.len()).rev().find_map(breaker).unwrap_or(recent.len())
    }
}

/// For each token the length, at most `limit`, of the longest repetition that it continues.
fn repeats(recent: &[u32], limit: usize) -> HashMap<u32, usize> {
    let mut found = HashMap::new();
    let Some((&last, earlier)) = recent.split_last() else { return found };
    let same = earlier.iter().enumerate().filter(|pair| *pair.1 == last);
    let mut ends: Vec<usize> = same.map(|pair| pair.0).collect();
    let mut length = 1;
    while !ends.is_empty() && length <= limit {
        found.extend(ends.iter().map(|&end| (recent[end + 1], length)));
        ends.retain(|&end| end >= length && recent[end - length] == recent[earlier.len() - length]);
        length += 1;
    }
    found
}

fn last(history: &[u32], window: Option<usize>) -> &[u32] {
    &history[history.len() - window.unwrap_or(usize::MAX).min(history.len())..]
}

//! Attention: threads claim a few tokens of one key/value head and put their queries into tiles.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use crate::exec::program::Attend;
use crate::exec::step::{Step, Token};
use crate::kernels::ops::attention::{MOST, Query, TILE};

/// Scores in a thread's memory at a time, unless 4 queries alone need more.
const SCORES: usize = 1 << 17;

/// Queries of one sequence that read keys and values together.
type Queries = SmallVec<[Query; MOST]>;

impl Step<'_> {
    /// Claims 8 tokens of one key/value head at a time.
    pub fn attend(&self, claims: &AtomicUsize, attend: &Attend, scores: &mut Vec<f32>) {
        const TOKENS: usize = 8;
        let runs = self.tokens.len().div_ceil(TOKENS);
        loop {
            let task = claims.fetch_add(1, Ordering::Relaxed);
            if task >= runs * attend.kv_heads {
                return;
            }
            // The last tokens see most: they are claimed first.
            let run = runs - 1 - task / attend.kv_heads;
            let end = self.tokens.len().min((run + 1) * TOKENS);
            self.attend_tokens(attend, task % attend.kv_heads, run * TOKENS..end, scores);
        }
    }

    /// Puts the queries of `tokens` into tiles, each of one sequence, and attends them.
    fn attend_tokens(
        &self,
        attend: &Attend,
        kv_head: usize,
        tokens: Range<usize>,
        scores: &mut Vec<f32>,
    ) {
        let group = attend.heads / attend.kv_heads;
        let elements = attend.q.width / attend.heads;
        // Fewer queries at a time where rows of scores are long: together they fit a cache.
        let longest = self.tokens[tokens.clone()].iter().map(|token| token.position + 1).max();
        let most = (SCORES / longest.unwrap_or(1)).clamp(TILE, MOST) / TILE * TILE;
        let mut tile = Queries::new();
        for row in tokens.clone() {
            let Token { sequence, position, .. } = self.tokens[row];
            for head in kv_head * group..(kv_head + 1) * group {
                tile.push(Query {
                    q: self.at(attend.q, row).wrapping_add(head * elements),
                    out: self.at(attend.out, row).wrapping_add(head * elements),
                    first: if attend.window == 0 {
                        0
                    } else {
                        (position + 1).saturating_sub(attend.window)
                    },
                    last: position,
                    sink: attend.sinks.as_ref().map_or(f32::NEG_INFINITY, |sinks| sinks[head]),
                });
                if tile.len() == most {
                    self.attend_tile(attend, sequence, kv_head, &mut tile, scores);
                }
            }
            if row + 1 == tokens.end || self.tokens[row + 1].sequence != sequence {
                self.attend_tile(attend, sequence, kv_head, &mut tile, scores);
            }
        }
    }

    /// Attends the queries in `tile` and empties it.
    fn attend_tile(
        &self,
        attend: &Attend,
        sequence: usize,
        kv_head: usize,
        tile: &mut Queries,
        scores: &mut Vec<f32>,
    ) {
        if !tile.is_empty() {
            let head = self.layers[attend.layer].head(sequence, kv_head, attend.scale);
            // SAFETY: the positions are stored: the stage before appended the step's own.
            unsafe { (self.kernels.attend)(tile, head, scores) };
            tile.clear();
        }
    }
}

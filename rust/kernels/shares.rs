//! What a product takes from rows of activations alone: worked out once for all blocks of weights.

use super::isa::Isa;
use super::linear::Product;
use super::output::{Scratch, grow};
use super::span::parts;

/// What depends on a row of activations and the format, but not on the weights: [n][chunks][part].
#[derive(Clone, Copy)]
pub struct Shares {
    /// (center - offset) times the sum of a part's activations: where its dot products begin.
    pub(super) starts: *const i32,
    /// The scale times that sum: what a minimum is multiplied by.
    pub(super) lows: *const f32,
}

/// What a thread's shares are of.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Subject {
    acts: usize,
    chunks: usize,
    offset: i32,
    parts: usize,
    has_min: bool,
}

impl Product<'_> {
    /// The shares of all rows: those in `scratch`, where they are of the same activations and format.
    #[inline(always)]
    pub(super) unsafe fn shares<I: Isa>(&self, scratch: &mut Scratch) -> Shares {
        let (parts, chunks) = (parts(&self.codes), self.n * self.acts.chunks);
        let center = if self.codes.bits == 8 { I::CENTER } else { 0 };
        let offset = center - i32::from(self.codes.offset);
        let has_min = self.codes.has_min;
        let subject = Subject { acts: self.acts.q.addr(), chunks, offset, parts, has_min };
        if scratch.shares_of != Some(subject) {
            scratch.shares_of = Some(subject);
            grow(&mut scratch.starts, parts * chunks);
            grow(&mut scratch.lows, if has_min { parts * chunks } else { 0 });
            // SAFETY: the contract of `linear_int8`; there is room for all parts.
            unsafe { self.fill(parts, offset, &mut scratch.starts, &mut scratch.lows) }
        }
        Shares { starts: scratch.starts.as_ptr(), lows: scratch.lows.as_ptr() }
    }

    unsafe fn fill(&self, parts: usize, offset: i32, starts: &mut [i32], lows: &mut [f32]) {
        for chunk in 0..self.n * self.acts.chunks {
            for part in 0..parts {
                // SAFETY: the rows lie one after the other, and `acts` holds them.
                let (total, d) = unsafe {
                    let halves = self.acts.halves(0).add(2 * chunk);
                    let total =
                        if parts == 2 { *halves.add(part) } else { *halves + *halves.add(1) };
                    (total, *self.acts.scales(0).add(chunk))
                };
                starts[parts * chunk + part] = offset * total;
                if self.codes.has_min {
                    lows[parts * chunk + part] = d * total as f32;
                }
            }
        }
    }
}

//! What a product takes from rows of activations alone: worked out once for all blocks of weights.

use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::scales::SPAN;
use crate::kernels::product::int8::Product;
use crate::kernels::product::output::{Scratch, grow};
use crate::kernels::unpack::span::parts;

/// What depends on rows of activations and the format, but not on the weights: [n / group][chunks x
/// parts][group], so that what a tile takes at a time lies together.
#[derive(Clone, Copy)]
pub struct Shares {
    /// (center - offset) times the sum of a part's activations: where dot products begin. Where scales are
    /// whole, the sums of a chunk's halves, 16 bits each; where codes are merged and have no minima, with
    /// the first chunk of a span what that span's products begin at.
    pub(crate) starts: *const i32,
    /// The scale of the part's chunk.
    pub(crate) scales: *const f32,
    /// The scale times the sum: what a minimum is multiplied by.
    pub(crate) lows: *const f32,
    /// Rows of activations that lie side by side.
    pub(crate) group: usize,
}

/// Where the shares of row `row` begin, where `group` rows lie side by side and each has `parts` parts.
#[inline(always)]
pub(crate) fn place(row: usize, group: usize, parts: usize) -> usize {
    row / group * group * parts + row % group
}

impl Shares {
    /// Those from row `row` on, where a row has `parts` parts.
    #[inline(always)]
    pub(crate) fn of_row(self, row: usize, parts: usize) -> Self {
        self.skip(place(row, self.group, parts))
    }

    /// Those from `parts` parts further on.
    #[inline(always)]
    pub(crate) fn after(self, parts: usize) -> Self {
        self.skip(parts * self.group)
    }

    #[inline(always)]
    fn skip(self, n: usize) -> Self {
        Self {
            starts: self.starts.wrapping_add(n),
            scales: self.scales.wrapping_add(n),
            lows: self.lows.wrapping_add(n),
            group: self.group,
        }
    }
}

/// What a thread's shares are of.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Subject {
    acts: usize,
    rows: usize,
    chunks: usize,
    parts: usize,
    group: usize,
    offset: i32,
    has_min: bool,
    whole: bool,
    merged: bool,
}

impl Product<'_> {
    /// The shares of all rows: those in `scratch`, where they are of the same activations and format.
    #[inline(always)]
    pub(crate) unsafe fn shares<I: Bytes>(&self, group: usize, scratch: &mut Scratch) -> Shares {
        let center = if self.codes.bits == 8 { I::CENTER } else { 0 };
        let subject = Subject {
            acts: self.acts.q.addr(),
            rows: self.n,
            chunks: self.acts.chunks,
            parts: self.parts(),
            group,
            offset: center - i32::from(self.codes.offset),
            has_min: self.codes.has_min && !self.whole,
            whole: self.whole,
            merged: self.merged,
        };
        if scratch.shares_of != Some(subject) {
            scratch.shares_of = Some(subject);
            let room = self.n.next_multiple_of(group) * subject.chunks * subject.parts;
            grow(&mut scratch.starts, room);
            grow(&mut scratch.scales, room);
            grow(&mut scratch.lows, if subject.has_min { room } else { 0 });
            // SAFETY: the contract of `linear_int8`; there is room for all parts.
            unsafe { self.fill(&subject, scratch) }
        }
        let Scratch { starts, scales, lows, .. } = scratch;
        let (starts, scales, lows) = (starts.as_ptr(), scales.as_ptr(), lows.as_ptr());
        Shares { starts, scales, lows, group }
    }

    /// Parts of a chunk that have shares of their own.
    #[inline(always)]
    pub(crate) fn parts(&self) -> usize {
        if self.whole { 1 } else { parts(&self.codes) }
    }

    #[inline(always)]
    unsafe fn fill(&self, of: &Subject, out: &mut Scratch) {
        for row in 0..of.rows {
            let first = place(row, of.group, of.chunks * of.parts);
            for chunk in 0..of.chunks {
                let at = first + chunk * of.parts * of.group;
                // SAFETY: `acts` holds the row and its chunks.
                let (halves, d) = unsafe {
                    let halves = self.acts.halves(row).add(2 * chunk);
                    ([*halves, *halves.add(1)], *self.acts.scales(row).add(chunk))
                };
                let totals = if of.parts == 2 { halves } else { [halves[0] + halves[1], 0] };
                for (part, total) in totals.into_iter().enumerate().take(of.parts) {
                    let at = at + part * of.group;
                    out.starts[at] = of.offset * total;
                    out.scales[at] = d;
                    if of.has_min {
                        out.lows[at] = d * total as f32;
                    }
                }
                if of.whole && (!of.merged || self.codes.has_min) {
                    out.starts[at] = (halves[0] & 0xffff) | halves[1] << 16;
                } else if of.whole && chunk % SPAN > 0 {
                    // The span's products begin with all of it.
                    out.starts[first + chunk / SPAN * SPAN * of.group] += out.starts[at];
                }
            }
        }
    }
}

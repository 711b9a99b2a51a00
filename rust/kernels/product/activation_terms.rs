//! Terms that depend only on the activations, computed once per product for all blocks of weights.

use crate::kernels::data::{ActivationTerms, Product};
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::line::grow;
use crate::kernels::layout::scales::groups_of_chunk;
use crate::kernels::shape::SPAN;

/// The terms that one thread computed last.
#[derive(Default)]
pub struct Memory {
    starts: Vec<i32>,
    scales: Vec<f32>,
    mins: Vec<f32>,
    key: Option<Key>,
}

impl Memory {
    /// Forgets the terms.
    pub fn forget(&mut self) {
        self.key = None;
    }
}

/// What terms depend on: those in memory are used again if their key is the same.
#[derive(Clone, Copy, PartialEq)]
struct Key {
    /// Address of the activations.
    acts: usize,
    rows: usize,
    chunks: usize,
    groups: usize,
    tile: usize,
    offset: i32,
    has_min: bool,
    integer_scales: bool,
    merged: bool,
}

impl Product<'_> {
    /// The terms of all rows of activations, from `memory` if it has them.
    ///
    /// # Safety
    ///
    /// As `linear_int8`.
    #[inline(always)]
    pub(super) unsafe fn terms<I: Bytes>(
        &self,
        tile: usize,
        memory: &mut Memory,
    ) -> ActivationTerms {
        let center = if self.codes.bits == 8 { I::CENTER } else { 0 };
        let key = Key {
            acts: self.acts.q.addr(),
            rows: self.n,
            chunks: self.acts.chunks,
            groups: if self.integer_scales { 1 } else { groups_of_chunk(&self.codes) },
            tile,
            offset: center - i32::from(self.codes.offset),
            has_min: self.codes.has_min && !self.integer_scales,
            integer_scales: self.integer_scales,
            merged: self.merged,
        };
        if memory.key != Some(key) {
            memory.key = Some(key);
            let room = self.n.next_multiple_of(tile) * key.chunks * key.groups;
            grow(&mut memory.starts, room);
            grow(&mut memory.scales, room);
            grow(&mut memory.mins, if key.has_min { room } else { 0 });
            // SAFETY: the caller's promise; there is room for all groups.
            unsafe { self.fill(&key, memory) }
        }
        let Memory { starts, scales, mins, .. } = memory;
        let (starts, scales, mins) = (starts.as_ptr(), scales.as_ptr(), mins.as_ptr());
        ActivationTerms { starts, scales, mins, tile }
    }

    #[inline(always)]
    unsafe fn fill(&self, of: &Key, out: &mut Memory) {
        for row in 0..of.rows {
            let first = ActivationTerms::offset(row, of.tile, of.chunks * of.groups);
            for chunk in 0..of.chunks {
                let at = first + chunk * of.groups * of.tile;
                // SAFETY: `acts` holds the row and its chunks.
                let (halves, d) = unsafe {
                    let halves = self.acts.halves(row).add(2 * chunk);
                    ([*halves, *halves.add(1)], *self.acts.scales(row).add(chunk))
                };
                let totals = if of.groups == 2 { halves } else { [halves[0] + halves[1], 0] };
                for (group, total) in totals.into_iter().enumerate().take(of.groups) {
                    let at = at + group * of.tile;
                    out.starts[at] = of.offset * total;
                    out.scales[at] = d;
                    if of.has_min {
                        out.mins[at] = d * total as f32;
                    }
                }
                if of.integer_scales && (!of.merged || self.codes.has_min) {
                    out.starts[at] = (halves[0] & 0xffff) | halves[1] << 16;
                } else if of.integer_scales && chunk % SPAN > 0 {
                    // The span's first chunk has the start value of the entire span.
                    out.starts[first + chunk / SPAN * SPAN * of.tile] += out.starts[at];
                }
            }
        }
    }
}

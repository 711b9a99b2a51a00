//! Rows of activations as the tiles of a product with floats take them, laid out once for all blocks
//! of weights:
//!
//! ```text
//! [group of ROWS rows][span of COLUMNS columns][tile of rows][run][row of the tile][RUN words]
//! ```
//!
//! A word is a float, or two columns as bfloat16, the first in the higher half. So a tile reads one
//! stream, not one a row, and rows as long as a power of two do not fall on each other in the caches.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::floats::{CHUNK, LANES};
use crate::kernels::layout::scales::SPAN;
use crate::kernels::product::bf16::round_row;
use crate::kernels::product::output::{Scratch, grow};

/// Columns whose weights are widened to f32 at a time: 16 KiB.
pub(crate) const COLUMNS: usize = SPAN * CHUNK;
/// Rows of activations whose span of columns stays in the second cache, whole tiles of any size: 120
/// KiB.
pub(crate) const ROWS: usize = 120;
const _: () = assert!(ROWS.is_multiple_of(8) && ROWS.is_multiple_of(6));
/// Words of a row that lie side by side: half a cache line.
const RUN: usize = 8;

/// What rows of activations become.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Floats as they are.
    Floats,
    /// Floats that are bfloat16.
    Rounded,
    /// Two bfloat16 in a word.
    Pairs,
}

impl Kind {
    /// Columns of a word.
    #[inline(always)]
    pub(crate) fn columns(self) -> usize {
        if self == Self::Pairs { 2 } else { 1 }
    }
}

/// Rows of activations, and what they become.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) x: *const f32,
    pub(crate) n: usize,
    /// Floats of a row at `x`.
    pub(crate) columns: usize,
    pub(crate) kind: Kind,
}

/// What a thread's arranged rows are of.
#[derive(PartialEq)]
pub(crate) struct Subject {
    x: usize,
    n: usize,
    columns: usize,
    kind: Kind,
}

/// Arranged rows.
#[derive(Clone, Copy)]
pub(crate) struct Arranged {
    data: *mut f32,
    n: usize,
    /// Words of a row, and of a span of it.
    words: usize,
    span: usize,
}

impl Arranged {
    /// Where the span that begins with word `start` lies, of the group that begins with row `first`.
    #[inline(always)]
    pub(crate) fn span(&self, first: usize, start: usize) -> *mut f32 {
        let rows = (self.n - first).min(ROWS);
        self.data.wrapping_add(first * self.words.next_multiple_of(RUN) + start * rows)
    }

    /// Puts the words at `x` where row `row` of a tile has its place.
    #[inline(always)]
    unsafe fn place(&self, x: *const f32, tile: Range<usize>, row: usize) {
        let first = tile.start / ROWS * ROWS;
        for start in (0..self.words).step_by(self.span) {
            let end = self.words.min(start + self.span);
            let padded = (end - start).next_multiple_of(RUN);
            let before = (tile.start - first) * padded + (row - tile.start) * RUN;
            let mut to = self.span(first, start).wrapping_add(before);
            for at in (start..end).step_by(RUN) {
                // SAFETY: the caller's row has so many words, and `data` room for all rows.
                unsafe { std::ptr::copy_nonoverlapping(x.add(at), to, RUN.min(end - at)) };
                to = to.wrapping_add(tile.len() * RUN);
            }
        }
    }
}

/// Rows of activations of the next tile, of `rest` that are left.
#[inline(always)]
fn tile<I: Bytes>(rest: usize) -> usize {
    match rest {
        1 => 1,
        2 | 3 => 2,
        _ if rest < I::TILE_F32 => 4,
        _ => I::TILE_F32,
    }
}

/// The rows arranged: those in `scratch`, where they are of the same activations.
///
/// # Safety
///
/// `rows.x` holds the rows.
#[inline(always)]
pub(crate) unsafe fn arranged<I: Bytes>(rows: Rows, scratch: &mut Scratch) -> Arranged {
    let Rows { x, n, columns, kind } = rows;
    let (words, span) = (columns.div_ceil(kind.columns()), COLUMNS / kind.columns());
    grow(&mut scratch.arranged, (n * words.next_multiple_of(RUN)).div_ceil(LANES));
    let all = Arranged { data: scratch.arranged.as_mut_ptr().cast(), n, words, span };
    let subject = Some(Subject { x: x.addr(), n, columns, kind });
    if scratch.arranged_of == subject {
        return all;
    }
    scratch.arranged_of = subject;
    if kind != Kind::Floats {
        // A row at a time.
        scratch.rounded_of = None;
        grow(&mut scratch.rounded, words);
    }
    let mut start = 0;
    while start < n {
        let tile = start..start + tile::<I>(n - start);
        for row in tile.clone() {
            // SAFETY: the caller's promise; there is room for all rows.
            unsafe {
                let mut source = x.add(row * columns);
                if kind != Kind::Floats {
                    let floats = std::slice::from_raw_parts(source, columns);
                    round_row(floats, kind, &mut scratch.rounded[..words]);
                    source = scratch.rounded.as_ptr().cast();
                }
                all.place(source, tile.clone(), row);
            }
        }
        start = tile.end;
    }
    all
}

/// Adds the products of a span of `words` columns (or pairs of them) to the sums of `n` rows: `x` is
/// the span's first tile.
///
/// # Safety
///
/// `weights` holds the columns, `x` and `sums` the rows, and the CPU has the instruction set.
#[inline(always)]
pub(crate) unsafe fn multiply_all<I: Bytes, const PAIRS: bool>(
    weights: *const f32,
    x: *const f32,
    words: usize,
    n: usize,
    sums: *mut f32,
) {
    let padded = words.next_multiple_of(RUN);
    let mut row = 0;
    while row < n {
        let size = tile::<I>(n - row);
        // SAFETY: the caller's promise.
        unsafe {
            let (x, sums) = (x.add(row * padded), sums.add(row * LANES));
            match size {
                8 if I::TILE_F32 == 8 => multiply::<I, 8, PAIRS>(weights, x, words, sums),
                6 if I::TILE_F32 == 6 => multiply::<I, 6, PAIRS>(weights, x, words, sums),
                4 => multiply::<I, 4, PAIRS>(weights, x, words, sums),
                2 => multiply::<I, 2, PAIRS>(weights, x, words, sums),
                _ => multiply::<I, 1, PAIRS>(weights, x, words, sums),
            }
        }
        row += size;
    }
}

/// The same for a tile of T rows.
#[inline(always)]
unsafe fn multiply<I: Bytes, const T: usize, const PAIRS: bool>(
    mut weights: *const f32,
    mut x: *const f32,
    words: usize,
    sums: *mut f32,
) {
    // SAFETY: the contract of `multiply_all`.
    unsafe {
        let mut acc = [I::splat(0.0); T];
        for t in 0..T {
            acc[t] = I::load(sums.add(t * LANES));
        }
        for _ in 0..words / RUN {
            for k in 0..RUN {
                acc = column::<I, T, PAIRS>(weights.add(k * LANES), x.add(k), acc);
            }
            weights = weights.add(RUN * LANES);
            x = x.add(RUN * T);
        }
        for k in 0..words % RUN {
            acc = column::<I, T, PAIRS>(weights.add(k * LANES), x.add(k), acc);
        }
        for t in 0..T {
            I::store(sums.add(t * LANES), acc[t]);
        }
    }
}

/// One column, or a pair.
#[inline(always)]
unsafe fn column<I: Bytes, const T: usize, const PAIRS: bool>(
    weights: *const f32,
    x: *const f32,
    mut acc: [I::F; T],
) -> [I::F; T] {
    // Columns one after the other: a compiler that mixes them runs out of registers.
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the contract of `multiply_all`.
    unsafe {
        let w = I::load(weights);
        for t in 0..T {
            let x = x.add(t * RUN);
            acc[t] =
                if PAIRS { I::add_pairs(acc[t], w, x) } else { I::fma(w, I::splat(*x), acc[t]) };
        }
    }
    acc
}

//! Rows of float activations rearranged into tiles, once per product for all blocks of weights.
//!
//! ```text
//! [ROWS rows][span of 256 columns][tile of rows][run][row of the tile][RUN words]
//! ```
//!
//! A word is an f32, or two columns as bfloat16, the first in the higher half. A tile reads one
//! stream instead of one per row, and rows whose length is a power of two do not compete for the same
//! cache lines.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

use super::bf16_rounding::{Rounding, round_row};
use crate::kernels::isa::floats::Isa;
use crate::kernels::layout::line::{Line, grow};
use crate::kernels::shape::{LANES, SPAN_COLUMNS};

/// Rows of activations whose span of columns stays in the second-level cache (120 KiB): a multiple of
/// every tile size.
pub const ROWS: usize = 120;
const _: () = assert!(ROWS.is_multiple_of(8) && ROWS.is_multiple_of(6));
/// Words of a row that lie side by side: half a cache line.
const RUN: usize = 8;

/// Rows of f32 activations, and how they are rounded.
#[derive(Clone, Copy)]
pub struct Activations {
    pub x: *const f32,
    pub n: usize,
    /// Floats of a row at `x`.
    pub columns: usize,
    pub rounding: Rounding,
}

/// The tiles that one thread laid out last.
#[derive(Default)]
pub struct Memory {
    tiles: Vec<Line>,
    /// Room for one rounded row.
    row: Vec<u32>,
    key: Option<Key>,
}

impl Memory {
    /// Forgets the tiles.
    pub fn forget(&mut self) {
        self.key = None;
    }
}

/// What tiles depend on: those in memory are used again if their key is the same.
#[derive(PartialEq)]
struct Key {
    /// Address of the activations.
    x: usize,
    n: usize,
    columns: usize,
    rounding: Rounding,
}

/// Rows of activations in tiles.
#[derive(Clone, Copy)]
pub struct ActivationTiles {
    data: *mut f32,
    n: usize,
    /// Words of a row, and of a span of it.
    words: usize,
    span: usize,
}

impl ActivationTiles {
    /// The span that begins with word `start`, of the `ROWS` rows that begin with row `first`.
    #[inline(always)]
    pub fn span(&self, first: usize, start: usize) -> *mut f32 {
        let rows = (self.n - first).min(ROWS);
        self.data.wrapping_add(first * self.words.next_multiple_of(RUN) + start * rows)
    }

    /// Copies the words of row `row` of a tile from `x` to their places.
    #[inline(always)]
    unsafe fn place(&self, x: *const f32, tile: Range<usize>, row: usize) {
        let first = tile.start / ROWS * ROWS;
        for start in (0..self.words).step_by(self.span) {
            let end = self.words.min(start + self.span);
            let padded = (end - start).next_multiple_of(RUN);
            let before = (tile.start - first) * padded + (row - tile.start) * RUN;
            let mut to = self.span(first, start).wrapping_add(before);
            for at in (start..end).step_by(RUN) {
                // SAFETY: the caller's row has these words, and `data` has room for all rows.
                unsafe { std::ptr::copy_nonoverlapping(x.add(at), to, RUN.min(end - at)) };
                to = to.wrapping_add(tile.len() * RUN);
            }
        }
    }
}

/// Rows of the next tile if `rest` rows are left.
#[inline(always)]
fn tile_size<I: Isa>(rest: usize) -> usize {
    match rest {
        1 => 1,
        2 | 3 => 2,
        _ if rest < I::TILE_F32 => 4,
        _ => I::TILE_F32,
    }
}

/// Lays out rows of activations in tiles, or returns those in `memory` if they are of the same rows.
///
/// # Safety
///
/// `rows.x` holds the rows.
#[inline(always)]
pub unsafe fn lay_out<I: Isa>(rows: Activations, memory: &mut Memory) -> ActivationTiles {
    let Activations { x, n, columns, rounding } = rows;
    let (words, span) = (columns.div_ceil(rounding.columns()), SPAN_COLUMNS / rounding.columns());
    grow(&mut memory.tiles, (n * words.next_multiple_of(RUN)).div_ceil(LANES));
    let all = ActivationTiles { data: memory.tiles.as_mut_ptr().cast(), n, words, span };
    let key = Some(Key { x: x.addr(), n, columns, rounding });
    if memory.key == key {
        return all;
    }
    memory.key = key;
    if rounding != Rounding::None {
        grow(&mut memory.row, words);
    }
    let mut start = 0;
    while start < n {
        let tile = start..start + tile_size::<I>(n - start);
        for row in tile.clone() {
            // SAFETY: the caller's promise; there is room for all rows.
            unsafe {
                let mut source = x.add(row * columns);
                if rounding != Rounding::None {
                    let floats = std::slice::from_raw_parts(source, columns);
                    round_row(floats, rounding, &mut memory.row[..words]);
                    source = memory.row.as_ptr().cast();
                }
                all.place(source, tile.clone(), row);
            }
        }
        start = tile.end;
    }
    all
}

/// Adds the products of a span of `words` columns (or pairs of columns) to the sums of `n` rows; `x` is
/// the span's first tile.
///
/// # Safety
///
/// `weights` holds the columns, `x` and `sums` the rows, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn multiply_all<I: Isa, const PAIRS: bool>(
    weights: *const f32,
    x: *const f32,
    words: usize,
    n: usize,
    sums: *mut f32,
) {
    let padded = words.next_multiple_of(RUN);
    let mut row = 0;
    while row < n {
        let size = tile_size::<I>(n - row);
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

/// `multiply_all` for one tile of T rows.
#[inline(always)]
unsafe fn multiply<I: Isa, const T: usize, const PAIRS: bool>(
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

/// Adds the products of one column, or of a pair of columns.
#[inline(always)]
unsafe fn column<I: Isa, const T: usize, const PAIRS: bool>(
    weights: *const f32,
    x: *const f32,
    mut acc: [I::F; T],
) -> [I::F; T] {
    // Keeps columns one after the other: a compiler that interleaves them runs out of registers.
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

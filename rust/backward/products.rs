//! Matrix products of f32 by the kernels of the executor, divided over the threads of a pool.
//!
//! Each element of a result is one sum in order, made by one thread, so that its bits depend
//! neither on the number of threads nor on the other rows of a product.

use rayon::prelude::*;

use crate::kernels::Kernels;
use crate::kernels::data::Output;
use crate::kernels::layout::packed::Packed;
use crate::kernels::product::scratch::Scratch;
use crate::kernels::shape::LANES;

/// Most rows of activations that a thread multiplies at a time.
const ROWS: usize = 120;
/// Blocks of 16 rows of weights that it multiplies them with at a time: their sums fit a cache.
const BLOCKS: usize = 8;

/// x w^T: `x` holds rows of `w.columns` floats, the result rows of `w.rows` floats.
pub fn multiply(kernels: &Kernels, w: &Packed, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let n = x.len() / w.columns;
    let (mut out, size) = (vec![0.0; n * w.rows], claim(n));
    let rows = x.par_chunks(size * w.columns).zip(out.par_chunks_mut(size * w.rows));
    rows.for_each_init(Scratch::default, |scratch, (x, out)| {
        multiply_rows(kernels, w, x, bias, (out, w.blocks()), scratch);
    });
    out
}

/// Rows of `n` that a thread takes at a time: all threads get as many.
fn claim(n: usize) -> usize {
    let claims = n.div_ceil(ROWS).next_multiple_of(rayon::current_num_threads());
    n.div_ceil(claims).next_multiple_of(8)
}

/// The products of the columns of `x` with each other, x^T x, from rows of `width` floats: those
/// at and below the diagonal; others may be missing.
pub fn square(kernels: &Kernels, x: &[f32], width: usize) -> Vec<f32> {
    let (w, turned) = (Packed::of_columns(x, width), transpose(x, width));
    let (mut out, size) = (vec![0.0; width * width], claim(width));
    let rows = turned.par_chunks(size * w.columns).zip(out.par_chunks_mut(size * width));
    rows.enumerate().for_each_init(Scratch::default, |scratch, (index, (x, out))| {
        let last = (index * size + out.len() / width).div_ceil(LANES);
        multiply_rows(kernels, &w, x, None, (out, last), scratch);
    });
    out
}

/// On this thread, x w^T for the first `blocks` blocks of 16 rows of `w`; rows of the result have
/// `w.rows` floats.
pub fn multiply_rows(
    kernels: &Kernels,
    w: &Packed,
    x: &[f32],
    bias: Option<&[f32]>,
    (out, blocks): (&mut [f32], usize),
    scratch: &mut Scratch,
) {
    let n = x.len() / w.columns;
    assert!(out.len() == n * w.rows && bias.is_none_or(|bias| bias.len() == w.rows));
    let bias = bias.map(<[f32]>::as_ptr);
    let out = Output { data: out.as_mut_ptr(), stride: w.rows, bias };
    scratch.forget();
    for start in (0..blocks.min(w.blocks())).step_by(BLOCKS) {
        let range = start..blocks.min(w.blocks()).min(start + BLOCKS);
        // SAFETY: `x`, `out` and the bias hold the rows and columns, as was asserted.
        unsafe { (kernels.linear_f32)(w, range, x.as_ptr(), n, out, scratch) };
    }
}

/// The columns of `x` as rows; `x` holds rows of `width` floats.
pub fn transpose(x: &[f32], width: usize) -> Vec<f32> {
    const TILE: usize = 16;
    let rows = x.len() / width;
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(rows * TILE).enumerate().for_each(|(tile, out)| {
        for first in (0..rows).step_by(TILE) {
            for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                for row in first..rows.min(first + TILE) {
                    out[row] = x[row * width + tile * TILE + column];
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::chosen;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect()
    }

    #[test]
    fn products_are_sums_of_products() {
        let (n, rows, columns) = (ROWS + 9, 9 * LANES + 3, 70);
        let (x, w) = (numbers(n * columns), numbers(rows * columns));
        let bias = numbers(rows);
        let found = multiply(chosen().unwrap(), &Packed::of_rows(&w, columns), &x, Some(&bias));
        for (x, out) in x.chunks_exact(columns).zip(found.chunks_exact(rows)) {
            for ((w, bias), out) in w.chunks_exact(columns).zip(&bias).zip(out) {
                let sum = x.iter().zip(w).fold(0f32, |sum, (x, w)| w.mul_add(*x, sum));
                assert_eq!((sum + bias).to_bits(), out.to_bits());
            }
        }
    }

    #[test]
    fn squares_are_symmetric_products() {
        let (n, width) = (40, 2 * ROWS + 11);
        let x = numbers(n * width);
        let found = square(chosen().unwrap(), &x, width);
        for i in 0..width {
            for j in 0..=i {
                let pairs = x.chunks_exact(width).map(|row| (row[i], row[j]));
                let sum = pairs.fold(0f32, |sum, (a, b)| b.mul_add(a, sum));
                assert_eq!(sum.to_bits(), found[i * width + j].to_bits(), "{i}, {j}");
            }
        }
    }
}

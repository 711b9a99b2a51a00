//! Products and factors of f64 matrices: row-major, each sum in one order whatever the CPU and the
//! number of threads, as no multiply-add is fused.

#![allow(clippy::needless_range_loop)] // i, j and k count across several arrays

use rayon::prelude::*;

/// Rows and columns of a tile of sums that stays in registers.
const TALL: usize = 6;
const WIDE: usize = 8;
/// Columns of a Cholesky panel.
const PANEL: usize = 96;

/// Compiles `$generic` for the CPU's instruction sets and calls the best one.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $generic:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $type),*) {
                    $generic($($arg),*);
                }
                #[target_feature(enable = "avx2,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $type),*) {
                    $generic($($arg),*);
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
                    if is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vl")
                    {
                        // SAFETY: the CPU has the features.
                        return unsafe { avx512($($arg),*) };
                    }
                    // SAFETY: the CPU has the features.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $generic($($arg),*);
        }
    };
}
pub(super) use multiversion;

/// A matrix in a larger one: its first element, and the distance of rows.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub data: &'a [f64],
    pub stride: usize,
}

/// As `View`, to be changed.
pub struct ViewMut<'a> {
    pub data: &'a mut [f64],
    pub stride: usize,
}

/// out += sign * a b, `out` of [rows, columns], a of [rows, depth]; each sum runs over `depth` in
/// order before it is added.
#[inline(always)]
pub fn add_product(
    out: &mut ViewMut,
    a: View,
    b: View,
    [rows, depth, columns]: [usize; 3],
    sign: f64,
) {
    for c in (0..columns).step_by(WIDE) {
        let width = WIDE.min(columns - c);
        let mut r = 0;
        while r < rows {
            let offset = [r, c, width];
            if rows - r >= TALL && width == WIDE {
                tile::<TALL>(out, a, b, depth, offset, sign);
                r += TALL;
            } else {
                row(out, a, b, depth, offset, sign);
                r += 1;
            }
        }
    }
}

/// `R` rows and `WIDE` columns of a product.
#[inline(always)]
fn tile<const R: usize>(
    out: &mut ViewMut,
    a: View,
    b: View,
    depth: usize,
    [r, c, _]: [usize; 3],
    sign: f64,
) {
    let mut sums = [[0f64; WIDE]; R];
    let rows: [&[f64]; R] = std::array::from_fn(|i| &a.data[(r + i) * a.stride..][..depth]);
    for k in 0..depth {
        let b: &[f64; WIDE] = b.data[k * b.stride + c..].first_chunk().expect("a full tile");
        for i in 0..R {
            let x = rows[i][k];
            for j in 0..WIDE {
                sums[i][j] += x * b[j];
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let out = &mut out.data[(r + i) * out.stride + c..][..WIDE];
        for j in 0..WIDE {
            out[j] += sign * sums[j];
        }
    }
}

/// One row and up to `WIDE` columns of a product.
#[inline(always)]
fn row(out: &mut ViewMut, a: View, b: View, depth: usize, [r, c, width]: [usize; 3], sign: f64) {
    let mut sums = [0f64; WIDE];
    let row = &a.data[r * a.stride..][..depth];
    for (k, x) in row.iter().enumerate() {
        let b = &b.data[k * b.stride + c..][..width];
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum += x * b;
        }
    }
    let out = &mut out.data[r * out.stride + c..][..width];
    for (out, sum) in out.iter_mut().zip(sums) {
        *out += sign * sum;
    }
}

multiversion! {
    /// `add_product` with the best instruction set.
    pub fn product(out: &mut ViewMut, a: View, b: View, sizes: [usize; 3], sign: f64) = add_product
}

/// A symmetric matrix as L D L^T, L unit lower triangular, row-major [size, size].
pub struct Factor {
    pub lower: Vec<f64>,
    /// D, the pivots.
    pub pivots: Vec<f64>,
}

/// Factors the symmetric `matrix` of [size, size]; None where a pivot is not above 0.
///
/// Right-looking by panels, rows in parallel: the order of every sum is fixed.
pub fn factor(mut matrix: Vec<f64>, size: usize) -> Option<Factor> {
    let mut pivots = vec![0.0; size];
    let mut panel = vec![0.0; PANEL * size];
    for start in (0..size).step_by(PANEL) {
        let width = PANEL.min(size - start);
        let (head, rest) = matrix.split_at_mut((start + width) * size);
        let diagonal = &mut head[start * size..];
        if !factor_diagonal(diagonal, size, start, width, &mut pivots) {
            return None;
        }
        solve_rows(rest, diagonal, size, start, width, &pivots);
        // The rows below, times D, transposed: what the trailing matrix loses is L times these.
        for (i, row) in rest.chunks_exact(size).enumerate() {
            for k in 0..width {
                panel[k * size + i] = row[start + k] * pivots[start + k];
            }
        }
        update_rest(rest, &panel, size, start, width);
    }
    clear_above(&mut matrix, size);
    Some(Factor { lower: matrix, pivots })
}

/// Factors the block on the diagonal: `rows` are its rows.
fn factor_diagonal(
    rows: &mut [f64],
    size: usize,
    start: usize,
    width: usize,
    pivots: &mut [f64],
) -> bool {
    for j in 0..width {
        let mut column = [0.0; PANEL];
        for k in 0..j {
            column[k] = rows[j * size + start + k] * pivots[start + k];
        }
        for i in j..width {
            let row = &mut rows[i * size + start..][..width];
            let mut sum = 0.0;
            for k in 0..j {
                sum += row[k] * column[k];
            }
            row[j] -= sum;
        }
        let pivot = rows[j * size + start + j];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        pivots[start + j] = pivot;
        for i in j + 1..width {
            rows[i * size + start + j] /= pivot;
        }
        rows[j * size + start + j] = 1.0;
    }
    true
}

/// L of the rows below a diagonal block.
fn solve_rows(
    rest: &mut [f64],
    diagonal: &[f64],
    size: usize,
    start: usize,
    width: usize,
    pivots: &[f64],
) {
    let mut upper = vec![0.0; width * width];
    for j in 0..width {
        for i in 0..width {
            upper[j * width + i] = diagonal[i * size + start + j];
        }
    }
    let pivots = &pivots[start..start + width];
    rest.par_chunks_exact_mut(size)
        .with_min_len(16)
        .for_each(|row| substitute(&mut row[start..start + width], &upper, pivots));
}

multiversion! {
    /// Solves x D U = row for x; `upper` holds U, unit upper triangular.
    fn substitute(row: &mut [f64], upper: &[f64], pivots: &[f64]) = substitute_anywhere
}

#[inline(always)]
fn substitute_anywhere(row: &mut [f64], upper: &[f64], pivots: &[f64]) {
    for (j, upper) in upper.chunks_exact(row.len()).enumerate() {
        // row[j] is final but for D; those behind it lose its product, in the order of j.
        let product = row[j];
        row[j] = product / pivots[j];
        for (x, u) in row[j + 1..].iter_mut().zip(&upper[j + 1..]) {
            *x -= product * u;
        }
    }
}

/// Takes a panel's product from the lower triangle of the rows below it.
fn update_rest(rest: &mut [f64], panel: &[f64], size: usize, start: usize, width: usize) {
    let below = size - start - width;
    let tall = 4 * TALL;
    rest.par_chunks_mut(size * tall).enumerate().for_each(|(index, rows)| {
        let count = rows.len() / size;
        let columns = below.min((index + 1) * tall);
        let mut left = vec![0.0; count * width];
        for (left, row) in left.chunks_exact_mut(width).zip(rows.chunks_exact(size)) {
            left.copy_from_slice(&row[start..start + width]);
        }
        let a = View { data: &left, stride: width };
        let b = View { data: panel, stride: size };
        let mut out = ViewMut { data: &mut rows[start + width..], stride: size };
        product(&mut out, a, b, [count, width, columns], -1.0);
    });
}

/// Zeros above the diagonal.
fn clear_above(matrix: &mut [f64], size: usize) {
    for (i, row) in matrix.chunks_exact_mut(size.max(1)).enumerate() {
        row[i + 1..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A positive definite matrix of a few outer products.
    pub fn positive(size: usize) -> Vec<f64> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
        };
        let factors: Vec<f64> = (0..size * (size + 3)).map(|_| next()).collect();
        let row = |i: usize| &factors[i * (size + 3)..][..size + 3];
        let mut out = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..=i {
                let sum = row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f64>();
                (out[i * size + j], out[j * size + i]) = (sum, sum);
            }
        }
        out
    }

    #[test]
    fn the_factor_multiplies_out_to_the_matrix() {
        for size in [1, 2, 5, 95, 96, 97, 200, 311] {
            let matrix = positive(size);
            let found = factor(matrix.clone(), size).unwrap();
            for i in 0..size {
                for j in 0..=i {
                    let (a, b) = (&found.lower[i * size..], &found.lower[j * size..]);
                    let sum: f64 = (0..=j).map(|k| a[k] * found.pivots[k] * b[k]).sum();
                    let scale = matrix[i * size + i].max(matrix[j * size + j]);
                    let off = (sum - matrix[i * size + j]).abs();
                    assert!(off < 1e-12 * scale * size as f64, "{size}: {i} {j} {off}");
                }
                assert_eq!(found.lower[i * size + i], 1.0);
                assert!(found.lower[i * size + i + 1..(i + 1) * size].iter().all(|x| *x == 0.0));
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_has_no_factor() {
        assert!(factor(vec![1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(factor(vec![0.0], 1).is_none());
        assert!(factor(vec![f64::NAN], 1).is_none());
    }

    #[test]
    fn the_factor_is_the_same_for_any_number_of_threads() {
        let matrix = positive(250);
        let with = |threads| {
            crate::threads::in_pool(threads, || factor(matrix.clone(), 250).unwrap().lower).unwrap()
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn products_are_those_of_plain_sums() {
        let (rows, depth, columns) = (13, 9, 21);
        let a: Vec<f64> = (0..rows * depth).map(|i| (i % 17) as f64 - 8.0).collect();
        let b: Vec<f64> = (0..depth * columns).map(|i| (i % 11) as f64 - 5.0).collect();
        let mut out = vec![1.0; rows * columns];
        let views = (View { data: &a, stride: depth }, View { data: &b, stride: columns });
        let mut view = ViewMut { data: &mut out, stride: columns };
        product(&mut view, views.0, views.1, [rows, depth, columns], -1.0);
        for r in 0..rows {
            for c in 0..columns {
                let sum: f64 = (0..depth).map(|k| a[r * depth + k] * b[k * columns + c]).sum();
                assert_eq!(out[r * columns + c], 1.0 - sum);
            }
        }
    }
}

//! Products of columns, summed over rows: the covariance of a matrix product's input.

use crate::kernels::isa::floats::Isa;
use crate::kernels::shape::LANES;

/// Columns of a tile of the covariance.
pub const TILE: usize = 64;
/// Rows whose products are summed in f32 before their sum is added in f64.
pub const RUN: usize = 32;
/// Columns of `x` whose sums are in registers at a time.
const HEIGHT: usize = 4;

/// sums[a][b] += the sum over rows of x[a] y[b], for the `TILE` columns of each.
///
/// The products of `RUN` rows are summed in f32 by fused multiply-adds in order, and these sums are added in
/// order in f64. `x` and `y` have `rows` rows of `TILE` floats, `sums` is [TILE, TILE].
///
/// # Safety
///
/// The pointers hold these numbers and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn gram<I: Isa>(x: *const f32, y: *const f32, rows: usize, sums: *mut f64) {
    for start in (0..rows).step_by(RUN) {
        let count = RUN.min(rows - start);
        for a in (0..TILE).step_by(HEIGHT) {
            for b in (0..TILE).step_by(LANES) {
                // SAFETY: the caller's promise; the columns are within a tile.
                unsafe {
                    let (x, y) = (x.add(start * TILE + a), y.add(start * TILE + b));
                    add_run::<I>(x, y, count, sums.add(a * TILE + b));
                }
            }
        }
    }
}

/// Adds the products of `HEIGHT` columns of `x` and 16 of `y`, of `count` rows.
///
/// # Safety
///
/// As `gram`.
#[inline(always)]
unsafe fn add_run<I: Isa>(x: *const f32, y: *const f32, count: usize, sums: *mut f64) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut run = [I::splat(0.0); HEIGHT];
        for row in 0..count {
            let y = I::load(y.add(row * TILE));
            for (a, run) in run.iter_mut().enumerate() {
                *run = I::fma(I::splat(*x.add(row * TILE + a)), y, *run);
            }
        }
        for (a, run) in run.into_iter().enumerate() {
            let mut lanes = [0f32; LANES];
            I::store(lanes.as_mut_ptr(), run);
            for (b, lane) in lanes.into_iter().enumerate() {
                *sums.add(a * TILE + b) += f64::from(lane);
            }
        }
    }
}

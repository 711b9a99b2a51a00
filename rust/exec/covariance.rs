//! Sums of the products of each two columns of a product's input, in tiles of 64 by 64 columns.
//!
//! Only tiles on and above the diagonal are held. Each tile is added by one thread, the rows of a
//! step in order, so the number of threads changes no bit.

use std::sync::Mutex;

use crate::kernels::Kernels;
use crate::kernels::ops::gram::TILE;

/// The sums of one stage's input.
pub struct Products {
    columns: usize,
    matrices: usize,
    /// [pair of tiles][matrices, TILE, TILE]; pair (i, j) with i <= j, row by row.
    tiles: Vec<Mutex<Vec<f64>>>,
}

impl Products {
    /// Zero sums for the inputs of `matrices` matrices.
    pub fn new(matrices: usize, columns: usize) -> Self {
        let side = columns.div_ceil(TILE);
        let tile = || Mutex::new(vec![0.0; matrices * TILE * TILE]);
        Self { columns, matrices, tiles: (0..side * (side + 1) / 2).map(|_| tile()).collect() }
    }

    /// Bytes of the sums.
    pub fn bytes(matrices: usize, columns: usize) -> Option<usize> {
        let side = columns.div_ceil(TILE);
        (side.checked_mul(side + 1)? / 2).checked_mul(TILE * TILE * 8)?.checked_mul(matrices)
    }

    /// Adds rows that matrix `matrix` multiplies. Each of `workers` threads calls it with the same
    /// rows and adds some of the tiles.
    ///
    /// # Safety
    ///
    /// Each row has `columns` floats, which nobody changes meanwhile.
    pub unsafe fn add(
        &self,
        kernels: &Kernels,
        matrix: usize,
        rows: impl Iterator<Item = *const f32> + Clone,
        worker: usize,
        workers: usize,
    ) {
        let side = self.columns.div_ceil(TILE);
        let pairs = (0..side).flat_map(|i| (i..side).map(move |j| (i, j)));
        let mut panels = [(usize::MAX, Vec::new()), (usize::MAX, Vec::new())];
        for ((i, j), tile) in pairs.zip(&self.tiles).skip(worker).step_by(workers) {
            for (panel, at) in panels.iter_mut().zip([i, j]) {
                if panel.0 != at {
                    // SAFETY: the caller's promise.
                    unsafe { self.gather(&mut panel.1, rows.clone(), at * TILE) };
                    panel.0 = at;
                }
            }
            let mut sums = tile.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let sums = sums[matrix * TILE * TILE..][..TILE * TILE].as_mut_ptr();
            let count = panels[0].1.len() / TILE;
            // SAFETY: both panels hold `count` rows of TILE floats, the tile TILE squared sums.
            unsafe { (kernels.gram)(panels[0].1.as_ptr(), panels[1].1.as_ptr(), count, sums) };
        }
    }

    /// Copies the columns of a tile from all rows, [rows, TILE]; columns past the last are 0.
    ///
    /// # Safety
    ///
    /// As `add`.
    unsafe fn gather(
        &self,
        panel: &mut Vec<f32>,
        rows: impl Iterator<Item = *const f32>,
        first: usize,
    ) {
        let width = TILE.min(self.columns - first);
        panel.clear();
        for row in rows {
            // SAFETY: the caller's promise; these columns are within the row.
            panel.extend_from_slice(unsafe { std::slice::from_raw_parts(row.add(first), width) });
            panel.extend(std::iter::repeat_n(0.0, TILE - width));
        }
    }

    /// The sums of matrix `matrix`, [columns, columns].
    pub fn of(&self, matrix: usize) -> Vec<f64> {
        let n = self.columns;
        let side = n.div_ceil(TILE);
        let mut out = vec![0.0; n * n];
        let pairs = (0..side).flat_map(|i| (i..side).map(move |j| (i, j)));
        for ((i, j), tile) in pairs.zip(&self.tiles) {
            let sums = tile.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let sums = &sums[matrix * TILE * TILE..][..TILE * TILE];
            for a in 0..TILE.min(n - i * TILE) {
                for b in 0..TILE.min(n - j * TILE) {
                    let (row, column) = (i * TILE + a, j * TILE + b);
                    out[row * n + column] = sums[a * TILE + b];
                    out[column * n + row] = sums[a * TILE + b];
                }
            }
        }
        out
    }

    /// The sums of squares of each column, [matrices, columns].
    pub fn squares(&self) -> Vec<f64> {
        let n = self.columns;
        let side = n.div_ceil(TILE);
        let mut out = vec![0.0; self.matrices * n];
        let mut diagonal = 0;
        for i in 0..side {
            let sums = self.tiles[diagonal].lock().unwrap_or_else(|p| p.into_inner());
            for (matrix, sums) in sums.chunks_exact(TILE * TILE).enumerate() {
                for a in 0..TILE.min(n - i * TILE) {
                    out[matrix * n + i * TILE + a] = sums[a * TILE + a];
                }
            }
            diagonal += side - i;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::available;

    #[test]
    fn products_are_summed_whoever_adds_them() {
        const WIDTH: usize = 2 * TILE + 5;
        let rows: Vec<Vec<f32>> = (0..70)
            .map(|t| (0..WIDTH).map(|i| ((t * 31 + i * 17) % 23) as f32 - 11.0).collect())
            .collect();
        for kernels in available() {
            for workers in 1..4 {
                let sums = Products::new(2, WIDTH);
                for worker in 0..workers {
                    let each = rows.iter().map(|row| row.as_ptr());
                    // SAFETY: the rows have WIDTH floats, and nobody writes them.
                    unsafe { sums.add(kernels, 1, each, worker, workers) };
                }
                let found = sums.of(1);
                for a in 0..WIDTH {
                    for b in 0..WIDTH {
                        let want: f32 = rows.iter().map(|row| row[a] * row[b]).sum();
                        assert_eq!(found[a * WIDTH + b], f64::from(want), "{a} {b}");
                    }
                    assert_eq!(sums.squares()[WIDTH + a], found[a * WIDTH + a]);
                }
                assert!(sums.of(0).iter().all(|&sum| sum == 0.0));
            }
        }
    }
}

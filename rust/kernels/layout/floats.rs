//! Matrices of f32 in the run-time layout, made from rows in memory instead of a file's bytes.

use rayon::prelude::*;

use super::memory::Aligned;
use super::packed::{Packed, Storage};
use crate::formats::Format;
use crate::kernels::shape::LANES;

impl Packed {
    /// The matrix with the rows of `values`, which holds rows of `columns` floats.
    ///
    /// # Panics
    ///
    /// Panics if `values` is empty or its length is no multiple of `columns`.
    pub fn of_rows(values: &[f32], columns: usize) -> Self {
        let rows = count(values, columns);
        let mut packed = Self::floats(rows, columns);
        packed.fill(|lanes, block| {
            for (row, values) in values.chunks_exact(columns).skip(block * LANES).enumerate() {
                if row == LANES {
                    break;
                }
                for (out, value) in lanes.chunks_exact_mut(LANES).zip(values) {
                    out[row] = *value;
                }
            }
        });
        packed
    }

    /// The matrix with the columns of `values` as its rows: `values` holds rows of `width` floats.
    ///
    /// # Panics
    ///
    /// As `of_rows`.
    pub fn of_columns(values: &[f32], width: usize) -> Self {
        let columns = count(values, width);
        let mut packed = Self::floats(width, columns);
        packed.fill(|lanes, block| {
            let size = LANES.min(width - block * LANES);
            for (out, row) in lanes.chunks_exact_mut(LANES).zip(values.chunks_exact(width)) {
                out[..size].copy_from_slice(&row[block * LANES..][..size]);
            }
        });
        packed
    }

    fn floats(rows: usize, columns: usize) -> Self {
        let mut packed = Self::empty(Storage::Floats(Format::F32), rows, columns);
        packed.block_bytes = LANES * columns * size_of::<f32>();
        packed.data = Aligned::zeroed(packed.blocks() * packed.block_bytes);
        packed
    }

    /// Calls `write` with the floats of each block of 16 rows, [columns][16], and its index.
    fn fill(&mut self, write: impl Fn(&mut [f32], usize) + Sync) {
        let size = self.block_bytes;
        let blocks = self.data.as_mut_slice().par_chunks_exact_mut(size).enumerate();
        blocks.with_min_len(4).for_each(|(block, bytes)| {
            // SAFETY: the memory is aligned to cache lines, and every pattern of bits is an f32.
            let (before, lanes, after) = unsafe { bytes.align_to_mut::<f32>() };
            debug_assert!(before.is_empty() && after.is_empty());
            write(lanes, block);
        });
    }
}

fn count(values: &[f32], width: usize) -> usize {
    assert!(width > 0 && !values.is_empty() && values.len().is_multiple_of(width));
    values.len() / width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_those_of_the_values() {
        const COLUMNS: usize = 21;
        let values: Vec<f32> = (0..35 * COLUMNS).map(|i| i as f32 * 0.5 - 3.0).collect();
        let (rows, turned) =
            (Packed::of_rows(&values, COLUMNS), Packed::of_columns(&values, COLUMNS));
        assert_eq!(
            (rows.rows, rows.columns, turned.rows, turned.columns),
            (35, COLUMNS, COLUMNS, 35)
        );
        let mut row = [0.0; COLUMNS];
        for (index, expected) in values.chunks_exact(COLUMNS).enumerate() {
            rows.row(index, &mut row);
            assert_eq!(row, expected);
        }
        let mut column = [0.0; 35];
        for index in 0..COLUMNS {
            turned.row(index, &mut column);
            assert!(
                column.iter().zip(values.iter().skip(index).step_by(COLUMNS)).all(|(a, b)| a == b)
            );
        }
    }
}

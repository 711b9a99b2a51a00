//! Matrices of f32 in the run-time layout, made from rows in memory instead of a file's bytes.

use rayon::prelude::*;

use super::memory::Aligned;
use super::packed::{Packed, Storage};
use crate::floats::{from_bf16, from_f16};
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

    /// The transposed matrix, as f32.
    pub fn transposed(&self) -> Self {
        match self.storage {
            Storage::Floats(Format::BF16) => self.turned::<2>(|b| from_bf16(u16::from_le_bytes(b))),
            Storage::Floats(Format::F16) => self.turned::<2>(|b| from_f16(u16::from_le_bytes(b))),
            Storage::Floats(_) => self.turned::<4>(f32::from_le_bytes),
            _ => {
                let mut values = vec![0.0; self.rows * self.columns];
                let rows = values.par_chunks_exact_mut(self.columns).enumerate();
                rows.for_each(|(row, out)| self.row(row, out));
                Self::of_columns(&values, self.columns)
            }
        }
    }

    /// `transposed` of elements of `N` bytes, 16 rows and 16 columns at a time.
    fn turned<const N: usize>(&self, read: impl Fn([u8; N]) -> f32 + Sync) -> Self {
        let mut packed = Self::floats(self.columns, self.rows);
        packed.fill(|lanes, block| {
            let columns = block * LANES..self.columns.min((block + 1) * LANES);
            let blocks = self.data.as_slice().chunks_exact(self.block_bytes);
            for (out, rows) in lanes.chunks_mut(LANES * LANES).zip(blocks) {
                let (rows, _) = rows.as_chunks::<N>();
                for (lane, column) in columns.clone().enumerate() {
                    let elements = &rows[column * LANES..][..LANES];
                    for (out, element) in out.chunks_exact_mut(LANES).zip(elements) {
                        out[lane] = read(*element);
                    }
                }
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
    fn transposed_matrices_have_the_elements_of_rows() {
        const ROWS: usize = 35;
        for (name, columns) in [("F32", 21), ("BF16", 21), ("F16", 18), ("Q8_0", 64)] {
            let values: Vec<f32> = (0..ROWS * columns).map(|i| i as f32 * 0.37 - 5.0).collect();
            let format = Format::parse(name).unwrap();
            let size = format.row_bytes(columns).unwrap();
            let mut data = vec![0; ROWS * size];
            for (x, out) in values.chunks_exact(columns).zip(data.chunks_exact_mut(size)) {
                format.encode_row(x, None, out);
            }
            let packed = Packed::new(&data, format, ROWS, columns, false).unwrap();
            let turned = packed.transposed();
            assert_eq!((turned.rows, turned.columns), (columns, ROWS));
            let (mut row, mut column) = (vec![0.0; columns], vec![0.0; ROWS]);
            for i in 0..ROWS {
                packed.row(i, &mut row);
                for (j, expected) in row.iter().enumerate() {
                    turned.row(j, &mut column);
                    assert_eq!(column[i].to_bits(), expected.to_bits(), "{name} {i} {j}");
                }
            }
        }
    }

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

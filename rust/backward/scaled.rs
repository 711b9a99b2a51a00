//! Quantized tensors whose super-block scales are parameters: fixed codes, scales in f32.
//!
//! A value of a block is linear in the block's two floats, V = d A + m B: A is what the block
//! decodes to with d = 1 and m = 0, B with d = 0 and m = 1. Here m is `dmin` of a K format or the
//! minimum of Q4_1 and Q5_1; other formats have none.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::floats::{read_f16, write_f16};
use crate::formats::Format;

/// Where the floats of a block lie, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    pub d: usize,
    pub m: Option<usize>,
}

/// Rows of a quantized tensor with the scales of its blocks as f32.
#[derive(Clone)]
pub struct Scaled {
    pub format: Format,
    pub rows: usize,
    pub columns: usize,
    /// The file's bytes; their own scales do not count.
    data: Arc<Vec<u8>>,
    places: Places,
    /// [rows][blocks]; `m` is empty for formats without it.
    pub d: Vec<f32>,
    pub m: Vec<f32>,
}

impl Scaled {
    /// The tensor that `data` holds, with the scales that it has.
    ///
    /// # Errors
    ///
    /// `Shape` if the length of `data` does not fit, `Input` if a place is outside a block.
    pub fn new(
        data: Vec<u8>,
        format: Format,
        [rows, columns]: [usize; 2],
        places: Places,
    ) -> Result<Self> {
        let row_bytes = format.row_bytes(columns)?;
        if Some(data.len()) != rows.checked_mul(row_bytes) || rows == 0 || columns == 0 {
            return Err(Error::shape(format!(
                "{rows} rows of {columns} elements as {} take {rows} x {row_bytes} bytes, found {}",
                format.name(),
                data.len()
            )));
        }
        let outside = |at: usize| at + 2 > format.block_bytes();
        if outside(places.d) || places.m.is_some_and(outside) {
            let (name, size) = (format.name(), format.block_bytes());
            return Err(Error::input(format!(
                "a block of {name} has {size} bytes, the scales lie at {places:?}"
            )));
        }
        let floats =
            |at: usize| data.chunks_exact(format.block_bytes()).map(move |b| read_f16(&b[at..]));
        let d = floats(places.d).collect();
        let m = places.m.map_or_else(Vec::new, |at| floats(at).collect());
        Ok(Self { format, rows, columns, data: Arc::new(data), places, d, m })
    }

    /// The same codes with other scales.
    ///
    /// # Errors
    ///
    /// `Shape` if there are not as many.
    pub fn with_scales(&self, d: Vec<f32>, m: Vec<f32>) -> Result<Self> {
        if d.len() != self.d.len() || m.len() != self.m.len() {
            return Err(Error::shape(format!(
                "expected {} scales and {} minima, found {} and {}",
                self.d.len(),
                self.m.len(),
                d.len(),
                m.len()
            )));
        }
        let mut other = self.clone();
        (other.d, other.m) = (d, m);
        Ok(other)
    }

    /// Blocks in a row.
    pub fn blocks(&self) -> usize {
        self.columns / self.format.block()
    }

    /// The file's bytes with the scales rounded to f16.
    pub fn bytes(&self) -> Vec<u8> {
        let mut data = self.data.as_ref().clone();
        for (index, block) in data.chunks_exact_mut(self.format.block_bytes()).enumerate() {
            write_f16(&mut block[self.places.d..][..2], self.d[index]);
            if let Some(at) = self.places.m {
                write_f16(&mut block[at..][..2], self.m[index]);
            }
        }
        data
    }

    /// The factors of d and of m for each element of a row; without m the second is not touched.
    pub fn factors(&self, row: usize, of_d: &mut [f32], of_m: &mut [f32]) {
        self.decode_with(row, [1.0, 0.0], of_d);
        if self.places.m.is_some() {
            self.decode_with(row, [0.0, 1.0], of_m);
        }
    }

    /// The values of a row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let mut of_m = vec![0.0; if self.m.is_empty() { 0 } else { self.columns }];
        self.factors(row, out, &mut of_m);
        let (block, first) = (self.format.block(), row * self.blocks());
        for (index, out) in out.chunks_exact_mut(block).enumerate() {
            let d = self.d[first + index];
            out.iter_mut().for_each(|value| *value *= d);
            if let Some(m) = self.m.get(first + index) {
                let of_m = &of_m[index * block..][..block];
                out.iter_mut().zip(of_m).for_each(|(value, factor)| *value += m * factor);
            }
        }
    }

    /// Decodes a row with one pair of scales in all blocks.
    fn decode_with(&self, row: usize, [d, m]: [f32; 2], out: &mut [f32]) {
        let size = self.data.len() / self.rows;
        let mut bytes = self.data[row * size..][..size].to_vec();
        for block in bytes.chunks_exact_mut(self.format.block_bytes()) {
            write_f16(&mut block[self.places.d..][..2], d);
            if let Some(at) = self.places.m {
                write_f16(&mut block[at..][..2], m);
            }
        }
        self.format.decode_row(&bytes, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_bytes_are_those_of_the_file() {
        let x: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01).collect();
        let k = Places { d: 0, m: Some(2) };
        for (name, places) in [("Q4_K", k), ("Q6_K", Places { d: 208, m: None }), ("Q4_1", k)] {
            let format = Format::parse(name).unwrap();
            let mut data = vec![0; format.row_bytes(256).unwrap() * 2];
            for (x, out) in x.chunks(256).zip(data.chunks_mut(format.row_bytes(256).unwrap())) {
                format.encode_row(x, None, out);
            }
            let scaled = Scaled::new(data.clone(), format, [2, 256], places).unwrap();
            assert_eq!(scaled.bytes(), data);
            let (mut found, mut expected) = ([0.0; 256], [0.0; 256]);
            scaled.row(1, &mut found);
            format.decode_row(&data[data.len() / 2..], &mut expected);
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() <= 1e-6 * (b.abs() + 0.5), "{name}: {a} is not {b}");
            }
            let doubled = scaled.d.iter().map(|d| 2.0 * d).collect();
            let doubled = scaled.with_scales(doubled, vec![0.0; scaled.m.len()]).unwrap();
            let (mut of_d, mut of_m) = ([0.0; 256], [0.0; 256]);
            scaled.factors(1, &mut of_d, &mut of_m);
            doubled.row(1, &mut found);
            assert_eq!(
                found[200],
                2.0 * scaled.d[scaled.d.len() - 1 - 56 / format.block()] * of_d[200]
            );
        }
    }
}

//! A row as codes and scales that can be changed and stored again: every format with a code an
//! element, except those of one and two bits without a search.

use super::affine::Affine;
use super::codes::{Codes, Scales};
use super::k::{BLOCK, Super, pack_q2_k, pack_q3_k, pack_q4_k, pack_q5_k, pack_q6_k};
use super::table::{Family, Format};
use super::{codebook, legacy};
use crate::floats::read_f16;

/// How a format stores the scales of its groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScaleKind {
    /// An f16 a group, and an f16 minimum.
    F16,
    /// An f32 a group.
    F32,
    /// An f32 a group; its minimum is -(scale * zero), zero an integer up to `top`.
    Zeros { top: u8 },
    /// An integer a group times the f16 of a super-block; likewise minima, 0..=`top`, subtracted.
    Integers { low: i16, high: i16, top: u8 },
    /// A byte that stands for a power of two.
    Power,
    /// A byte that stands for a float of 4 + 3 bits.
    Float8,
}

impl ScaleKind {
    /// How `format` stores its scales; None where `QuantizedRow` does not know it.
    pub fn of(format: Format) -> Option<Self> {
        let codes = format.codes()?;
        match (format.family(), codes.scales) {
            (Family::Grid | Family::Ternary, _) | (_, Scales::Blocks) => None,
            _ if matches!(format, Format::Q1_0 | Format::Q2_0) => None,
            (_, Scales::F16) => Some(Self::F16),
            (_, Scales::F32) => Some(Self::F32),
            (_, Scales::Zeros) => Some(Self::Zeros { top: ((1u16 << codes.bits) - 1) as u8 }),
            (_, Scales::Bytes) => Some(Self::Integers { low: 0, high: 63, top: 63 }),
            (_, Scales::Nibbles) => Some(Self::Integers { low: 0, high: 15, top: 15 }),
            (_, Scales::Signed) if format == Format::Q6_K => {
                Some(Self::Integers { low: -128, high: 127, top: 0 })
            }
            (_, Scales::Signed) => Some(Self::Integers { low: -32, high: 31, top: 0 }),
            (_, Scales::Power) => Some(Self::Power),
            (_, Scales::Float8) => Some(Self::Float8),
        }
    }
}

/// The codes and scales of one row. Vectors that the format does not need are empty.
#[derive(Clone, PartialEq, Debug)]
pub struct QuantizedRow {
    /// The stored code of each element.
    pub codes: Vec<u8>,
    /// The scale of each group, as the decoder multiplies with it.
    pub scale: Vec<f32>,
    /// The minimum of each group, as the decoder adds it; 0 where the format has none.
    pub min: Vec<f32>,
    /// The integer of each group's scale, or the byte that stands for it.
    pub steps: Vec<i16>,
    /// The integer of each group's minimum, or its zero point.
    pub lows: Vec<u8>,
    /// The f16 of each super-block that its scales share.
    pub d: Vec<f32>,
    /// The f16 of each super-block that its minima share.
    pub dmin: Vec<f32>,
}

impl QuantizedRow {
    /// Reads a row of a format that `ScaleKind::of` knows.
    pub fn read(format: Format, codes: &Codes, bytes: &[u8], columns: usize) -> Self {
        let groups = columns.div_ceil(codes.group);
        let mut row = Self {
            codes: vec![0; columns],
            scale: vec![0.0; groups],
            min: vec![0.0; groups],
            steps: vec![0; groups],
            lows: vec![0; groups],
            d: vec![],
            dmin: vec![],
        };
        format.unpack_stored(bytes, columns, &mut row.codes, &mut row.scale, &mut row.min);
        match ScaleKind::of(format) {
            Some(ScaleKind::Zeros { .. }) => {
                for (low, bytes) in row.lows.iter_mut().zip(bytes.chunks(format.block_bytes())) {
                    *low = bytes[4];
                }
            }
            Some(ScaleKind::Integers { .. } | ScaleKind::Power | ScaleKind::Float8) => {
                row.read_bytes(format, codes, bytes);
            }
            _ => {}
        }
        row
    }

    /// Reads the integers of scales and minima.
    fn read_bytes(&mut self, format: Format, codes: &Codes, bytes: &[u8]) {
        let per = format.block() / codes.group;
        let integers = matches!(ScaleKind::of(format), Some(ScaleKind::Integers { .. }));
        for (block, bytes) in bytes.chunks_exact(format.block_bytes()).enumerate() {
            let stored = format.scale_bytes(bytes);
            for k in 0..per {
                let (step, low) = (stored.scale[k], stored.min[k]);
                (self.steps[block * per + k], self.lows[block * per + k]) = match codes.scales {
                    Scales::Nibbles => (i16::from(step & 15), step >> 4),
                    Scales::Signed => (i16::from(step as i8), 0),
                    _ => (i16::from(step), low),
                };
            }
            if integers {
                self.d.push(read_f16(&stored.d));
                self.dmin.push(read_f16(&stored.dmin));
            }
        }
    }

    /// Stores the row; the inverse of `read` for what an encoder writes.
    pub fn write(&self, format: Format, codes: &Codes, out: &mut [u8]) {
        let (block, size) = (format.block(), format.block_bytes());
        let per = block.div_ceil(codes.group);
        let blocks = self.codes.chunks(block).zip(out.chunks_exact_mut(size));
        for (index, (q, out)) in blocks.enumerate() {
            let first = index * per;
            let bytes = || -> [u8; 16] {
                std::array::from_fn(|k| *self.steps.get(first + k).unwrap_or(&0) as u8)
            };
            match format {
                Format::Affine(affine) => self.write_affine(affine, first, q, out),
                Format::IQ4_NL => codebook::pack_iq4_nl(self.scale[first], q, out),
                Format::IQ4_XS => {
                    let scales = std::array::from_fn(|k| self.steps[first + k] as i8);
                    codebook::pack_iq4_xs(self.d[index], &scales, q, out);
                }
                Format::MXFP4 => codebook::pack_mxfp4(bytes()[0], q, out),
                Format::NVFP4 => codebook::pack_nvfp4(&bytes()[..4], q, out),
                Format::Q2_K => pack_q2_k(&self.super_block(index, 0), out),
                Format::Q3_K => pack_q3_k(&self.super_block(index, 32), out),
                Format::Q4_K => pack_q4_k(&self.super_block(index, 0), out),
                Format::Q5_K => pack_q5_k(&self.super_block(index, 0), out),
                Format::Q6_K => pack_q6_k(&self.super_block(index, 0), out),
                _ => legacy::pack_block(format, self.scale[first], self.min[first], q, out),
            }
        }
    }

    fn write_affine(&self, affine: Affine, group: usize, q: &[u8], out: &mut [u8]) {
        affine.pack_group(self.scale[group], self.lows[group], q, out);
    }

    /// Super-block `index`, with `raise` added to its scales.
    fn super_block<const S: usize>(&self, index: usize, raise: i16) -> Super<S> {
        let mut codes = [0; BLOCK];
        codes.copy_from_slice(&self.codes[index * BLOCK..(index + 1) * BLOCK]);
        Super {
            d: self.d[index],
            dmin: self.dmin[index],
            scales: std::array::from_fn(|k| (self.steps[index * S + k] + raise) as u8),
            minima: std::array::from_fn(|k| self.lows[index * S + k]),
            codes,
        }
    }

    /// Computes the scale and the minimum of group `k` of super-block `index` as the decoder does.
    #[inline(always)]
    pub fn multiply_out(&mut self, k: usize, index: usize) {
        self.scale[k] = self.d[index] * f32::from(self.steps[k]);
        // As decoded: a format without minima adds nothing.
        self.min[k] = -(self.dmin[index] * f32::from(self.lows[k]));
    }
}

/// The scale that a byte stands for.
pub fn scale_of_byte(kind: ScaleKind, byte: u8) -> f32 {
    match kind {
        ScaleKind::Power => codebook::half_power(byte),
        _ => codebook::half_e4m3(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 18] = [
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "IQ4_NL",
        "IQ4_XS",
        "MXFP4",
        "NVFP4",
        "sym1-g7",
        "sym3-g32",
        "asym4-g48",
        "asym8-g300",
    ];

    /// Rows with groups of zeros, tiny and huge numbers.
    fn rows() -> Vec<Vec<f32>> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        [1.0, 1e-6, 1e-9, 3e4, 1e-40]
            .map(|size| (0..512).map(|j| if j % 96 < 33 { 0.0 } else { next() * size }).collect())
            .into()
    }

    #[test]
    fn rows_are_stored_as_they_were_read() {
        for name in NAMES {
            let format = Format::parse(name).unwrap();
            let codes = format.codes().unwrap();
            for row in rows() {
                let mut stored = vec![0u8; format.row_bytes(512).unwrap()];
                format.encode_row(&row, None, &mut stored);
                let read = QuantizedRow::read(format, &codes, &stored, 512);
                let mut again = vec![1u8; stored.len()];
                read.write(format, &codes, &mut again);
                assert_eq!(again, stored, "{name}");
            }
        }
    }

    #[test]
    fn integers_multiply_out_to_the_scales_read() {
        for name in &NAMES[5..10] {
            let format = Format::parse(name).unwrap();
            let codes = format.codes().unwrap();
            for row in rows() {
                let mut stored = vec![0u8; format.row_bytes(512).unwrap()];
                format.encode_row(&row, None, &mut stored);
                let read = QuantizedRow::read(format, &codes, &stored, 512);
                let mut again = read.clone();
                for k in 0..read.scale.len() {
                    again.multiply_out(k, k * codes.group / BLOCK);
                }
                assert_eq!(again, read, "{name}");
            }
        }
    }

    #[test]
    fn bytes_stand_for_the_scales_read() {
        for (name, kind) in [("MXFP4", ScaleKind::Power), ("NVFP4", ScaleKind::Float8)] {
            let format = Format::parse(name).unwrap();
            let codes = format.codes().unwrap();
            for row in rows() {
                let mut stored = vec![0u8; format.row_bytes(512).unwrap()];
                format.encode_row(&row, None, &mut stored);
                let read = QuantizedRow::read(format, &codes, &stored, 512);
                for (scale, &step) in read.scale.iter().zip(&read.steps) {
                    assert_eq!(*scale, scale_of_byte(kind, step as u8), "{name}");
                }
            }
        }
    }
}

//! Number formats: how a row of weights is stored, and the one way in which it is read.
//!
//! A quantized row unpacks to unsigned codes, one scale a group and, where the format has them,
//! one minimum a group:
//!
//! ```text
//! value = scale * (code - offset) + min
//! ```
//!
//! in f32, each operator rounded. Decoding and the kernels' run-time layout both come from that, so
//! a format is added by writing its `unpack` and its `encode`, and where its scales are bytes its
//! `scale_bytes`.

mod affine;
mod bits;
mod codebook;
mod codes;
mod encode;
pub mod floats;
pub mod grid;
mod grid_encode;
pub(crate) mod grids;
mod iq1_encode;
mod k;
mod k_encode;
mod legacy;
pub(crate) mod search;
mod ternary;

pub use affine::Affine;
pub use codes::{Codes, ScaleBytes, Scales};

use crate::error::{Error, Result};

/// A way to store numbers, named as in GGUF; `Affine` is any integer width at any group size.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q1_0,
    Q2_0,
    TQ1_0,
    TQ2_0,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    NVFP4,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    Affine(Affine),
}

/// A row, and where its codes and scales go.
struct Unpacked<'a> {
    format: &'a Format,
    bytes: &'a [u8],
    q: &'a mut [u8],
    scale: &'a mut [f32],
    min: &'a mut [f32],
}

impl Unpacked<'_> {
    /// Unpacks block after block; a loop for each `unpack`, as a block may be short.
    fn each(self, unpack: impl Fn(&[u8], &mut [u8], &mut [f32], &mut [f32])) {
        let (block, size) = (self.format.block(), self.format.block_bytes());
        let groups = block / self.format.codes().map_or(block, |codes| codes.group);
        let scales = self.scale.chunks_exact_mut(groups).zip(self.min.chunks_exact_mut(groups));
        let blocks = self.bytes.chunks_exact(size).zip(self.q.chunks_exact_mut(block));
        for ((bytes, q), (scale, min)) in blocks.zip(scales) {
            unpack(bytes, q, scale, min);
        }
    }
}

const fn codes(bits: u8, group: usize, offset: u8, has_min: bool, scales: Scales) -> Codes {
    Codes { bits, group, offset, has_min, scales, levels: &[], halvings: 0 }
}

/// Codes that a block stores as indices of `levels`.
const fn indexed(
    bits: u8,
    group: usize,
    offset: u8,
    scales: Scales,
    levels: &'static [u8],
) -> Codes {
    Codes { levels, ..codes(bits, group, offset, false, scales) }
}

/// Codes of a code book's points.
const fn of_points(
    bits: u8,
    group: usize,
    offset: u8,
    levels: &'static [u8],
    halvings: u8,
) -> Codes {
    Codes { halvings, ..indexed(bits, group, offset, Scales::Signed, levels) }
}

/// Name, elements and bytes of a block, codes.
const TABLE: [(Format, &str, usize, usize, Option<Codes>); 28] = [
    (Format::F32, "F32", 1, 4, None),
    (Format::F16, "F16", 1, 2, None),
    (Format::BF16, "BF16", 1, 2, None),
    (Format::Q4_0, "Q4_0", 32, 18, Some(codes(4, 32, 8, false, Scales::F16))),
    (Format::Q4_1, "Q4_1", 32, 20, Some(codes(4, 32, 0, true, Scales::F16))),
    (Format::Q5_0, "Q5_0", 32, 22, Some(codes(5, 32, 16, false, Scales::F16))),
    (Format::Q5_1, "Q5_1", 32, 24, Some(codes(5, 32, 0, true, Scales::F16))),
    (Format::Q8_0, "Q8_0", 32, 34, Some(codes(8, 32, 128, false, Scales::F16))),
    (Format::Q2_K, "Q2_K", 256, 84, Some(codes(2, 16, 0, true, Scales::Nibbles))),
    (Format::Q3_K, "Q3_K", 256, 110, Some(codes(3, 16, 4, false, Scales::Signed))),
    (Format::Q4_K, "Q4_K", 256, 144, Some(codes(4, 32, 0, true, Scales::Bytes))),
    (Format::Q5_K, "Q5_K", 256, 176, Some(codes(5, 32, 0, true, Scales::Bytes))),
    (Format::Q6_K, "Q6_K", 256, 210, Some(codes(6, 16, 32, false, Scales::Signed))),
    (Format::Q1_0, "Q1_0", 128, 18, Some(indexed(2, 128, 1, Scales::F16, &ternary::SIGNS))),
    (Format::Q2_0, "Q2_0", 64, 18, Some(codes(2, 64, 1, false, Scales::F16))),
    (Format::TQ1_0, "TQ1_0", 256, 54, Some(codes(2, 256, 1, false, Scales::F16))),
    (Format::TQ2_0, "TQ2_0", 256, 66, Some(codes(2, 256, 1, false, Scales::F16))),
    (Format::IQ4_NL, "IQ4_NL", 32, 18, Some(indexed(8, 32, 128, Scales::F16, &codebook::LEVELS_8))),
    (
        Format::IQ4_XS,
        "IQ4_XS",
        256,
        136,
        Some(indexed(8, 32, 128, Scales::Signed, &codebook::LEVELS_8)),
    ),
    (Format::MXFP4, "MXFP4", 32, 17, Some(indexed(5, 32, 12, Scales::Power, &codebook::LEVELS_5))),
    (Format::NVFP4, "NVFP4", 64, 36, Some(indexed(5, 16, 12, Scales::Float8, &codebook::LEVELS_5))),
    (Format::IQ1_S, "IQ1_S", 256, 50, Some(of_points(5, 32, grid::OFFSET_1, &grid::LEVELS_1_S, 3))),
    (Format::IQ1_M, "IQ1_M", 256, 56, Some(of_points(5, 16, grid::OFFSET_1, &grid::LEVELS_1_M, 3))),
    (Format::IQ2_XXS, "IQ2_XXS", 256, 66, Some(of_points(7, 32, grid::OFFSET, &grid::LEVELS_2, 3))),
    (Format::IQ2_XS, "IQ2_XS", 256, 74, Some(of_points(7, 16, grid::OFFSET, &grid::LEVELS_2, 3))),
    (Format::IQ2_S, "IQ2_S", 256, 82, Some(of_points(7, 16, grid::OFFSET, &grid::LEVELS_2, 3))),
    (
        Format::IQ3_XXS,
        "IQ3_XXS",
        256,
        98,
        Some(of_points(7, 32, grid::OFFSET, &grid::LEVELS_3_XXS, 2)),
    ),
    (
        Format::IQ3_S,
        "IQ3_S",
        256,
        110,
        Some(of_points(5, 32, grid::OFFSET_3_S, &grid::LEVELS_3_S, 0)),
    ),
];

impl Format {
    /// The format called `name`, in any letter case.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(entry) = TABLE.iter().find(|entry| entry.1.eq_ignore_ascii_case(name)) {
            return Ok(entry.0);
        }
        Affine::parse(&name.to_ascii_lowercase()).map(Self::Affine).ok_or_else(|| {
            let known: Vec<_> = TABLE.iter().map(|entry| entry.1).collect();
            Error::format(format!("unknown format `{name}`")).hint(format!(
                "known: {}, and sym1..8-gN, asym1..8-gN as in asym4-g32",
                known.join(", ")
            ))
        })
    }

    /// The name that `parse` takes.
    pub fn name(&self) -> String {
        match self {
            Self::Affine(affine) => affine.name(),
            _ => self.entry().1.to_owned(),
        }
    }

    /// Elements of a block; blocks never cross rows.
    pub fn block(&self) -> usize {
        match self {
            Self::Affine(affine) => affine.group as usize,
            _ => self.entry().2,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        match self {
            Self::Affine(affine) => affine.group_bytes(),
            _ => self.entry().3,
        }
    }

    /// Bytes of a row.
    ///
    /// # Errors
    ///
    /// A `Shape` error where a block does not divide the row.
    pub fn row_bytes(&self, columns: usize) -> Result<usize> {
        let block = self.block();
        if !matches!(self, Self::Affine(_)) && !columns.is_multiple_of(block) {
            return Err(Error::shape(format!(
                "cannot store rows of {columns} elements as {}: not a multiple of {block}",
                self.name()
            ))
            .hint("Q8_0, Q4_0 and their kin need multiples of 32, F16 any row length"));
        }
        columns.div_ceil(block).checked_mul(self.block_bytes()).ok_or_else(|| {
            Error::shape(format!("rows of {columns} elements as {} overflow", self.name()))
        })
    }

    /// What its codes mean; None for floats.
    pub fn codes(&self) -> Option<Codes> {
        match self {
            Self::Affine(affine) => Some(affine.codes()),
            _ => self.entry().4,
        }
    }

    /// Reads a row as `columns` codes and one scale (and minimum) a group; further scales, which
    /// a caller may have as padding, stay.
    pub fn unpack_row(
        &self,
        bytes: &[u8],
        columns: usize,
        q: &mut [u8],
        scale: &mut [f32],
        min: &mut [f32],
    ) {
        self.unpack_stored(bytes, columns, q, scale, min);
        let levels = self.codes().map_or(&[][..], |codes| codes.levels);
        if !levels.is_empty() {
            q.iter_mut().for_each(|q| *q = levels[usize::from(*q)]);
        }
    }

    /// `unpack_row`, but where a block stores indices of codes, the indices.
    pub fn unpack_stored(
        &self,
        bytes: &[u8],
        columns: usize,
        q: &mut [u8],
        scale: &mut [f32],
        min: &mut [f32],
    ) {
        assert!(q.len() == columns);
        let out = Unpacked { format: self, bytes, q, scale, min };
        match self {
            Self::Affine(affine) => affine.unpack_stored(out.bytes, out.q, out.scale, out.min),
            Self::F32 | Self::F16 | Self::BF16 => unreachable!("floats have no codes"),
            Self::Q4_0 => out.each(legacy::unpack_q4_0),
            Self::Q4_1 => out.each(legacy::unpack_q4_1),
            Self::Q5_0 => out.each(legacy::unpack_q5_0),
            Self::Q5_1 => out.each(legacy::unpack_q5_1),
            Self::Q8_0 => out.each(legacy::unpack_q8_0),
            Self::Q2_K => out.each(k::unpack_q2_k),
            Self::Q3_K => out.each(k::unpack_q3_k),
            Self::Q4_K => out.each(k::unpack_q4_k),
            Self::Q5_K => out.each(k::unpack_q5_k),
            Self::Q6_K => out.each(k::unpack_q6_k),
            Self::Q1_0 => out.each(ternary::unpack_q1_0),
            Self::Q2_0 => out.each(ternary::unpack_q2_0),
            Self::TQ2_0 => out.each(ternary::unpack_tq2_0),
            Self::IQ4_NL => out.each(codebook::unpack_iq4_nl),
            Self::IQ4_XS => out.each(codebook::unpack_iq4_xs),
            Self::MXFP4 => out.each(codebook::unpack_mxfp4),
            Self::NVFP4 => out.each(codebook::unpack_nvfp4),
            Self::TQ1_0 => out.each(ternary::unpack_tq1_0),
            Self::IQ1_S => out.each(grid::unpack_iq1_s),
            Self::IQ1_M => out.each(grid::unpack_iq1_m),
            Self::IQ2_XXS => out.each(grid::unpack_iq2_xxs),
            Self::IQ2_XS => out.each(grid::unpack_iq2_xs),
            Self::IQ2_S => out.each(grid::unpack_iq2_s),
            Self::IQ3_XXS => out.each(grid::unpack_iq3_xxs),
            Self::IQ3_S => out.each(grid::unpack_iq3_s),
        }
    }

    /// Reads the scales of one block whose `Scales` are bytes.
    pub fn scale_bytes(&self, block: &[u8]) -> ScaleBytes {
        match self {
            Self::Q2_K => k::scale_bytes_q2_k(block),
            Self::Q3_K => k::scale_bytes_q3_k(block),
            Self::Q4_K | Self::Q5_K => k::scale_bytes_six(block),
            Self::Q6_K => k::scale_bytes_q6_k(block),
            Self::IQ4_XS => codebook::scale_bytes_iq4_xs(block),
            Self::MXFP4 => codebook::scale_bytes_mxfp4(block),
            Self::NVFP4 => codebook::scale_bytes_nvfp4(block),
            Self::IQ1_S => grid::scale_bytes_iq1_s(block),
            Self::IQ1_M => grid::scale_bytes_iq1_m(block),
            Self::IQ2_XXS => grid::scale_bytes_iq2_xxs(block),
            Self::IQ2_XS => grid::scale_bytes_iq2_xs(block),
            Self::IQ2_S => grid::scale_bytes_iq2_s(block),
            Self::IQ3_XXS => grid::scale_bytes_iq3_xxs(block),
            Self::IQ3_S => grid::scale_bytes_iq3_s(block),
            _ => unreachable!("scales of other formats are floats"),
        }
    }

    /// Reads a row as f32.
    ///
    /// # Panics
    ///
    /// Panics where `bytes` is not one row of `out.len()` elements.
    pub fn decode_row(&self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(Ok(bytes.len()), self.row_bytes(out.len()));
        let Some(codes) = self.codes() else { return floats::decode_row(*self, bytes, out) };
        // 256 elements at a time, or a whole group.
        let step = 256usize.next_multiple_of(self.block());
        let groups = step.div_ceil(codes.group);
        let (mut q, mut scale, mut min) = (vec![0; step], vec![0.0; groups], vec![0.0; groups]);
        let step_bytes = step / self.block() * self.block_bytes();
        for (out, bytes) in out.chunks_mut(step).zip(bytes.chunks(step_bytes)) {
            let count = out.len();
            self.unpack_row(bytes, count, &mut q[..count], &mut scale, &mut min);
            for (group, (out, q)) in
                out.chunks_mut(codes.group).zip(q.chunks(codes.group)).enumerate()
            {
                let (scale, min) = (scale[group], min[group]);
                for (value, &q) in out.iter_mut().zip(q) {
                    *value = scale * (f32::from(q) - f32::from(codes.offset));
                    if codes.has_min {
                        *value += min;
                    }
                }
            }
        }
    }

    /// Whether it is not encoded without importance, as in llama.cpp: errors of single elements
    /// are too large to be left to chance.
    pub fn needs_importance(&self) -> bool {
        matches!(self, Self::IQ1_S | Self::IQ2_XXS | Self::IQ2_XS)
    }

    fn entry(&self) -> &'static (Format, &'static str, usize, usize, Option<Codes>) {
        TABLE
            .iter()
            .find(|entry| entry.0 == *self)
            .expect("every format but Affine is in the table")
    }
}

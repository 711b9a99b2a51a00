//! The table of number formats: names, GGUF ids, blocks, and the meaning of their codes.

use super::affine::Affine;
use super::codebook::{LEVELS_5, LEVELS_8};
use super::codes::{Codes, Scales};
use super::grid::{
    LEVELS_1_M, LEVELS_1_S, LEVELS_2, LEVELS_3_S, LEVELS_3_XXS, OFFSET, OFFSET_1, OFFSET_3_S,
};
use super::ternary::SIGNS;
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

/// Formats whose blocks are built alike; each family has a source file here and a shader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Floats,
    Legacy,
    K,
    Codebook,
    Grid,
    Ternary,
    Affine,
}

impl Family {
    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floats => "floats",
            Self::Legacy => "legacy",
            Self::K => "k",
            Self::Codebook => "codebook",
            Self::Grid => "grid",
            Self::Ternary => "ternary",
            Self::Affine => "affine",
        }
    }
}

/// A row of the table: one format that GGUF has.
struct Row {
    format: Format,
    name: &'static str,
    family: Family,
    /// GGUF's number of the tensor type.
    gguf_id: u32,
    /// Elements of a block.
    block: usize,
    /// Bytes of a block.
    bytes: usize,
    /// None for floats.
    codes: Option<Codes>,
}

const fn row(
    format: Format,
    name: &'static str,
    family: Family,
    gguf_id: u32,
    [block, bytes]: [usize; 2],
    codes: Option<Codes>,
) -> Row {
    Row { format, name, family, gguf_id, block, bytes, codes }
}

/// Codes that a block stores as they are.
const fn codes(bits: u8, group: usize, offset: u8, has_min: bool, scales: Scales) -> Option<Codes> {
    Some(Codes { bits, group, offset, has_min, scales, levels: &[], halvings: 0 })
}

/// Codes that a block stores as indices of `levels`.
const fn indexed(
    bits: u8,
    group: usize,
    offset: u8,
    scales: Scales,
    levels: &'static [u8],
) -> Option<Codes> {
    Some(Codes { bits, group, offset, has_min: false, scales, levels, halvings: 0 })
}

/// Codes as indices of 16 levels of 8 bits: IQ4's values.
const fn levels_8(group: usize, scales: Scales) -> Option<Codes> {
    indexed(8, group, 128, scales, &LEVELS_8)
}

/// Codes as indices of 16 levels of 5 bits: FP4's values.
const fn levels_5(group: usize, scales: Scales) -> Option<Codes> {
    indexed(5, group, 12, scales, &LEVELS_5)
}

/// Codes of a code book's points.
const fn of_points(
    bits: u8,
    group: usize,
    offset: u8,
    levels: &'static [u8],
    halvings: u8,
) -> Option<Codes> {
    Some(Codes { bits, group, offset, has_min: false, scales: Scales::Signed, levels, halvings })
}

use Family::{Codebook, Floats, Grid, K, Legacy, Ternary};

/// Every format with a name in GGUF: family, GGUF id, elements and bytes of a block, codes.
const TABLE: [Row; 28] = [
    row(Format::F32, "F32", Floats, 0, [1, 4], None),
    row(Format::F16, "F16", Floats, 1, [1, 2], None),
    row(Format::BF16, "BF16", Floats, 30, [1, 2], None),
    row(Format::Q1_0, "Q1_0", Legacy, 41, [128, 18], indexed(2, 128, 1, Scales::F16, &SIGNS)),
    row(Format::Q2_0, "Q2_0", Legacy, 42, [64, 18], codes(2, 64, 1, false, Scales::F16)),
    row(Format::Q4_0, "Q4_0", Legacy, 2, [32, 18], codes(4, 32, 8, false, Scales::F16)),
    row(Format::Q4_1, "Q4_1", Legacy, 3, [32, 20], codes(4, 32, 0, true, Scales::F16)),
    row(Format::Q5_0, "Q5_0", Legacy, 6, [32, 22], codes(5, 32, 16, false, Scales::F16)),
    row(Format::Q5_1, "Q5_1", Legacy, 7, [32, 24], codes(5, 32, 0, true, Scales::F16)),
    row(Format::Q8_0, "Q8_0", Legacy, 8, [32, 34], codes(8, 32, 128, false, Scales::F16)),
    row(Format::Q2_K, "Q2_K", K, 10, [256, 84], codes(2, 16, 0, true, Scales::Nibbles)),
    row(Format::Q3_K, "Q3_K", K, 11, [256, 110], codes(3, 16, 4, false, Scales::Signed)),
    row(Format::Q4_K, "Q4_K", K, 12, [256, 144], codes(4, 32, 0, true, Scales::Bytes)),
    row(Format::Q5_K, "Q5_K", K, 13, [256, 176], codes(5, 32, 0, true, Scales::Bytes)),
    row(Format::Q6_K, "Q6_K", K, 14, [256, 210], codes(6, 16, 32, false, Scales::Signed)),
    row(Format::IQ4_NL, "IQ4_NL", Codebook, 20, [32, 18], levels_8(32, Scales::F16)),
    row(Format::IQ4_XS, "IQ4_XS", Codebook, 23, [256, 136], levels_8(32, Scales::Signed)),
    row(Format::MXFP4, "MXFP4", Codebook, 39, [32, 17], levels_5(32, Scales::Power)),
    row(Format::NVFP4, "NVFP4", Codebook, 40, [64, 36], levels_5(16, Scales::Float8)),
    row(Format::IQ1_S, "IQ1_S", Grid, 19, [256, 50], of_points(5, 32, OFFSET_1, &LEVELS_1_S, 3)),
    row(Format::IQ1_M, "IQ1_M", Grid, 29, [256, 56], of_points(5, 16, OFFSET_1, &LEVELS_1_M, 3)),
    row(Format::IQ2_XXS, "IQ2_XXS", Grid, 16, [256, 66], of_points(7, 32, OFFSET, &LEVELS_2, 3)),
    row(Format::IQ2_XS, "IQ2_XS", Grid, 17, [256, 74], of_points(7, 16, OFFSET, &LEVELS_2, 3)),
    row(Format::IQ2_S, "IQ2_S", Grid, 22, [256, 82], of_points(7, 16, OFFSET, &LEVELS_2, 3)),
    row(
        Format::IQ3_XXS,
        "IQ3_XXS",
        Grid,
        18,
        [256, 98],
        of_points(7, 32, OFFSET, &LEVELS_3_XXS, 2),
    ),
    row(Format::IQ3_S, "IQ3_S", Grid, 21, [256, 110], of_points(5, 32, OFFSET_3_S, &LEVELS_3_S, 0)),
    row(Format::TQ1_0, "TQ1_0", Ternary, 34, [256, 54], codes(2, 256, 1, false, Scales::F16)),
    row(Format::TQ2_0, "TQ2_0", Ternary, 35, [256, 66], codes(2, 256, 1, false, Scales::F16)),
];

impl Format {
    /// All formats of the table, in its order.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.format)
    }

    /// The format called `name`, in any letter case.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(row) = TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(name)) {
            return Ok(row.format);
        }
        Affine::parse(&name.to_ascii_lowercase()).map(Self::Affine).ok_or_else(|| {
            let known: Vec<_> = TABLE.iter().map(|row| row.name).collect();
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
            _ => self.row().name.to_owned(),
        }
    }

    /// Elements of a block; blocks never cross rows.
    pub fn block(&self) -> usize {
        match self {
            Self::Affine(affine) => affine.group as usize,
            _ => self.row().block,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        match self {
            Self::Affine(affine) => affine.group_bytes(),
            _ => self.row().bytes,
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
            _ => self.row().codes,
        }
    }

    /// The family, which says how blocks are built.
    pub fn family(&self) -> Family {
        match self {
            Self::Affine(_) => Family::Affine,
            _ => self.row().family,
        }
    }

    /// GGUF's number of the tensor type; None where GGUF has no such type.
    pub fn gguf_id(&self) -> Option<u32> {
        match self {
            Self::Affine(_) => None,
            _ => Some(self.row().gguf_id),
        }
    }

    /// Columns that share a scale of int8 activations; None where activations stay floats.
    pub fn activation_group(&self) -> Option<usize> {
        self.codes()?.activation_group()
    }

    /// Whether it is not encoded without importance, as in llama.cpp: errors of single elements
    /// are too large to be left to chance.
    pub fn needs_importance(&self) -> bool {
        matches!(self, Self::IQ1_S | Self::IQ2_XXS | Self::IQ2_XS)
    }

    fn row(&self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.format == *self)
            .expect("every format but Affine is in the table")
    }
}

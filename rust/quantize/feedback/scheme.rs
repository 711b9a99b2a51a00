//! What feedback and descent know of a format: its levels, its groups, how it stores scales.

use crate::error::{Error, Result};
use crate::formats::{Codes, Format, Levels, QuantizedRow, ScaleKind};

/// A format with one code an element.
pub struct Scheme {
    pub format: Format,
    pub codes: Codes,
    pub levels: Levels,
    pub kind: ScaleKind,
    /// Whether a group's minimum is stored on its own, and not by a zero point.
    pub has_min: bool,
}

impl Scheme {
    /// The scheme of `format`.
    ///
    /// # Errors
    ///
    /// `Format` where the codes are no numbers of their own.
    pub fn new(format: Format) -> Result<Self> {
        let (Some(codes), Some(kind)) = (format.codes(), ScaleKind::of(format)) else {
            let name = format.name();
            return Err(Error::format(format!("{name} takes no error feedback")).hint(
                "Q4_0 to Q8_0, Q2_K to Q6_K, IQ1 to IQ4, MXFP4, NVFP4, symB-gN and asymB-gN do",
            ));
        };
        let has_min = codes.has_min && !matches!(kind, ScaleKind::Zeros { .. });
        Ok(Self { format, codes, levels: Levels::new(format, &codes), kind, has_min })
    }

    /// Columns of a group.
    pub fn group(&self) -> usize {
        self.codes.group
    }

    /// Groups of a super-block; 1 where there are none.
    pub fn groups_per_block(&self) -> usize {
        match self.kind {
            ScaleKind::Integers { .. } => self.format.block() / self.codes.group,
            _ => 1,
        }
    }

    /// The level of a stored code, in units of the scale.
    #[inline(always)]
    pub fn level(&self, code: u8) -> f32 {
        self.levels.values[usize::from(self.levels.places[usize::from(code)])]
    }

    /// The row as the decoder reads it.
    pub fn values(&self, row: &QuantizedRow, out: &mut [f64]) {
        let groups = out.chunks_mut(self.group()).zip(row.codes.chunks(self.group()));
        for (k, (out, codes)) in groups.enumerate() {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = decoded(row.scale[k], self.level(code), row.min[k]);
            }
        }
    }

    /// weights - values.
    pub fn errors(&self, row: &QuantizedRow, weights: &[f32], out: &mut [f64]) {
        self.values(row, out);
        for (out, &weight) in out.iter_mut().zip(weights) {
            *out = f64::from(weight) - *out;
        }
    }
}

/// scale * level + min in f32, each operator rounded, as a decoder computes it.
#[inline(always)]
pub fn decoded(scale: f32, level: f32, min: f32) -> f64 {
    f64::from(scale * level + min)
}

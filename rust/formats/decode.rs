//! Reading a row of blocks: as codes and scales, as bytes of scales, or as floats.

use super::codes::ScaleBytes;
use super::table::Format;
use super::{codebook, floats, grid, k, legacy, ternary};

/// A row, and the memory for its codes and scales.
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

impl Format {
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
        // 256 elements at a time, or a full group.
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

    /// Reads a row as f32; returns its largest magnitude.
    ///
    /// # Errors
    ///
    /// The column of the first NaN or infinity.
    ///
    /// # Panics
    ///
    /// As `decode_row`.
    pub fn decode_finite(&self, bytes: &[u8], out: &mut [f32]) -> Result<f32, usize> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has the feature.
            return unsafe { self.decode_finite_avx2(bytes, out) };
        }
        self.decode_finite_anywhere(bytes, out)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn decode_finite_avx2(&self, bytes: &[u8], out: &mut [f32]) -> Result<f32, usize> {
        self.decode_finite_anywhere(bytes, out)
    }

    #[inline(always)]
    fn decode_finite_anywhere(&self, bytes: &[u8], out: &mut [f32]) -> Result<f32, usize> {
        if self.codes().is_none() {
            assert_eq!(Ok(bytes.len()), self.row_bytes(out.len()));
            floats::decode_row(*self, bytes, out);
        } else {
            self.decode_row(bytes, out);
        }
        floats::largest(out)
    }
}

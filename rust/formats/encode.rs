//! Encoding a row of floats: chooses the encoder of the format and its instruction set.

use super::table::Format;
use super::{codebook, floats, grid_encode, iq1_encode, k, k_encode, legacy, ternary};

impl Format {
    /// Stores a row of finite floats; `importance` is how much an error in each column counts.
    ///
    /// # Panics
    ///
    /// Panics where `out` is not one row of `x.len()` elements.
    pub fn encode_row(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        assert_eq!(Ok(out.len()), self.row_bytes(x.len()));
        assert!(importance.is_none_or(|weights| weights.len() == x.len()));
        // Without fused multiply-adds, which Rust never forms, the same code yields the same bytes.
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                // SAFETY: the CPU has the features.
                return unsafe { self.encode_avx512(x, importance, out) };
            }
            // SAFETY: the CPU has the features.
            return unsafe { self.encode_avx2(x, importance, out) };
        }
        self.encode(x, importance, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c")]
    fn encode_avx512(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        self.encode(x, importance, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,f16c")]
    fn encode_avx2(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        self.encode(x, importance, out);
    }

    #[inline(always)]
    fn encode(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => floats::encode_row(*self, x, out),
            Self::Q4_0 => legacy::encode_q4_0(x, importance, out),
            Self::Q4_1 => legacy::encode_q4_1(x, importance, out),
            Self::Q5_0 => legacy::encode_q5_0(x, importance, out),
            Self::Q5_1 => legacy::encode_q5_1(x, importance, out),
            Self::Q8_0 => legacy::encode_q8_0(x, out),
            Self::Q2_K => k_encode::encode_q2_k(x, importance, out),
            Self::Q4_K => k_encode::encode_q4_k(x, importance, out),
            Self::Q5_K => k_encode::encode_q5_k(x, importance, out),
            Self::Affine(affine) => affine.encode_row(x, out),
            _ => self.encode_blocks(x, importance, out),
        }
    }

    #[inline(always)]
    fn encode_blocks(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        let (block, size) = (self.block(), self.block_bytes());
        for (i, (x, out)) in x.chunks_exact(block).zip(out.chunks_exact_mut(size)).enumerate() {
            let importance = importance.map(|weights| &weights[i * block..(i + 1) * block]);
            match self {
                Self::Q1_0 => ternary::encode_q1_0(x, out),
                Self::Q2_0 => ternary::encode_q2_0(x, out),
                Self::TQ1_0 => ternary::encode_tq1_0(x, out),
                Self::TQ2_0 => ternary::encode_tq2_0(x, out),
                Self::MXFP4 => codebook::encode_mxfp4(x, out),
                Self::NVFP4 => codebook::encode_nvfp4(x, out),
                Self::IQ4_NL => codebook::encode_iq4_nl(&x.as_chunks().0[0], importance, out),
                _ => self.encode_super(&x.as_chunks().0[0], importance, out),
            }
        }
    }

    #[inline(always)]
    fn encode_super(&self, x: &[f32; k::BLOCK], importance: Option<&[f32]>, out: &mut [u8]) {
        let array = importance.map(|weights| &weights.as_chunks().0[0]);
        match self {
            Self::Q3_K => k_encode::encode_q3_k(x, array, out),
            Self::Q6_K => k_encode::encode_q6_k(x, array, out),
            Self::IQ4_XS => codebook::encode_iq4_xs(x, importance, out),
            Self::IQ1_S => iq1_encode::encode_iq1_s(x, importance, out),
            Self::IQ1_M => iq1_encode::encode_iq1_m(x, importance, out),
            Self::IQ2_XXS => grid_encode::encode_iq2_xxs(x, importance, out),
            Self::IQ2_XS => grid_encode::encode_iq2_xs(x, importance, out),
            Self::IQ2_S => grid_encode::encode_iq2_s(x, importance, out),
            Self::IQ3_XXS => grid_encode::encode_iq3_xxs(x, importance, out),
            _ => grid_encode::encode_iq3_s(x, importance, out),
        }
    }
}

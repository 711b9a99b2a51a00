//! Entry points for AVX-512 with VNNI, with VBMI, and with BF16.

use super::macros::*;
use crate::kernels::isa::avx512::{Avx512, BF16, PLAIN, VBMI};

/// Calls a macro with the target features of all entry points of this file.
macro_rules! avx512 {
    ($macro:ident, $($rest:tt)*) => {
        $macro! {
            [#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]],
            $($rest)*
        }
    };
}

// SAFETY: the functions have the contracts of those that they call.
unsafe impl<const KIND: u8> Outlined for Avx512<KIND> {
    avx512! { outlined, Self, Avx512<PLAIN> }
}

pub const AVX512: Kernels = avx512! { kernels, "avx512", Avx512<PLAIN> };

pub const AVX512_VBMI: Kernels =
    avx512! { kernels, "avx512-vbmi", Avx512<VBMI>, linear_int8 linear_f32, ..AVX512 };

pub const AVX512_BF16: Kernels =
    avx512! { kernels, "avx512-bf16", Avx512<BF16>, linear_bf16, ..AVX512_VBMI };

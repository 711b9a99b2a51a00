//! Entry points for AVX2 with FMA and F16C, and for AVX-VNNI.

use super::macros::*;
use crate::kernels::isa::avx2::{Avx2, PLAIN, VNNI};

/// Calls a macro with the target features of all entry points of this file.
macro_rules! avx2 {
    ($macro:ident, $($rest:tt)*) => {
        $macro! { [#[target_feature(enable = "avx2,fma,f16c")]], $($rest)* }
    };
}

// SAFETY: the functions have the contracts of those that they call.
unsafe impl<const KIND: u8> Outlined for Avx2<KIND> {
    avx2! { outlined, Avx2<PLAIN>, Self }
}

pub const AVX2: Kernels = avx2! { kernels, "avx2", Avx2<PLAIN> };

pub const AVX_VNNI: Kernels = avx2! { kernels, "avx-vnni", Avx2<VNNI>, linear_int8 peak, ..AVX2 };

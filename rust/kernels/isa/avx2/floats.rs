//! Vectors of floats and integers with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::{Avx2, Pair, both};
use crate::kernels::isa::floats::Isa;

// SAFETY: every method is inlined into an entry point with these features enabled.
unsafe impl<const KIND: u8> Isa for Avx2<KIND> {
    type F = Pair<__m256>;
    type I = Pair<__m256i>;
    const TILE_F32: usize = 6;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe {
            let low = _mm_loadu_si128(p.cast());
            let high = _mm_loadu_si128(p.add(8).cast());
            Pair(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
            Pair(
                _mm256_castsi256_ps(_mm256_slli_epi32(low, 16)),
                _mm256_castsi256_ps(_mm256_slli_epi32(high, 16)),
            )
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        // SAFETY: the trait's contract.
        unsafe {
            _mm256_storeu_ps(p, x.0);
            _mm256_storeu_ps(p.add(8), x.1);
        }
    }
    #[inline(always)]
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_add_ps, x, y) }
    }
    #[inline(always)]
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_sub_ps, x, y) }
    }
    #[inline(always)]
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_mul_ps, x, y) }
    }
    #[inline(always)]
    unsafe fn div(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_div_ps, x, y) }
    }
    #[inline(always)]
    unsafe fn fma(x: Self::F, y: Self::F, z: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_fmadd_ps, x, y, z) }
    }
    #[inline(always)]
    unsafe fn max(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_max_ps, x, y) }
    }
    #[inline(always)]
    unsafe fn min(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_min_ps, x, y) }
    }
    #[inline(always)]
    unsafe fn abs(x: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe {
            let sign = Self::splat(-0.0);
            both!(_mm256_andnot_ps, sign, x)
        }
    }
    #[inline(always)]
    unsafe fn sum(x: Self::F) -> f32 {
        // SAFETY: the trait's contract.
        unsafe {
            let eight = _mm256_add_ps(x.0, x.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn largest(x: Self::F) -> f32 {
        // SAFETY: the trait's contract.
        unsafe {
            let eight = _mm256_max_ps(x.0, x.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn round(x: Self::F) -> Self::I {
        // SAFETY: the trait's contract; the rounding mode is the default, to nearest even.
        unsafe { both!(_mm256_cvtps_epi32, x) }
    }
    #[inline(always)]
    unsafe fn float(x: Self::I) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_cvtepi32_ps, x) }
    }
    #[inline(always)]
    unsafe fn pow2(x: Self::I) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe {
            let biased = Self::add_i(x, Self::splat_i(127));
            Pair(
                _mm256_castsi256_ps(_mm256_slli_epi32(biased.0, 23)),
                _mm256_castsi256_ps(_mm256_slli_epi32(biased.1, 23)),
            )
        }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_set1_epi32(x), _mm256_set1_epi32(x)) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            let (low, high) = (_mm_loadl_epi64(p.cast()), _mm_loadl_epi64(p.add(8).cast()));
            Pair(_mm256_cvtepu8_epi32(low), _mm256_cvtepu8_epi32(high))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            let (low, high) = (_mm_loadl_epi64(p.cast()), _mm_loadl_epi64(p.add(8).cast()));
            Pair(_mm256_cvtepi8_epi32(low), _mm256_cvtepi8_epi32(high))
        }
    }
    #[inline(always)]
    unsafe fn and_i(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_and_si256, x, y) }
    }
    #[inline(always)]
    unsafe fn max_i(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_max_epi32, x, y) }
    }
    #[inline(always)]
    unsafe fn min_i(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_min_epi32, x, y) }
    }
    #[inline(always)]
    unsafe fn shift_left<const BY: i32>(x: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_slli_epi32(x.0, BY), _mm256_slli_epi32(x.1, BY)) }
    }
    #[inline(always)]
    unsafe fn shift_right<const BY: i32>(x: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_srli_epi32(x.0, BY), _mm256_srli_epi32(x.1, BY)) }
    }
    #[inline(always)]
    unsafe fn cast(x: Self::I) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_castsi256_ps, x) }
    }
    #[inline(always)]
    unsafe fn add_i(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_add_epi32, x, y) }
    }
    #[inline(always)]
    unsafe fn sum_i(x: Self::I) -> i32 {
        // SAFETY: the trait's contract.
        unsafe {
            let eight = _mm256_add_epi32(x.0, x.1);
            let four =
                _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0b1110));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: Self::I) {
        // SAFETY: the trait's contract.
        unsafe {
            // packs works within 128-bit halves: 0-3, 8-11 | 4-7, 12-15; the permutation mends it.
            let words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.0, x.1), 0b1101_1000);
            let low = _mm256_castsi256_si128(words);
            let bytes = _mm_packs_epi16(low, _mm256_extracti128_si256(words, 1));
            _mm_storeu_si128(p.cast(), bytes);
        }
    }
}

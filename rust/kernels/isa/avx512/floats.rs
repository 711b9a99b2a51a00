//! Vectors of floats and integers with AVX-512.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Avx512, BF16};
use crate::kernels::isa::floats::Isa;

/// `vdpbf16ps`. Assembly, so that entry points need not enable its feature.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn add_pairs(mut acc: __m512, weights: __m512, x: *const f32) -> __m512 {
    // SAFETY: the caller's promise; four bytes are read.
    unsafe {
        asm!(
            "vdpbf16ps {acc}, {weights}, dword ptr [{x}]{{1to16}}",
            acc = inout(zmm_reg) acc, weights = in(zmm_reg) weights, x = in(reg) x,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    acc
}

// SAFETY: every method is inlined into an entry point with these features enabled.
unsafe impl<const KIND: u8> Isa for Avx512<KIND> {
    type F = __m512;
    type I = __m512i;
    const TILE_F32: usize = 8;
    const PAIRS: bool = KIND >= BF16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn add(x: __m512, y: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn sub(x: __m512, y: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sub_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn mul(x: __m512, y: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mul_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn div(x: __m512, y: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_div_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn fma(x: __m512, y: __m512, z: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_fmadd_ps(x, y, z) }
    }
    #[inline(always)]
    unsafe fn max(x: __m512, y: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_max_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn min(x: __m512, y: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_min_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn abs(x: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_abs_ps(x) }
    }
    #[inline(always)]
    unsafe fn pair(first: *const u16, second: *const u16) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe {
            let high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(first.cast()));
            let low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(second.cast()));
            _mm512_castsi512_ps(_mm512_or_si512(_mm512_slli_epi32(high, 16), low))
        }
    }
    #[inline(always)]
    unsafe fn add_pairs(acc: __m512, weights: __m512, x: *const f32) -> __m512 {
        // SAFETY: the trait's contract; the CPU has AVX512-BF16 if `PAIRS` is true.
        unsafe { add_pairs(acc, weights, x) }
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        // SAFETY: the trait's contract. Not `_mm512_reduce_add_ps`: its order is not promised.
        unsafe {
            let low = _mm512_castps512_ps256(x);
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1));
            let eight = _mm256_add_ps(low, high);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn largest(x: __m512) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_max_ps(x) }
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512i {
        // SAFETY: the trait's contract; the rounding mode is the default, to nearest even.
        unsafe { _mm512_cvtps_epi32(x) }
    }
    #[inline(always)]
    unsafe fn float(x: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn pow2(x: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe {
            let biased = _mm512_add_epi32(x, _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))
        }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn and_i(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_and_si512(x, y) }
    }
    #[inline(always)]
    unsafe fn max_i(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_max_epi32(x, y) }
    }
    #[inline(always)]
    unsafe fn min_i(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_min_epi32(x, y) }
    }
    #[inline(always)]
    unsafe fn shift_left<const BY: i32>(x: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sll_epi32(x, _mm_cvtsi32_si128(BY)) }
    }
    #[inline(always)]
    unsafe fn shift_right<const BY: i32>(x: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_srl_epi32(x, _mm_cvtsi32_si128(BY)) }
    }
    #[inline(always)]
    unsafe fn cast(x: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_castsi512_ps(x) }
    }
    #[inline(always)]
    unsafe fn add_i(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_epi32(x, y) }
    }
    #[inline(always)]
    unsafe fn sum_i(x: __m512i) -> i32 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_add_epi32(x) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: __m512i) {
        // SAFETY: the trait's contract.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(x)) }
    }
}

//! Vectors of codes and their int8 products with AVX-512 VNNI: one instruction a step.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Avx512;
use crate::kernels::isa::bytes::{ANY, Bytes};

/// Emits no instruction, but keeps the compiler from moving work on `sums` past it.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn settle(mut sums: __m512i) -> __m512i {
    // SAFETY: it does nothing.
    unsafe {
        asm!("/* {0} */", inout(zmm_reg) sums, options(nomem, nostack, preserves_flags));
    }
    sums
}

// SAFETY: every method is inlined into an entry point with these features enabled.
unsafe impl<const KIND: u8> Bytes for Avx512<KIND> {
    type B = __m512i;
    type W = __m512i;
    const ROOM: [usize; 5] = [ANY; 5];
    const CENTER: i32 = 0;
    const TILE: [usize; 5] = [8; 5];
    const FEW: [usize; 5] = [4; 5];

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, x: __m512i) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
    #[inline(always)]
    unsafe fn field(x: __m512i, shift: u32, bits: u32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let mask = _mm512_set1_epi8((0xffu8 >> (8 - bits)) as i8);
            _mm512_and_si512(_mm512_srl_epi16(x, _mm_cvtsi32_si128(shift as i32)), mask)
        }
    }
    #[inline(always)]
    unsafe fn raise(x: __m512i, shift: u32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sll_epi16(x, _mm_cvtsi32_si128(shift as i32)) }
    }
    #[inline(always)]
    unsafe fn or(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_or_si512(x, y) }
    }
    #[inline(always)]
    unsafe fn code(x: __m512i, element: u32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe {
            let shifted = _mm512_srl_epi32(x, _mm_cvtsi32_si128(8 * element as i32));
            _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(0xff)))
        }
    }
    #[inline(always)]
    unsafe fn look_up(x: __m512i, levels: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(levels.cast())), x) }
    }
    #[inline(always)]
    unsafe fn no_sums() -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn accumulate<const BITS: usize>(sums: __m512i, q: __m512i, acts: *const i8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let a = _mm512_set1_epi32(acts.cast::<i32>().read_unaligned());
            _mm512_dpbusd_epi32(sums, q, a)
        }
    }
    #[inline(always)]
    unsafe fn settle(sums: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { settle(sums) }
    }
    #[inline(always)]
    unsafe fn fold(x: __m512i, sums: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_epi32(x, sums) }
    }
    #[inline(always)]
    unsafe fn factor(x: __m512i) -> __m512i {
        x
    }
    #[inline(always)]
    unsafe fn fold_by(x: __m512i, sums: __m512i, by: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_epi32(x, _mm512_mullo_epi32(sums, by)) }
    }
    #[inline(always)]
    unsafe fn dot_pairs(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_dpwssd_epi32(x, y, z) }
    }
    #[inline(always)]
    unsafe fn words(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut i32, x: __m512i) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
}

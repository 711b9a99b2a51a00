//! Code-book lookups with AVX-512: signs are masks.
//!
//! Without VBMI, points are loaded as with AVX2, because gathers are slower.

use std::arch::asm;
use std::arch::x86_64::*;

use super::look_up_vbmi as vbmi;
use super::{Avx512, VBMI};
use crate::kernels::isa::avx2::look_up::{eight, eight_of_four};
use crate::kernels::isa::look_up::{Book, LookUp, signed_points, stage, stage_halves};
use crate::kernels::shape::LANES;

/// 3 x of each byte. Assembly, because the compiler would merge several of these in a row into one
/// multiplication, and AVX-512 has none of bytes.
#[target_feature(enable = "avx512bw")]
#[inline]
unsafe fn triple(mut x: __m512i) -> __m512i {
    // SAFETY: the caller's CPU has AVX-512 BW.
    unsafe {
        asm!(
            "vpaddb {twice}, {x}, {x}",
            "vpaddb {x}, {x}, {twice}",
            x = inout(zmm_reg) x,
            twice = out(zmm_reg) _,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    x
}

#[inline(always)]
unsafe fn join(low: __m256i, high: __m256i) -> __m512i {
    // SAFETY: the caller's CPU has AVX-512 F.
    unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high) }
}

// SAFETY: every method is inlined into an entry point with these features enabled.
unsafe impl<const KIND: u8> LookUp for Avx512<KIND> {
    #[inline(always)]
    unsafe fn bits(x: __m512i, shift: u32, count: u32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let shifted = _mm512_srl_epi32(x, _mm_cvtsi32_si128(shift as i32));
            _mm512_and_si512(shifted, _mm512_set1_epi32(((1u32 << count) - 1) as i32))
        }
    }
    #[inline(always)]
    unsafe fn xor(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_xor_si512(x, y) }
    }
    #[inline(always)]
    unsafe fn spread(x: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let low = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
            _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(low))
        }
    }
    #[inline(always)]
    unsafe fn add_bytes(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_epi8(x, y) }
    }
    #[inline(always)]
    unsafe fn signed(magnitudes: __m512i, signs: __m512i, first: u32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let bit = if first == 0 { 0x0804_0201 } else { 0x8040_2010u32 as i32 };
            let negative = _mm512_test_epi8_mask(signs, _mm512_set1_epi32(bit));
            let middle = _mm512_set1_epi8(64);
            let value = _mm512_add_epi8(middle, magnitudes);
            _mm512_mask_sub_epi8(value, negative, middle, magnitudes)
        }
    }
    #[inline(always)]
    unsafe fn stage(book: Book, low: __m512i, high: __m512i, fields: [u32; 2], staged: *mut i32) {
        // SAFETY: the trait's contract.
        unsafe {
            // For 2048 points (IQ1, which has no signs) loads are faster.
            if KIND >= VBMI && fields[1] < 3 {
                vbmi::stage(book, low, high, fields, staged);
            } else {
                stage::<Self>(low, high, fields, staged);
            }
        }
    }
    #[inline(always)]
    unsafe fn stage_halves(book: Book, words: [__m512i; 2], staged: *mut i32) {
        // SAFETY: the trait's contract.
        unsafe {
            if KIND >= VBMI {
                vbmi::stage_halves(book, words, staged);
            } else {
                stage_halves::<Self>(words, staged);
            }
        }
    }
    #[inline(always)]
    unsafe fn points(book: Book, staged: *const i32, l: usize) -> [__m512i; 2] {
        // SAFETY: the trait's contract.
        unsafe {
            let (book, indices) = (book.eight.as_ptr(), staged.add(l * LANES));
            let (low, high) = (eight(book, indices), eight(book, indices.add(8)));
            [join(low.0, high.0), join(low.1, high.1)]
        }
    }
    #[inline(always)]
    unsafe fn points_of_four(book: Book, staged: *const i32, l: usize) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let (book, indices) = (book.four.as_ptr(), staged.add(l * LANES));
            join(eight_of_four(book, indices), eight_of_four(book, indices.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn signed_points<const FOUR: bool>(
        book: Book,
        staged: *const i32,
        l: usize,
        signs: __m512i,
    ) -> [__m512i; 2] {
        // SAFETY: the trait's contract.
        unsafe {
            if KIND >= VBMI {
                vbmi::signed_points::<FOUR>(book, staged, l, signs)
            } else {
                signed_points::<Self, FOUR>(book, staged, l, signs)
            }
        }
    }
    #[inline(always)]
    unsafe fn triple(x: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { triple(x) }
    }
    #[inline(always)]
    unsafe fn trit(x: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let one = _mm512_cmpge_epu8_mask(x, _mm512_set1_epi8(86));
            let two = _mm512_cmpge_epu8_mask(x, _mm512_set1_epi8(171u8 as i8));
            let trits = _mm512_maskz_set1_epi8(one, 1);
            _mm512_mask_add_epi8(trits, two, trits, _mm512_set1_epi8(1))
        }
    }
}

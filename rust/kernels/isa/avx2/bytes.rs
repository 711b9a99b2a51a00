//! Vectors of codes and their int8 products with AVX2, and with AVX-VNNI.
//!
//! AVX2 has no dot product of bytes. Codes of up to 7 bits are multiplied by `vpmaddubsw`, and the products
//! are summed in 16 bits for as many steps as cannot overflow, then widened. Codes of 8 bits would overflow:
//! they are centered, and the sign moves from the code to the activation. AVX-VNNI has a dot product,
//! `vpdpbusd`. It is written as assembly, so that the functions of both have the same target features, and the
//! compiler uses the instruction nowhere else.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Avx2, PLAIN, Pair, both};
use crate::kernels::isa::bytes::{ANY, Bytes};
use crate::kernels::isa::floats::Isa;

/// Number of steps whose products fit sums of 16 bits: the 4 products of a step make two sums of
/// pairs, each at most 2 (2^BITS - 1) 127.
const fn room(bits: usize) -> usize {
    32767 / (2 * ((1 << bits) - 1) * 127)
}

/// sums + the products of eight rows' codes with four activations.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn dot(mut sums: __m256i, q: __m256i, a: __m256i) -> __m256i {
    // SAFETY: the caller's CPU has AVX-VNNI.
    unsafe {
        asm!(
            "{{vex}} vpdpbusd {sums}, {q}, {a}",
            sums = inlateout(ymm_reg) sums,
            q = in(ymm_reg) q,
            a = in(ymm_reg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Emits no instruction, but keeps the compiler from moving work on `sums` past it.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn settle(mut sums: __m256i) -> __m256i {
    // SAFETY: it does nothing.
    unsafe {
        asm!("/* {0} */", inout(ymm_reg) sums, options(nomem, nostack, preserves_flags));
    }
    sums
}

// SAFETY: every method is inlined into an entry point with these features enabled.
unsafe impl<const KIND: u8> Bytes for Avx2<KIND> {
    type B = Pair<__m256i>;
    /// 16-bit sums, with VNNI 32-bit sums.
    type W = Pair<__m256i>;
    const ROOM: [usize; 5] =
        if KIND != PLAIN { [ANY; 5] } else { [room(4), room(5), room(6), room(7), 1] };
    const CENTER: i32 = if KIND != PLAIN { 0 } else { 128 };
    const TILE: [usize; 5] = if KIND != PLAIN { [4; 5] } else { [4, 4, 2, 4, 4] };
    const FEW: [usize; 5] = Self::TILE;
    const PASSES: [usize; 5] = if KIND != PLAIN { [1; 5] } else { [4, 2, 1, 1, 1] };

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())) }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, x: Self::B) {
        // SAFETY: the trait's contract.
        unsafe {
            _mm256_storeu_si256(p.cast(), x.0);
            _mm256_storeu_si256(p.add(32).cast(), x.1);
        }
    }
    #[inline(always)]
    unsafe fn field(x: Self::B, shift: u32, bits: u32) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            let count = _mm_cvtsi32_si128(shift as i32);
            let mask = _mm256_set1_epi8((0xffu8 >> (8 - bits)) as i8);
            Pair(
                _mm256_and_si256(_mm256_srl_epi16(x.0, count), mask),
                _mm256_and_si256(_mm256_srl_epi16(x.1, count), mask),
            )
        }
    }
    #[inline(always)]
    unsafe fn raise(x: Self::B, shift: u32) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            let count = _mm_cvtsi32_si128(shift as i32);
            Pair(_mm256_sll_epi16(x.0, count), _mm256_sll_epi16(x.1, count))
        }
    }
    #[inline(always)]
    unsafe fn or(x: Self::B, y: Self::B) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { both!(_mm256_or_si256, x, y) }
    }
    #[inline(always)]
    unsafe fn code(x: Self::B, element: u32) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe {
            let count = _mm_cvtsi32_si128(8 * element as i32);
            let mask = _mm256_set1_epi32(0xff);
            Self::float(Pair(
                _mm256_and_si256(_mm256_srl_epi32(x.0, count), mask),
                _mm256_and_si256(_mm256_srl_epi32(x.1, count), mask),
            ))
        }
    }
    #[inline(always)]
    unsafe fn look_up(x: Self::B, levels: *const u8) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(levels.cast()));
            Pair(_mm256_shuffle_epi8(table, x.0), _mm256_shuffle_epi8(table, x.1))
        }
    }
    #[inline(always)]
    unsafe fn no_sums() -> Self::W {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }
    #[inline(always)]
    unsafe fn accumulate<const BITS: usize>(sums: Self::W, q: Self::B, acts: *const i8) -> Self::W {
        // SAFETY: the trait's contract.
        unsafe {
            let a = _mm256_set1_epi32(acts.cast::<i32>().read_unaligned());
            if KIND != PLAIN {
                return Pair(dot(sums.0, q.0, a), dot(sums.1, q.1, a));
            }
            let words = if BITS == 8 {
                // |code - 128| x (activation with its sign): at most 2 x 128 x 127.
                let center = _mm256_set1_epi8(-128);
                let s = Pair(_mm256_xor_si256(q.0, center), _mm256_xor_si256(q.1, center));
                Pair(
                    _mm256_maddubs_epi16(_mm256_abs_epi8(s.0), _mm256_sign_epi8(a, s.0)),
                    _mm256_maddubs_epi16(_mm256_abs_epi8(s.1), _mm256_sign_epi8(a, s.1)),
                )
            } else {
                Pair(_mm256_maddubs_epi16(q.0, a), _mm256_maddubs_epi16(q.1, a))
            };
            both!(_mm256_add_epi16, sums, words)
        }
    }
    #[inline(always)]
    unsafe fn settle(sums: Self::W) -> Self::W {
        // SAFETY: the trait's contract.
        unsafe { both!(settle, sums) }
    }
    #[inline(always)]
    unsafe fn fold(x: Self::I, sums: Self::W) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            if KIND != PLAIN {
                return both!(_mm256_add_epi32, x, sums);
            }
            let ones = _mm256_set1_epi16(1);
            Pair(
                _mm256_add_epi32(x.0, _mm256_madd_epi16(sums.0, ones)),
                _mm256_add_epi32(x.1, _mm256_madd_epi16(sums.1, ones)),
            )
        }
    }
    #[inline(always)]
    unsafe fn factor(x: Self::I) -> Self::I {
        // The number in both halves, whatever the kind: `PLAIN` unpacks for all kinds.
        // SAFETY: the trait's contract.
        unsafe {
            let low = Self::and_i(x, Self::splat_i(0xffff));
            both!(_mm256_or_si256, low, Self::shift_left::<16>(x))
        }
    }
    #[inline(always)]
    unsafe fn fold_by(x: Self::I, sums: Self::W, by: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            if KIND != PLAIN {
                let once = Pair(_mm256_srai_epi32::<16>(by.0), _mm256_srai_epi32::<16>(by.1));
                let products = both!(_mm256_mullo_epi32, sums, once);
                return both!(_mm256_add_epi32, x, products);
            }
            Self::dot_pairs(x, sums, by)
        }
    }
    #[inline(always)]
    unsafe fn dot_pairs(x: Self::I, y: Self::I, z: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            let products = both!(_mm256_madd_epi16, y, z);
            both!(_mm256_add_epi32, x, products)
        }
    }
    #[inline(always)]
    unsafe fn words(p: *const u8) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())) }
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut i32, x: Self::I) {
        // SAFETY: the trait's contract.
        unsafe {
            _mm256_storeu_si256(p.cast(), x.0);
            _mm256_storeu_si256(p.add(8).cast(), x.1);
        }
    }
}

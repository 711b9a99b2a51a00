//! The vocabulary for AVX2 with FMA and F16C: two registers a vector.
//!
//! There is no byte dot product in AVX2. Codes of up to 7 bits go through `vpmaddubsw`, and as many
//! steps as cannot overflow are summed in 16 bits before they are widened. Codes of 8 bits would
//! overflow there: they are centred, and the sign moves from the code to the activation.
//! AVX-VNNI has one, `vpdpbusd`, written as assembly: so the functions of both have the same features,
//! and the compiler takes the instruction nowhere else.

use std::arch::asm;
use std::arch::x86_64::*;

use super::isa::{Isa, own_functions};
use super::linear::Product;
use super::look_up::LookUp;
use super::packed::Packed;
use super::scales::Source;
use super::shares::Shares;
use super::span::Span;
use crate::formats::{Codes, Format};

/// AVX2, FMA and F16C, with AVX-VNNI or without.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>;

#[derive(Clone, Copy)]
pub struct Pair<V>(pub V, pub V);

macro_rules! both {
    ($f:ident, $x:expr) => {
        Pair($f($x.0), $f($x.1))
    };
    ($f:ident, $x:expr, $y:expr) => {
        Pair($f($x.0, $y.0), $f($x.1, $y.1))
    };
    ($f:ident, $x:expr, $y:expr, $z:expr) => {
        Pair($f($x.0, $y.0, $z.0), $f($x.1, $y.1, $z.1))
    };
}

/// How many steps of code x activation sums fit 16 bits: 4 elements make two pair sums,
/// each at most 2 (2^BITS - 1) 127.
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

/// No instruction, but the compiler may not move the work on `sums` past it.
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
unsafe impl<const VNNI: bool> Isa for Avx2<VNNI> {
    type F = Pair<__m256>;
    type I = Pair<__m256i>;
    type B = Pair<__m256i>;
    /// 16-bit sums, with VNNI 32-bit sums.
    type W = Pair<__m256i>;
    const ROOM: [usize; 5] = if VNNI { [8; 5] } else { [room(4), room(5), room(6), room(7), 1] };
    const CENTER: i32 = if VNNI { 0 } else { 128 };
    const TILE: [usize; 5] = [4, 4, 2, 4, 4];
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
            if VNNI {
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
            if VNNI {
                return both!(_mm256_add_epi32, x, sums);
            }
            let ones = _mm256_set1_epi16(1);
            Pair(
                _mm256_add_epi32(x.0, _mm256_madd_epi16(sums.0, ones)),
                _mm256_add_epi32(x.1, _mm256_madd_epi16(sums.1, ones)),
            )
        }
    }
    own_functions!(#[target_feature(enable = "avx2,fma,f16c")]);
}

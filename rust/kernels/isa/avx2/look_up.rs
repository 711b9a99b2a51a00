//! Code-book lookups with AVX2: points are loaded pair by pair.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Avx2, Pair};
use crate::kernels::isa::look_up::{Book, LookUp};
use crate::kernels::shape::LANES;

/// Points of two rows.
#[inline(always)]
unsafe fn two(book: *const u64, index: *const i32) -> __m128d {
    // SAFETY: the indices are within the book.
    unsafe {
        let first = _mm_loadl_epi64(book.add(*index as usize).cast());
        _mm_loadh_pd(_mm_castsi128_pd(first), book.add(*index.add(1) as usize).cast())
    }
}

/// Points of eight rows: their first halves, and their second halves.
///
/// # Safety
///
/// Eight indices are readable and lie within the book.
#[inline(always)]
pub(crate) unsafe fn eight(book: *const u64, index: *const i32) -> (__m256i, __m256i) {
    // SAFETY: the indices are within the book.
    unsafe {
        // Rows 0 1 4 5 and 2 3 6 7, because the shuffle stays within halves.
        let (a, b) = (two(book, index), two(book, index.add(2)));
        let (c, d) = (two(book, index.add(4)), two(book, index.add(6)));
        let one = _mm256_castpd_ps(_mm256_set_m128d(c, a));
        let other = _mm256_castpd_ps(_mm256_set_m128d(d, b));
        let low = _mm256_shuffle_ps(one, other, 0b10_00_10_00);
        let high = _mm256_shuffle_ps(one, other, 0b11_01_11_01);
        (_mm256_castps_si256(low), _mm256_castps_si256(high))
    }
}

/// Points of four bytes of eight rows.
///
/// # Safety
///
/// As `eight`.
#[inline(always)]
pub(crate) unsafe fn eight_of_four(book: *const u32, index: *const i32) -> __m256i {
    // SAFETY: the indices are within the book.
    unsafe {
        let mut points = [0; 8];
        for (row, point) in points.iter_mut().enumerate() {
            *point = *book.add(*index.add(row) as usize) as i32;
        }
        let [a, b, c, d, e, f, g, h] = points;
        _mm256_setr_epi32(a, b, c, d, e, f, g, h)
    }
}

/// 3 x of each byte. Assembly, because the compiler would merge several of these in a row into one
/// multiplication, and AVX2 has none of bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn triple(mut x: __m256i) -> __m256i {
    // SAFETY: the caller's CPU has AVX2.
    unsafe {
        asm!(
            "vpaddb {twice}, {x}, {x}",
            "vpaddb {x}, {x}, {twice}",
            x = inout(ymm_reg) x,
            twice = out(ymm_reg) _,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    x
}

#[inline(always)]
unsafe fn trit(x: __m256i) -> __m256i {
    // SAFETY: the trait's contract.
    unsafe {
        // -1 for each of the two bounds that x reaches.
        let (one, two) = (_mm256_set1_epi8(86), _mm256_set1_epi8(171u8 as i8));
        let one = _mm256_cmpeq_epi8(_mm256_max_epu8(x, one), x);
        let two = _mm256_cmpeq_epi8(_mm256_max_epu8(x, two), x);
        _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(one, two))
    }
}

#[inline(always)]
unsafe fn signed(magnitudes: __m256i, signs: __m256i, first: u32) -> __m256i {
    // SAFETY: the trait's contract.
    unsafe {
        let bit = _mm256_set1_epi32(if first == 0 { 0x0804_0201 } else { 0x8040_2010u32 as i32 });
        let mask = _mm256_cmpeq_epi8(_mm256_and_si256(signs, bit), bit);
        let value = _mm256_sub_epi8(_mm256_xor_si256(magnitudes, mask), mask);
        _mm256_add_epi8(value, _mm256_set1_epi8(64))
    }
}

// SAFETY: every method is inlined into an entry point with these features enabled.
unsafe impl<const KIND: u8> LookUp for Avx2<KIND> {
    #[inline(always)]
    unsafe fn bits(x: Self::I, shift: u32, count: u32) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            let by = _mm_cvtsi32_si128(shift as i32);
            let mask = _mm256_set1_epi32(((1u32 << count) - 1) as i32);
            Pair(
                _mm256_and_si256(_mm256_srl_epi32(x.0, by), mask),
                _mm256_and_si256(_mm256_srl_epi32(x.1, by), mask),
            )
        }
    }
    #[inline(always)]
    unsafe fn xor(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_xor_si256(x.0, y.0), _mm256_xor_si256(x.1, y.1)) }
    }
    #[inline(always)]
    unsafe fn spread(x: Self::I) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            let low = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
            let low = _mm256_broadcastsi128_si256(low);
            Pair(_mm256_shuffle_epi8(x.0, low), _mm256_shuffle_epi8(x.1, low))
        }
    }
    #[inline(always)]
    unsafe fn add_bytes(x: Self::B, y: Self::B) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { Pair(_mm256_add_epi8(x.0, y.0), _mm256_add_epi8(x.1, y.1)) }
    }
    #[inline(always)]
    unsafe fn signed(magnitudes: Self::B, signs: Self::B, first: u32) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { Pair(signed(magnitudes.0, signs.0, first), signed(magnitudes.1, signs.1, first)) }
    }
    #[inline(always)]
    unsafe fn points(book: Book, staged: *const i32, l: usize) -> [Self::B; 2] {
        // SAFETY: the trait's contract.
        unsafe {
            let (book, indices) = (book.eight.as_ptr(), staged.add(l * LANES));
            let (low, high) = (eight(book, indices), eight(book, indices.add(8)));
            [Pair(low.0, high.0), Pair(low.1, high.1)]
        }
    }
    #[inline(always)]
    unsafe fn points_of_four(book: Book, staged: *const i32, l: usize) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            let (book, indices) = (book.four.as_ptr(), staged.add(l * LANES));
            Pair(eight_of_four(book, indices), eight_of_four(book, indices.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn triple(x: Self::B) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { Pair(triple(x.0), triple(x.1)) }
    }
    #[inline(always)]
    unsafe fn trit(x: Self::B) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { Pair(trit(x.0), trit(x.1)) }
    }
}

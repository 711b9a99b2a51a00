//! Code-book lookups with AVX-512 VBMI: 64 indices at once, in a book's two planes of bytes.
//!
//! `isa/book_planes.rs` describes the planes; one instruction spreads the bits of a point to bytes. The
//! instructions are written as assembly, so that entry points need not enable their feature.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::kernels::isa::look_up::Book;

/// Bytes of a table of two registers by the low seven bits of `indices`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn permute(mut indices: __m512i, table: *const u8) -> __m512i {
    // SAFETY: 128 bytes are readable at `table`, the caller's CPU has VBMI.
    unsafe {
        asm!(
            "vpermi2b {indices}, {low}, {high}",
            indices = inout(zmm_reg) indices,
            low = in(zmm_reg) _mm512_loadu_si512(table.cast()),
            high = in(zmm_reg) _mm512_loadu_si512(table.add(64).cast()),
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    indices
}

/// Bytes of a table of one register by the low six bits of `indices`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn permute_one(indices: __m512i, table: __m512i) -> __m512i {
    let out: __m512i;
    // SAFETY: the caller's CPU has VBMI.
    unsafe {
        asm!(
            "vpermb {out}, {indices}, {table}",
            out = lateout(zmm_reg) out,
            indices = in(zmm_reg) indices,
            table = in(zmm_reg) table,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    out
}

/// For each byte, eight bits of the 64-bit lane of `x` that holds it, from the bit in `fields` up.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn shifted(x: __m512i, fields: i64) -> __m512i {
    let out: __m512i;
    // SAFETY: the caller's CPU has VBMI.
    unsafe {
        asm!(
            "vpmultishiftqb {out}, {fields}, {x}",
            out = lateout(zmm_reg) out,
            fields = in(zmm_reg) _mm512_set1_epi64(fields),
            x = in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    out
}

/// `fields` for `shifted`, for two rows: the bit of a row at which each of its four bytes begins.
const fn fields(at: [u32; 4]) -> i64 {
    let row = at[0] | at[1] << 8 | at[2] << 16 | at[3] << 24;
    (row as i64) | ((row + 0x2020_2020) as i64) << 32
}

/// `fields` for `shifted`: four signs of a row's low byte, from `first` on, moved to bit 5.
const fn signs(first: i64) -> i64 {
    let mut out = 0;
    let mut i = 0;
    while i < 8 {
        out |= ((32 * (i / 4) + first + i % 4 + 64 - 5) % 64) << (8 * i);
        i += 1;
    }
    out
}

/// Levels of two bits of point l of four.
static TWO_BITS: [i64; 4] = [
    fields([0, 2, 4, 6]),
    fields([8, 10, 12, 14]),
    fields([16, 18, 20, 22]),
    fields([24, 26, 28, 30]),
];
/// Levels of four bits of point l of four: each plane has half of them.
static FOUR_BITS: [i64; 4] = [
    fields([0, 4, 0, 4]),
    fields([8, 12, 8, 12]),
    fields([16, 20, 16, 20]),
    fields([24, 28, 24, 28]),
];

/// The first four signs of a row's low byte, and its last four, in bit 5; the bits below are meaningless.
static SIGNS: [i64; 2] = [signs(0), signs(4)];

/// Bytes of a table of 2, 4 or 8 times 128 bytes, by the low seven bits of `indices` and the higher bits in
/// `bits`.
#[inline(always)]
unsafe fn look_up(
    table: *const u8,
    pieces: usize,
    indices: __m512i,
    bits: [__mmask64; 3],
) -> __m512i {
    #[inline(always)]
    unsafe fn two(table: *const u8, indices: __m512i, bits: [__mmask64; 3]) -> __m512i {
        // SAFETY: the contract of `look_up`.
        unsafe {
            let (low, high) = (permute(indices, table), permute(indices, table.add(128)));
            _mm512_mask_blend_epi8(bits[0], low, high)
        }
    }
    #[inline(always)]
    unsafe fn four(table: *const u8, indices: __m512i, bits: [__mmask64; 3]) -> __m512i {
        // SAFETY: the contract of `look_up`.
        unsafe {
            let (low, high) = (two(table, indices, bits), two(table.add(256), indices, bits));
            _mm512_mask_blend_epi8(bits[1], low, high)
        }
    }
    // SAFETY: the caller's CPU has AVX-512 BW and VBMI, the table is as long as it says.
    unsafe {
        match pieces {
            2 => two(table, indices, bits),
            4 => four(table, indices, bits),
            _ => {
                let (low, high) = (four(table, indices, bits), four(table.add(512), indices, bits));
                _mm512_mask_blend_epi8(bits[2], low, high)
            }
        }
    }
}

/// `LookUp::stage` for `signed_points`: both planes' bytes of four points of each row.
#[inline(always)]
pub unsafe fn stage(
    book: Book,
    low: __m512i,
    high: __m512i,
    [distance, count]: [u32; 2],
    staged: *mut i32,
) {
    // SAFETY: the trait's contract.
    unsafe {
        let mut bits = [_mm512_movepi8_mask(low); 3];
        let above = shifted(high, fields([0, distance, 2 * distance, 3 * distance]));
        for bit in 0..count {
            let test = _mm512_set1_epi8(1 << bit);
            bits[bit as usize + 1] = _mm512_test_epi8_mask(above, test);
        }
        let pieces = 2 << count;
        for plane in 0..2 {
            let table = book.planes.as_ptr().add(128 * pieces * plane);
            let points = look_up(table, pieces, low, bits);
            _mm512_storeu_si512(staged.add(16 * plane).cast(), points);
        }
    }
}

/// `LookUp::stage_halves`.
#[inline(always)]
pub unsafe fn stage_halves(book: Book, [first, second]: [__m512i; 2], staged: *mut i32) {
    // SAFETY: the trait's contract.
    unsafe {
        // Bytes 0 and 2 of each word, those of `first` in the lower half; then bytes 1 and 3.
        let lower = _mm_setr_epi8(0, 2, -1, -1, 4, 6, -1, -1, 8, 10, -1, -1, 12, 14, -1, -1);
        let upper = _mm_setr_epi8(-1, -1, 0, 2, -1, -1, 4, 6, -1, -1, 8, 10, -1, -1, 12, 14);
        let (lower, upper) = (_mm512_broadcast_i32x4(lower), _mm512_broadcast_i32x4(upper));
        let low =
            _mm512_or_si512(_mm512_shuffle_epi8(first, lower), _mm512_shuffle_epi8(second, upper));
        let (first, second) = (_mm512_srli_epi16(first, 8), _mm512_srli_epi16(second, 8));
        let high =
            _mm512_or_si512(_mm512_shuffle_epi8(first, lower), _mm512_shuffle_epi8(second, upper));
        stage(book, low, high, [8, 1], staged);
    }
}

/// The levels of point `l` of four elements; the bits above them are meaningless.
#[inline(always)]
unsafe fn of_four(staged: *const i32, l: usize) -> __m512i {
    // SAFETY: the trait's contract.
    unsafe {
        let (low, high) = planes(staged);
        let (low, high) = (shifted(low, FOUR_BITS[l]), shifted(high, FOUR_BITS[l]));
        _mm512_mask_blend_epi16(0xaaaa_aaaa, low, high)
    }
}

/// `LookUp::signed_points`: levels and signs are looked up together in one table.
#[inline(always)]
pub unsafe fn signed_points<const FOUR: bool>(
    book: Book,
    staged: *const i32,
    l: usize,
    signs: __m512i,
) -> [__m512i; 2] {
    // SAFETY: the trait's contract.
    unsafe {
        let levels = if FOUR {
            [of_four(staged, l), of_four(staged, l + 1)]
        } else {
            let (low, high) = planes(staged);
            [shifted(low, TWO_BITS[l]), shifted(high, TWO_BITS[l])]
        };
        let table = _mm512_loadu_si512(book.planes.signed().cast());
        let sign = _mm512_set1_epi8(32);
        let mut codes = levels;
        for (half, codes) in codes.iter_mut().enumerate() {
            // Bit 5 comes from the signs, the others from the levels.
            let signs = shifted(signs, SIGNS[half]);
            *codes = permute_one(_mm512_ternarylogic_epi32(sign, signs, *codes, 0xca), table);
        }
        codes
    }
}

#[inline(always)]
unsafe fn planes(staged: *const i32) -> (__m512i, __m512i) {
    // SAFETY: `stage` wrote both.
    unsafe { (_mm512_loadu_si512(staged.cast()), _mm512_loadu_si512(staged.add(16).cast())) }
}

//! Code-book lookups with NEON: points are copied to the stack, where one load separates their halves.

use std::arch::aarch64::*;

use super::{Neon, Quad};
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::look_up::{Book, LookUp};
use crate::kernels::shape::LANES;

#[inline(always)]
unsafe fn signed(magnitudes: uint8x16_t, signs: uint8x16_t, first: u32) -> uint8x16_t {
    // SAFETY: the trait's contract.
    unsafe {
        let bit = vdupq_n_u32(if first == 0 { 0x0804_0201 } else { 0x8040_2010 });
        let negative = vtstq_u8(signs, vreinterpretq_u8_u32(bit));
        let middle = vdupq_n_u8(64);
        vbslq_u8(negative, vsubq_u8(middle, magnitudes), vaddq_u8(middle, magnitudes))
    }
}

#[inline(always)]
unsafe fn trit(x: uint8x16_t) -> uint8x16_t {
    // SAFETY: the trait's contract.
    unsafe {
        let minus = vaddq_u8(vcgeq_u8(x, vdupq_n_u8(86)), vcgeq_u8(x, vdupq_n_u8(171)));
        vsubq_u8(vdupq_n_u8(0), minus)
    }
}

#[inline(always)]
unsafe fn field(x: int32x4_t, by: int32x4_t, mask: uint32x4_t) -> int32x4_t {
    // SAFETY: the trait's contract.
    unsafe {
        let shifted = vshlq_u32(vreinterpretq_u32_s32(x), by);
        vreinterpretq_s32_u32(vandq_u32(shifted, mask))
    }
}

/// A function of each register; further arguments are the same for all four.
macro_rules! each {
    ($f:ident, $x:expr $(, $same:ident)*) => {
        Quad($f($x.0 $(, $same)*), $f($x.1 $(, $same)*), $f($x.2 $(, $same)*), $f($x.3 $(, $same)*))
    };
}

macro_rules! both {
    ($f:ident, $x:expr, $y:expr) => {
        Quad($f($x.0, $y.0), $f($x.1, $y.1), $f($x.2, $y.2), $f($x.3, $y.3))
    };
}

// SAFETY: as that of `Isa`.
unsafe impl<const KIND: u8> LookUp for Neon<KIND> {
    #[inline(always)]
    unsafe fn bits(x: Self::I, shift: u32, count: u32) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            let (by, mask) = (vdupq_n_s32(-(shift as i32)), vdupq_n_u32((1 << count) - 1));
            each!(field, x, by, mask)
        }
    }
    #[inline(always)]
    unsafe fn xor(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { both!(veorq_s32, x, y) }
    }
    #[inline(always)]
    unsafe fn spread(x: Self::I) -> Self::B {
        const LOW: [u8; 16] = [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12];
        // SAFETY: the trait's contract.
        unsafe {
            let low = vld1q_u8(LOW.as_ptr());
            let bytes = each!(vreinterpretq_u8_s32, x);
            each!(vqtbl1q_u8, bytes, low)
        }
    }
    #[inline(always)]
    unsafe fn add_bytes(x: Self::B, y: Self::B) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { both!(vaddq_u8, x, y) }
    }
    #[inline(always)]
    unsafe fn signed(magnitudes: Self::B, signs: Self::B, first: u32) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            Quad(
                signed(magnitudes.0, signs.0, first),
                signed(magnitudes.1, signs.1, first),
                signed(magnitudes.2, signs.2, first),
                signed(magnitudes.3, signs.3, first),
            )
        }
    }
    #[inline(always)]
    unsafe fn points(book: Book, staged: *const i32, l: usize) -> [Self::B; 2] {
        let mut points = [0u64; LANES];
        // SAFETY: the trait's contract; the indices are within the book.
        unsafe {
            let (book, indices) = (book.eight.as_ptr(), staged.add(l * LANES));
            for (lane, point) in points.iter_mut().enumerate() {
                *point = *book.add(*indices.add(lane) as usize);
            }
            let p = points.as_ptr().cast::<u32>();
            let (a, b) = (vld2q_u32(p), vld2q_u32(p.add(8)));
            let (c, d) = (vld2q_u32(p.add(16)), vld2q_u32(p.add(24)));
            let (low, high) = (Quad(a.0, b.0, c.0, d.0), Quad(a.1, b.1, c.1, d.1));
            [each!(vreinterpretq_u8_u32, low), each!(vreinterpretq_u8_u32, high)]
        }
    }
    #[inline(always)]
    unsafe fn points_of_four(book: Book, staged: *const i32, l: usize) -> Self::B {
        let mut points = [0u32; LANES];
        // SAFETY: the trait's contract; the indices are within the book.
        unsafe {
            let (book, indices) = (book.four.as_ptr(), staged.add(l * LANES));
            for (lane, point) in points.iter_mut().enumerate() {
                *point = *book.add(*indices.add(lane) as usize);
            }
            Self::bytes(points.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn triple(x: Self::B) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { both!(vaddq_u8, x, both!(vaddq_u8, x, x)) }
    }
    #[inline(always)]
    unsafe fn trit(x: Self::B) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { each!(trit, x) }
    }
}

//! Code-book lookups in plain Rust.

use super::Scalar;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::isa::look_up::{Book, LookUp};
use crate::kernels::shape::LANES;

type I = [i32; LANES];
type B = [u8; 4 * LANES];

// SAFETY: plain Rust runs everywhere; pointers are read and written as the trait states.
unsafe impl LookUp for Scalar {
    #[inline(always)]
    unsafe fn bits(x: I, shift: u32, count: u32) -> I {
        x.map(|x| (x as u32 >> shift & ((1 << count) - 1)) as i32)
    }
    #[inline(always)]
    unsafe fn xor(x: I, y: I) -> I {
        std::array::from_fn(|lane| x[lane] ^ y[lane])
    }
    #[inline(always)]
    unsafe fn spread(x: I) -> B {
        std::array::from_fn(|i| x[i / 4] as u8)
    }
    #[inline(always)]
    unsafe fn add_bytes(x: B, y: B) -> B {
        std::array::from_fn(|i| x[i].wrapping_add(y[i]))
    }
    #[inline(always)]
    unsafe fn signed(magnitudes: B, signs: B, first: u32) -> B {
        std::array::from_fn(|i| {
            let negative = signs[i] >> (first + i as u32 % 4) & 1 == 1;
            if negative { 64 - magnitudes[i] } else { 64 + magnitudes[i] }
        })
    }
    #[inline(always)]
    unsafe fn points(book: Book, staged: *const i32, l: usize) -> [B; 2] {
        // SAFETY: the indices are within the book.
        let points = unsafe { Self::words(staged.add(l * LANES).cast()) }
            .map(|i| unsafe { *book.eight.as_ptr().add(i as usize) }.to_le_bytes());
        [0, 4].map(|half| std::array::from_fn(|i| points[i / 4][half + i % 4]))
    }
    #[inline(always)]
    unsafe fn points_of_four(book: Book, staged: *const i32, l: usize) -> B {
        // SAFETY: the indices are within the book.
        let points = unsafe { Self::words(staged.add(l * LANES).cast()) }
            .map(|i| unsafe { *book.four.as_ptr().add(i as usize) }.to_le_bytes());
        std::array::from_fn(|i| points[i / 4][i % 4])
    }
    #[inline(always)]
    unsafe fn triple(x: B) -> B {
        x.map(|x| x.wrapping_mul(3))
    }
    #[inline(always)]
    unsafe fn trit(x: B) -> B {
        x.map(|x| ((u16::from(x) * 3) >> 8) as u8)
    }
}

//! Vectors of codes and their int8 products in plain Rust.

use super::{Scalar, lanes};
use crate::kernels::isa::bytes::{ANY, Bytes};
use crate::kernels::shape::LANES;

type F = [f32; LANES];
type I = [i32; LANES];
type B = [u8; 4 * LANES];

macro_rules! bytes {
    ($i:ident => $value:expr) => {{
        let mut out = [0u8; 4 * LANES];
        for $i in 0..4 * LANES {
            out[$i] = $value;
        }
        out
    }};
}

#[allow(clippy::needless_range_loop)] // loops count lanes
// SAFETY: plain Rust runs everywhere; pointers are read and written as the trait states.
unsafe impl Bytes for Scalar {
    type B = B;
    type W = I;
    const ROOM: [usize; 5] = [ANY; 5];
    const CENTER: i32 = 0;
    const TILE: [usize; 5] = [8, 4, 2, 4, 8];
    const FEW: [usize; 5] = [1; 5];

    #[inline(never)]
    unsafe fn bytes(p: *const u8) -> B {
        // SAFETY: 64 bytes are readable at p.
        unsafe { p.cast::<B>().read_unaligned() }
    }
    #[inline(never)]
    unsafe fn store_bytes(p: *mut u8, x: B) {
        // SAFETY: 64 bytes are writable at p.
        unsafe { p.cast::<B>().write_unaligned(x) }
    }
    #[inline(never)]
    unsafe fn field(x: B, shift: u32, bits: u32) -> B {
        bytes!(i => (x[i] >> shift) & (0xff >> (8 - bits)))
    }
    #[inline(never)]
    unsafe fn raise(x: B, shift: u32) -> B {
        bytes!(i => x[i] << shift)
    }
    #[inline(never)]
    unsafe fn or(x: B, y: B) -> B {
        bytes!(i => x[i] | y[i])
    }
    #[inline(never)]
    unsafe fn code(x: B, element: u32) -> F {
        lanes!(i => f32::from(x[4 * i + element as usize]))
    }
    #[inline(never)]
    unsafe fn look_up(x: B, levels: *const u8) -> B {
        // SAFETY: 16 levels are readable, and the byte is below 16.
        bytes!(i => unsafe { *levels.add(usize::from(x[i] & 15)) })
    }
    #[inline(always)]
    unsafe fn no_sums() -> I {
        [0; LANES]
    }
    #[inline(never)]
    unsafe fn accumulate<const BITS: usize>(mut sums: I, q: B, acts: *const i8) -> I {
        for element in 0..4 {
            // SAFETY: four activations are readable.
            let a = i32::from(unsafe { *acts.add(element) });
            for lane in 0..LANES {
                sums[lane] += i32::from(q[4 * lane + element]) * a;
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn settle(sums: I) -> I {
        sums
    }
    #[inline(always)]
    unsafe fn fold(x: I, sums: I) -> I {
        lanes!(i => x[i] + sums[i])
    }
    #[inline(always)]
    unsafe fn factor(x: I) -> I {
        x
    }
    #[inline(always)]
    unsafe fn fold_by(x: I, sums: I, by: I) -> I {
        lanes!(i => x[i] + sums[i] * by[i])
    }
    #[inline(always)]
    unsafe fn dot_pairs(x: I, y: I, z: I) -> I {
        let low = |x: i32| i32::from(x as i16);
        lanes!(i => x[i] + low(y[i]) * low(z[i]) + (y[i] >> 16) * (z[i] >> 16))
    }
    #[inline(always)]
    unsafe fn words(p: *const u8) -> I {
        // SAFETY: 16 words are readable at p.
        unsafe { p.cast::<I>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut i32, x: I) {
        // SAFETY: 16 words are writable at p.
        unsafe { p.cast::<I>().write_unaligned(x) }
    }
}

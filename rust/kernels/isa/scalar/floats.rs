//! Vectors of floats and integers in plain Rust, lane by lane.

use super::{Scalar, lanes};
use crate::kernels::isa::floats::Isa;
use crate::kernels::shape::LANES;

type F = [f32; LANES];
type I = [i32; LANES];

#[allow(clippy::needless_range_loop)] // loops count lanes
// SAFETY: plain Rust runs everywhere; pointers are read and written as the trait states.
unsafe impl Isa for Scalar {
    type F = F;
    type I = I;
    const TILE_F32: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        // SAFETY: 16 floats are readable at p.
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(never)]
    unsafe fn load_f16(p: *const u16) -> F {
        // SAFETY: 16 halves are readable at p.
        lanes!(i => half::f16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> F {
        // SAFETY: 16 halves are readable at p.
        lanes!(i => f32::from_bits(u32::from(unsafe { p.add(i).read_unaligned() }) << 16))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        // SAFETY: 16 floats are writable at p.
        unsafe { p.cast::<F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(x: F, y: F) -> F {
        lanes!(i => x[i] + y[i])
    }
    #[inline(always)]
    unsafe fn sub(x: F, y: F) -> F {
        lanes!(i => x[i] - y[i])
    }
    #[inline(always)]
    unsafe fn mul(x: F, y: F) -> F {
        lanes!(i => x[i] * y[i])
    }
    #[inline(always)]
    unsafe fn div(x: F, y: F) -> F {
        lanes!(i => x[i] / y[i])
    }
    #[inline(never)]
    unsafe fn fma(x: F, y: F, z: F) -> F {
        lanes!(i => x[i].mul_add(y[i], z[i]))
    }
    #[inline(always)]
    unsafe fn max(x: F, y: F) -> F {
        lanes!(i => if x[i] > y[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn min(x: F, y: F) -> F {
        lanes!(i => if x[i] < y[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn abs(x: F) -> F {
        lanes!(i => x[i].abs())
    }
    #[inline(always)]
    unsafe fn sum(mut x: F) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] += x[i + half];
            }
        }
        x[0]
    }
    #[inline(always)]
    unsafe fn largest(x: F) -> f32 {
        let mut best = x[0];
        for value in x {
            best = if value > best { value } else { best };
        }
        best
    }
    #[inline(always)]
    unsafe fn round(x: F) -> I {
        lanes!(i => x[i].round_ties_even() as i32)
    }
    #[inline(always)]
    unsafe fn float(x: I) -> F {
        lanes!(i => x[i] as f32)
    }
    #[inline(always)]
    unsafe fn pow2(x: I) -> F {
        lanes!(i => f32::from_bits(((x[i] + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> I {
        // SAFETY: 16 bytes are readable at p.
        lanes!(i => i32::from(unsafe { *p.add(i) }))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> I {
        // SAFETY: 16 bytes are readable at p.
        lanes!(i => i32::from(unsafe { *p.add(i) } as i8))
    }
    #[inline(always)]
    unsafe fn and_i(x: I, y: I) -> I {
        lanes!(i => x[i] & y[i])
    }
    #[inline(always)]
    unsafe fn max_i(x: I, y: I) -> I {
        lanes!(i => x[i].max(y[i]))
    }
    #[inline(always)]
    unsafe fn min_i(x: I, y: I) -> I {
        lanes!(i => x[i].min(y[i]))
    }
    #[inline(always)]
    unsafe fn shift_left<const BY: i32>(x: I) -> I {
        lanes!(i => x[i] << BY)
    }
    #[inline(always)]
    unsafe fn shift_right<const BY: i32>(x: I) -> I {
        lanes!(i => x[i] >> BY)
    }
    #[inline(always)]
    unsafe fn cast(x: I) -> F {
        lanes!(i => f32::from_bits(x[i] as u32))
    }
    #[inline(always)]
    unsafe fn add_i(x: I, y: I) -> I {
        lanes!(i => x[i] + y[i])
    }
    #[inline(always)]
    unsafe fn sum_i(x: I) -> i32 {
        x.iter().sum()
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: I) {
        for i in 0..LANES {
            // SAFETY: 16 bytes are writable at p.
            unsafe { p.add(i).write(x[i] as i8) }
        }
    }
}

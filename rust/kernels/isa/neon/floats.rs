//! Vectors of floats and integers with NEON.
//!
//! `fcvtl` is written as assembly, because its intrinsic is not stable.

use std::arch::{aarch64::*, asm};

use super::{Neon, Quad, each};
use crate::kernels::isa::floats::Isa;

/// Four f16, widened; assembly, because the type `f16` is not stable.
#[inline(always)]
unsafe fn halves(p: *const u16) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: four halves are readable at p; the instruction is of the base set.
    unsafe {
        let bits = vld1_u16(p);
        asm!(
            "fcvtl {out:v}.4s, {bits:v}.4h",
            out = lateout(vreg) out,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    out
}

// SAFETY: NEON is part of every aarch64 CPU that Rust has a standard library for, and the entry
// points of a `KIND` are only chosen if `available` detects its instructions.
unsafe impl<const KIND: u8> Isa for Neon<KIND> {
    type F = Quad<float32x4_t>;
    type I = Quad<int32x4_t>;
    const TILE_F32: usize = 6;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        // SAFETY: the trait's contract.
        let x = unsafe { vdupq_n_f32(x) };
        Quad(x, x, x, x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe {
            Quad(vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12)))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { Quad(halves(p), halves(p.add(4)), halves(p.add(8)), halves(p.add(12))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        #[inline(always)]
        unsafe fn high(p: *const u16) -> float32x4_t {
            // SAFETY: the trait's contract.
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
        }
        // SAFETY: the trait's contract.
        unsafe { Quad(high(p), high(p.add(4)), high(p.add(8)), high(p.add(12))) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        // SAFETY: the trait's contract.
        unsafe {
            vst1q_f32(p, x.0);
            vst1q_f32(p.add(4), x.1);
            vst1q_f32(p.add(8), x.2);
            vst1q_f32(p.add(12), x.3);
        }
    }
    #[inline(always)]
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { each!(vaddq_f32, x, y) }
    }
    #[inline(always)]
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { each!(vsubq_f32, x, y) }
    }
    #[inline(always)]
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { each!(vmulq_f32, x, y) }
    }
    #[inline(always)]
    unsafe fn div(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { each!(vdivq_f32, x, y) }
    }
    #[inline(always)]
    unsafe fn fma(x: Self::F, y: Self::F, z: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe {
            Quad(
                vfmaq_f32(z.0, x.0, y.0),
                vfmaq_f32(z.1, x.1, y.1),
                vfmaq_f32(z.2, x.2, y.2),
                vfmaq_f32(z.3, x.3, y.3),
            )
        }
    }
    /// y if neither is larger, as in the other instruction sets: `fmax` would order two zeros.
    #[inline(always)]
    unsafe fn max(x: Self::F, y: Self::F) -> Self::F {
        #[inline(always)]
        unsafe fn larger(x: float32x4_t, y: float32x4_t) -> float32x4_t {
            // SAFETY: the trait's contract.
            unsafe { vbslq_f32(vcgtq_f32(x, y), x, y) }
        }
        // SAFETY: the trait's contract.
        unsafe { each!(larger, x, y) }
    }
    #[inline(always)]
    unsafe fn min(x: Self::F, y: Self::F) -> Self::F {
        #[inline(always)]
        unsafe fn smaller(x: float32x4_t, y: float32x4_t) -> float32x4_t {
            // SAFETY: the trait's contract.
            unsafe { vbslq_f32(vcltq_f32(x, y), x, y) }
        }
        // SAFETY: the trait's contract.
        unsafe { each!(smaller, x, y) }
    }
    #[inline(always)]
    unsafe fn abs(x: Self::F) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { each!(vabsq_f32, x) }
    }
    #[inline(always)]
    unsafe fn sum(x: Self::F) -> f32 {
        // SAFETY: the trait's contract.
        unsafe {
            let four = vaddq_f32(vaddq_f32(x.0, x.2), vaddq_f32(x.1, x.3));
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }
    #[inline(always)]
    unsafe fn largest(x: Self::F) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.0, x.1), vmaxq_f32(x.2, x.3))) }
    }
    #[inline(always)]
    unsafe fn round(x: Self::F) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { each!(vcvtnq_s32_f32, x) }
    }
    #[inline(always)]
    unsafe fn float(x: Self::I) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { each!(vcvtq_f32_s32, x) }
    }
    #[inline(always)]
    unsafe fn pow2(x: Self::I) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { Self::cast(Self::shift_left::<23>(Self::add_i(x, Self::splat_i(127)))) }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        // SAFETY: the trait's contract.
        let x = unsafe { vdupq_n_s32(x) };
        Quad(x, x, x, x)
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            let bytes = vld1q_u8(p);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            let (low, high) = (vreinterpretq_s16_u16(low), vreinterpretq_s16_u16(high));
            Quad(
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            )
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            let bytes = vld1q_s8(p.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            Quad(
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            )
        }
    }
    #[inline(always)]
    unsafe fn add_i(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { each!(vaddq_s32, x, y) }
    }
    #[inline(always)]
    unsafe fn and_i(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { each!(vandq_s32, x, y) }
    }
    #[inline(always)]
    unsafe fn max_i(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { each!(vmaxq_s32, x, y) }
    }
    #[inline(always)]
    unsafe fn min_i(x: Self::I, y: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { each!(vminq_s32, x, y) }
    }
    #[inline(always)]
    unsafe fn shift_left<const BY: i32>(x: Self::I) -> Self::I {
        // SAFETY: the trait's contract; BY is known, so this is one shift by a constant.
        unsafe {
            let by = Self::splat_i(BY);
            each!(vshlq_s32, x, by)
        }
    }
    #[inline(always)]
    unsafe fn shift_right<const BY: i32>(x: Self::I) -> Self::I {
        // SAFETY: the trait's contract; a shift to the left by less than nothing.
        unsafe {
            let by = Self::splat_i(-BY);
            each!(vshlq_s32, x, by)
        }
    }
    #[inline(always)]
    unsafe fn cast(x: Self::I) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe { each!(vreinterpretq_f32_s32, x) }
    }
    #[inline(always)]
    unsafe fn sum_i(x: Self::I) -> i32 {
        // SAFETY: the trait's contract.
        unsafe { vaddvq_s32(vaddq_s32(vaddq_s32(x.0, x.1), vaddq_s32(x.2, x.3))) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: Self::I) {
        // SAFETY: the trait's contract.
        unsafe {
            let low = vcombine_s16(vmovn_s32(x.0), vmovn_s32(x.1));
            let high = vcombine_s16(vmovn_s32(x.2), vmovn_s32(x.3));
            vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
        }
    }
}

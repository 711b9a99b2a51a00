//! Vectors of codes and their int8 products with NEON.
//!
//! All kinds of products are of signed bytes: codes of up to 7 bits fit, those of 8 bits are centered. `sdot`
//! and `smmla` are written as assembly, because their intrinsics are not stable.

use std::arch::{aarch64::*, asm};

use super::{DOT, MATRIX, Neon, Quad, each};
use crate::kernels::isa::bytes::{ANY, Bytes};
use crate::kernels::isa::floats::Isa;

/// sums + the products of four rows' codes with four activations.
#[inline(always)]
unsafe fn dot<const KIND: u8>(mut sums: int32x4_t, q: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the CPU has `sdot` for these values of KIND.
    unsafe {
        if KIND >= DOT {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {q:v}.16b, {a:v}.16b",
                sums = inlateout(vreg) sums,
                q = in(vreg) q,
                a = in(vreg) a,
                options(pure, nomem, nostack, preserves_flags)
            );
            return sums;
        }
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(q), vget_low_s8(a)));
        let high = vpaddlq_s16(vmull_high_s8(q, a));
        vaddq_s32(sums, vpaddq_s32(low, high))
    }
}

/// Emits no instruction, but keeps the compiler from moving work on `sums` past it.
#[inline(always)]
unsafe fn settle(mut sums: int32x4_t) -> int32x4_t {
    // SAFETY: it does nothing.
    unsafe { asm!("/* {0:v} */", inout(vreg) sums, options(nomem, nostack, preserves_flags)) };
    sums
}

/// [2 rows][2 rows of activations]: sums + the products of eight codes of each with eight activations.
#[inline(always)]
unsafe fn multiply(mut sums: int32x4_t, q: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's CPU has `smmla`.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {sums:v}.4s, {q:v}.16b, {a:v}.16b",
            sums = inlateout(vreg) sums,
            q = in(vreg) q,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// x + the products of the lower 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn add_low(x: int32x4_t, y: int32x4_t, z: int32x4_t) -> int32x4_t {
    let (y, z) = (vmovn_s32(y), vmovn_s32(z));
    vmlal_s16(x, y, z)
}

/// x + the products of the upper 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn add_high(x: int32x4_t, y: int32x4_t, z: int32x4_t) -> int32x4_t {
    vmlal_s16(x, vshrn_n_s32::<16>(y), vshrn_n_s32::<16>(z))
}

// SAFETY: as that of `Isa`.
unsafe impl<const KIND: u8> Bytes for Neon<KIND> {
    type B = Quad<uint8x16_t>;
    type W = Quad<int32x4_t>;
    const ROOM: [usize; 5] = [ANY; 5];
    const CENTER: i32 = 128;
    const TILE: [usize; 5] = [4; 5];
    const FEW: [usize; 5] = [4; 5];
    const PAIRED: bool = KIND == MATRIX;

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { Quad(vld1q_u8(p), vld1q_u8(p.add(16)), vld1q_u8(p.add(32)), vld1q_u8(p.add(48))) }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, x: Self::B) {
        // SAFETY: the trait's contract.
        unsafe {
            vst1q_u8(p, x.0);
            vst1q_u8(p.add(16), x.1);
            vst1q_u8(p.add(32), x.2);
            vst1q_u8(p.add(48), x.3);
        }
    }
    #[inline(always)]
    unsafe fn field(x: Self::B, shift: u32, bits: u32) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            let (by, mask) = (vdupq_n_s8(-(shift as i8)), vdupq_n_u8(0xff >> (8 - bits)));
            let (by, mask) = (Quad(by, by, by, by), Quad(mask, mask, mask, mask));
            let moved = each!(vshlq_u8, x, by);
            each!(vandq_u8, moved, mask)
        }
    }
    #[inline(always)]
    unsafe fn raise(x: Self::B, shift: u32) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            let by = vdupq_n_s8(shift as i8);
            let by = Quad(by, by, by, by);
            each!(vshlq_u8, x, by)
        }
    }
    #[inline(always)]
    unsafe fn or(x: Self::B, y: Self::B) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe { each!(vorrq_u8, x, y) }
    }
    #[inline(always)]
    unsafe fn code(x: Self::B, element: u32) -> Self::F {
        // SAFETY: the trait's contract.
        unsafe {
            let lanes = each!(vreinterpretq_s32_u8, x);
            let (by, mask) = (Self::splat_i(-8 * element as i32), Self::splat_i(0xff));
            Self::float(Self::and_i(each!(vshlq_s32, lanes, by), mask))
        }
    }
    #[inline(always)]
    unsafe fn look_up(x: Self::B, levels: *const u8) -> Self::B {
        // SAFETY: the trait's contract.
        unsafe {
            let table = vld1q_u8(levels);
            Quad(
                vqtbl1q_u8(table, x.0),
                vqtbl1q_u8(table, x.1),
                vqtbl1q_u8(table, x.2),
                vqtbl1q_u8(table, x.3),
            )
        }
    }
    #[inline(always)]
    unsafe fn no_sums() -> Self::W {
        // SAFETY: the trait's contract.
        unsafe { Self::splat_i(0) }
    }
    #[inline(always)]
    unsafe fn accumulate<const BITS: usize>(sums: Self::W, q: Self::B, acts: *const i8) -> Self::W {
        // SAFETY: the trait's contract.
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(acts.cast::<i32>().read_unaligned()));
            let center = vdupq_n_u8(if BITS == 8 { 128 } else { 0 });
            let center = Quad(center, center, center, center);
            let q = each!(veorq_u8, q, center);
            let q = each!(vreinterpretq_s8_u8, q);
            Quad(
                dot::<KIND>(sums.0, q.0, a),
                dot::<KIND>(sums.1, q.1, a),
                dot::<KIND>(sums.2, q.2, a),
                dot::<KIND>(sums.3, q.3, a),
            )
        }
    }
    #[inline(always)]
    unsafe fn accumulate_pairs<const BITS: usize>(
        sums: [Self::W; 2],
        q: [Self::B; 2],
        acts: [*const i8; 2],
    ) -> [Self::W; 2] {
        // SAFETY: the trait's contract.
        unsafe {
            let a = vcombine_s8(vld1_s8(acts[0]), vld1_s8(acts[1]));
            let a = Quad(a, a, a, a);
            let center = vdupq_n_u8(if BITS == 8 { 128 } else { 0 });
            let center = Quad(center, center, center, center);
            let [low, high] = [each!(veorq_u8, q[0], center), each!(veorq_u8, q[1], center)];
            let [low, high] = [each!(vreinterpretq_s8_u8, low), each!(vreinterpretq_s8_u8, high)];
            [each!(multiply, sums[0], low, a), each!(multiply, sums[1], high, a)]
        }
    }
    #[inline(always)]
    unsafe fn unpair([low, high]: [Self::W; 2]) -> [Self::W; 2] {
        // SAFETY: the trait's contract.
        unsafe {
            let even = Quad(low.0, low.2, high.0, high.2);
            let odd = Quad(low.1, low.3, high.1, high.3);
            [each!(vuzp1q_s32, even, odd), each!(vuzp2q_s32, even, odd)]
        }
    }
    #[inline(always)]
    unsafe fn settle(sums: Self::W) -> Self::W {
        // SAFETY: the trait's contract.
        unsafe { each!(settle, sums) }
    }
    #[inline(always)]
    unsafe fn fold(x: Self::I, sums: Self::W) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { each!(vaddq_s32, x, sums) }
    }
    #[inline(always)]
    unsafe fn factor(x: Self::I) -> Self::I {
        x
    }
    #[inline(always)]
    unsafe fn fold_by(x: Self::I, sums: Self::W, by: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { each!(vmlaq_s32, x, sums, by) }
    }
    #[inline(always)]
    unsafe fn dot_pairs(x: Self::I, y: Self::I, z: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe {
            let sums = each!(add_low, x, y, z);
            each!(add_high, sums, y, z)
        }
    }
    #[inline(always)]
    unsafe fn words(p: *const u8) -> Self::I {
        let p = p.cast::<i32>();
        // SAFETY: the trait's contract.
        unsafe {
            Quad(vld1q_s32(p), vld1q_s32(p.add(4)), vld1q_s32(p.add(8)), vld1q_s32(p.add(12)))
        }
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut i32, x: Self::I) {
        // SAFETY: the trait's contract.
        unsafe {
            vst1q_s32(p, x.0);
            vst1q_s32(p.add(4), x.1);
            vst1q_s32(p.add(8), x.2);
            vst1q_s32(p.add(12), x.3);
        }
    }
}

//! Bytes for aarch64.
//!
//! Both kinds of products are of signed bytes: codes of up to 7 bits are that already, those of 8 bits
//! are centred. `sdot` is written as assembly, as its intrinsic is not stable.

use std::arch::{aarch64::*, asm};

use super::super::isa::Isa;
use super::super::linear::Product;
use super::super::look_up::LookUp;
use super::super::neon::{Neon, Quad, each};
use super::super::packed::Packed;
use super::super::scales::Source;
use super::super::shares::Shares;
use super::super::span::Span;
use super::{Bytes, own_functions};
use crate::formats::{Codes, Format};

/// sums + the products of four rows' codes with four activations.
#[inline(always)]
unsafe fn dot<const DOT: bool>(mut sums: int32x4_t, q: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the CPU has `sdot` where DOT says so.
    unsafe {
        if DOT {
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

/// No instruction, but the compiler may not move the work on `sums` past it.
#[inline(always)]
unsafe fn settle(mut sums: int32x4_t) -> int32x4_t {
    // SAFETY: it does nothing.
    unsafe { asm!("/* {0:v} */", inout(vreg) sums, options(nomem, nostack, preserves_flags)) };
    sums
}

// SAFETY: as that of `Isa`; the entry points with `DOT` are only taken where `available` finds `sdot`.
unsafe impl<const DOT: bool> Bytes for Neon<DOT> {
    type B = Quad<uint8x16_t>;
    type W = Quad<int32x4_t>;
    const ROOM: [usize; 5] = [8; 5];
    const CENTER: i32 = 128;
    const TILE: [usize; 5] = [4; 5];

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
    unsafe fn sums_from(start: i32) -> Self::W {
        // SAFETY: the trait's contract.
        unsafe { Self::splat_i(start) }
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
                dot::<DOT>(sums.0, q.0, a),
                dot::<DOT>(sums.1, q.1, a),
                dot::<DOT>(sums.2, q.2, a),
                dot::<DOT>(sums.3, q.3, a),
            )
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
    unsafe fn fold_by(x: Self::I, sums: Self::W, by: Self::I) -> Self::I {
        // SAFETY: the trait's contract.
        unsafe { each!(vmlaq_s32, x, sums, by) }
    }
    own_functions!();
}

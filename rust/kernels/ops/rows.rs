//! RMS norm, residual sums, SwiGLU, exp and rotary embedding of one row of activations.
//!
//! Sums use 16 lanes: element i is added to lane i % 16 in order, then the lanes are summed by halving.

use crate::kernels::isa::floats::Isa;
use crate::kernels::shape::LANES;

/// The 16 floats from `start` on; zeros past `length`.
///
/// # Safety
///
/// `length` floats are readable at `p`, and the CPU has the instruction set.
#[inline(always)]
pub(crate) unsafe fn load_lanes<I: Isa>(p: *const f32, start: usize, length: usize) -> I::F {
    // SAFETY: the caller's promise.
    unsafe {
        if start + LANES <= length {
            return I::load(p.add(start));
        }
        let mut lanes = [0f32; LANES];
        std::ptr::copy_nonoverlapping(p.add(start), lanes.as_mut_ptr(), length - start);
        I::load(lanes.as_ptr())
    }
}

/// Writes the lanes of `x` that lie before `length`.
///
/// # Safety
///
/// `length` floats are writable at `p`, and the CPU has the instruction set.
#[inline(always)]
pub(crate) unsafe fn store_lanes<I: Isa>(p: *mut f32, start: usize, length: usize, x: I::F) {
    // SAFETY: the caller's promise.
    unsafe {
        if start + LANES <= length {
            return I::store(p.add(start), x);
        }
        let mut lanes = [0f32; LANES];
        I::store(lanes.as_mut_ptr(), x);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), p.add(start), length - start);
    }
}

/// x / sqrt(mean(x^2) + eps) * weight over `n` floats; `out` may be `x`.
///
/// # Safety
///
/// Each pointer holds `n` floats and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn rms_norm<I: Isa>(
    x: *const f32,
    weight: *const f32,
    out: *mut f32,
    n: usize,
    eps: f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut squares = I::splat(0.0);
        for start in (0..n).step_by(LANES) {
            let lanes = load_lanes::<I>(x, start, n);
            squares = I::fma(lanes, lanes, squares);
        }
        let inverse = I::splat(1.0 / (I::sum(squares) / n as f32 + eps).sqrt());
        for start in (0..n).step_by(LANES) {
            let normed = I::mul(load_lanes::<I>(x, start, n), inverse);
            store_lanes::<I>(out, start, n, I::mul(normed, load_lanes::<I>(weight, start, n)));
        }
    }
}

/// x + y over `n` floats; `out` may be either.
///
/// # Safety
///
/// As `rms_norm`.
#[inline(always)]
pub unsafe fn add<I: Isa>(x: *const f32, y: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..n).step_by(LANES) {
            let sum = I::add(load_lanes::<I>(x, start, n), load_lanes::<I>(y, start, n));
            store_lanes::<I>(out, start, n, sum);
        }
    }
}

/// gate / (1 + exp(-gate)) * up over `n` floats; `out` may be either.
///
/// # Safety
///
/// As `rms_norm`.
#[inline(always)]
pub unsafe fn swiglu<I: Isa>(gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let one = I::splat(1.0);
        for start in (0..n).step_by(LANES) {
            let g = load_lanes::<I>(gate, start, n);
            let below = I::add(one, exp::<I>(I::sub(I::splat(0.0), g)));
            let silu = I::div(g, below);
            store_lanes::<I>(out, start, n, I::mul(silu, load_lanes::<I>(up, start, n)));
        }
    }
}

/// e^x to about 1 unit in the last place, with x clamped to -87.3..=88 (the polynomial of Cephes).
///
/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
pub unsafe fn exp<I: Isa>(x: I::F) -> I::F {
    // SAFETY: the caller's promise.
    unsafe {
        let x = I::max(I::min(x, I::splat(88.0)), I::splat(-87.336_54));
        let n = I::round(I::mul(x, I::splat(std::f32::consts::LOG2_E)));
        let turns = I::float(n);
        // ln 2 as the sum of two numbers; products with the first are exact.
        let r = I::fma(turns, I::splat(-0.693_359_4), x);
        let r = I::fma(turns, I::splat(2.121_944_4e-4), r);
        let mut p = I::splat(1.987_569_1e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = I::fma(p, r, I::splat(c));
        }
        let y = I::add(I::fma(p, I::mul(r, r), r), I::splat(1.0));
        I::mul(y, I::pow2(n))
    }
}

/// Rotates the pairs of elements of one head in place (rotary position embedding): `turns` holds cos and sin
/// of each pair. `distance` is the distance of the two elements of a pair, `step` that between pairs.
pub fn rope(head: &mut [f32], turns: &[f32], distance: usize, step: usize) {
    for (pair, turn) in turns.chunks_exact(2).enumerate() {
        let (i, j) = (pair * step, pair * step + distance);
        let (x, y) = (head[i], head[j]);
        head[i] = x * turn[0] - y * turn[1];
        head[j] = x * turn[1] + y * turn[0];
    }
}

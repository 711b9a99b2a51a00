//! Activation functions, gates, layer norm and L2 norm of one row.
//!
//! Every function may write to its own input.

use crate::kernels::isa::floats::Isa;
use crate::kernels::ops::rows::{exp, load_lanes, store_lanes};
use crate::kernels::shape::LANES;

/// A = 2 sqrt(2 / pi) and B = 0.044715 A of gelu(x) = x sigmoid(A x + B x^3).
const GELU: [f32; 2] = [1.595_769_2, 0.071_354_814];

/// 1 / (1 + exp(-x)).
///
/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn logistic<I: Isa>(x: I::F) -> I::F {
    // SAFETY: the caller's promise.
    unsafe {
        let one = I::splat(1.0);
        I::div(one, I::add(one, exp::<I>(I::sub(I::splat(0.0), x))))
    }
}

/// x / (1 + exp(-(A x + B x^3))).
#[inline(always)]
unsafe fn gelu_of<I: Isa>(x: I::F) -> I::F {
    // SAFETY: the CPU has the instruction set.
    unsafe {
        let one = I::splat(1.0);
        let slope = I::fma(I::mul(x, x), I::splat(GELU[1]), I::splat(GELU[0]));
        let e = exp::<I>(I::sub(I::splat(0.0), I::mul(x, slope)));
        I::div(x, I::add(one, e))
    }
}

/// gelu(x), in its approximation by the hyperbolic tangent.
///
/// # Safety
///
/// Each pointer holds `n` floats and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn gelu<I: Isa>(x: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..n).step_by(LANES) {
            store_lanes::<I>(out, start, n, gelu_of::<I>(load_lanes::<I>(x, start, n)));
        }
    }
}

/// gelu(gate) * up.
///
/// # Safety
///
/// As `gelu`.
#[inline(always)]
pub unsafe fn geglu<I: Isa>(gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..n).step_by(LANES) {
            let g = gelu_of::<I>(load_lanes::<I>(gate, start, n));
            store_lanes::<I>(out, start, n, I::mul(g, load_lanes::<I>(up, start, n)));
        }
    }
}

/// g / (1 + exp(-alpha g)) * (u + 1), g = min(gate, limit), u = up within -limit..=limit.
///
/// # Safety
///
/// As `gelu`.
#[inline(always)]
pub unsafe fn clamped_swiglu<I: Isa>(
    gate: *const f32,
    up: *const f32,
    out: *mut f32,
    n: usize,
    [alpha, limit]: [f32; 2],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (one, high, low) = (I::splat(1.0), I::splat(limit), I::splat(-limit));
        for start in (0..n).step_by(LANES) {
            let g = I::min(load_lanes::<I>(gate, start, n), high);
            let u = I::max(I::min(load_lanes::<I>(up, start, n), high), low);
            let e = exp::<I>(I::mul(g, I::splat(-alpha)));
            let silu = I::div(g, I::add(one, e));
            store_lanes::<I>(out, start, n, I::mul(silu, I::add(u, one)));
        }
    }
}

/// x / (1 + exp(-x)).
///
/// # Safety
///
/// As `gelu`.
#[inline(always)]
pub unsafe fn silu<I: Isa>(x: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let one = I::splat(1.0);
        for start in (0..n).step_by(LANES) {
            let lanes = load_lanes::<I>(x, start, n);
            let e = exp::<I>(I::sub(I::splat(0.0), lanes));
            store_lanes::<I>(out, start, n, I::div(lanes, I::add(one, e)));
        }
    }
}

/// 1 / (1 + exp(-x)).
///
/// # Safety
///
/// As `gelu`.
#[inline(always)]
pub unsafe fn sigmoid<I: Isa>(x: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..n).step_by(LANES) {
            store_lanes::<I>(out, start, n, logistic::<I>(load_lanes::<I>(x, start, n)));
        }
    }
}

/// cap tanh(x / cap), as cap (2 / (1 + exp(-2 x / cap)) - 1).
///
/// # Safety
///
/// As `gelu`.
#[inline(always)]
pub unsafe fn softcap<I: Isa>(x: *const f32, out: *mut f32, n: usize, cap: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let (one, two, cap) = (I::splat(1.0), I::splat(2.0), I::splat(cap));
        for start in (0..n).step_by(LANES) {
            let y = I::div(load_lanes::<I>(x, start, n), cap);
            let tanh = I::sub(I::mul(two, logistic::<I>(I::mul(two, y))), one);
            store_lanes::<I>(out, start, n, I::mul(cap, tanh));
        }
    }
}

/// x * y over `n` floats.
///
/// # Safety
///
/// As `gelu`.
#[inline(always)]
pub unsafe fn mul<I: Isa>(x: *const f32, y: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..n).step_by(LANES) {
            let product = I::mul(load_lanes::<I>(x, start, n), load_lanes::<I>(y, start, n));
            store_lanes::<I>(out, start, n, product);
        }
    }
}

/// x * factor over `n` floats.
///
/// # Safety
///
/// As `gelu`.
#[inline(always)]
pub unsafe fn scale<I: Isa>(x: *const f32, out: *mut f32, n: usize, factor: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..n).step_by(LANES) {
            let product = I::mul(load_lanes::<I>(x, start, n), I::splat(factor));
            store_lanes::<I>(out, start, n, product);
        }
    }
}

/// (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias over `n` floats.
///
/// # Safety
///
/// As `gelu`; `weight` and `bias` hold `n` floats too.
#[inline(always)]
pub unsafe fn layer_norm<I: Isa>(
    x: *const f32,
    [weight, bias]: [*const f32; 2],
    out: *mut f32,
    n: usize,
    eps: f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut total = I::splat(0.0);
        for start in (0..n).step_by(LANES) {
            total = I::add(total, load_lanes::<I>(x, start, n));
        }
        let mean = I::splat(I::sum(total) / n as f32);
        let mut squares = I::splat(0.0);
        for start in (0..n).step_by(LANES) {
            let length = n.min(start + LANES);
            let mut lanes = [0f32; LANES];
            store_lanes::<I>(
                lanes.as_mut_ptr(),
                0,
                length - start,
                I::sub(load_lanes::<I>(x, start, n), mean),
            );
            let deviation = I::load(lanes.as_ptr());
            squares = I::fma(deviation, deviation, squares);
        }
        let inverse = I::splat(1.0 / (I::sum(squares) / n as f32 + eps).sqrt());
        for start in (0..n).step_by(LANES) {
            let deviation = I::mul(I::sub(load_lanes::<I>(x, start, n), mean), inverse);
            let (w, b) = (load_lanes::<I>(weight, start, n), load_lanes::<I>(bias, start, n));
            store_lanes::<I>(out, start, n, I::fma(deviation, w, b));
        }
    }
}

/// x / sqrt(sum of x^2 + eps) over `n` floats.
///
/// # Safety
///
/// As `gelu`.
#[inline(always)]
pub unsafe fn l2_norm<I: Isa>(x: *const f32, out: *mut f32, n: usize, eps: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut squares = I::splat(0.0);
        for start in (0..n).step_by(LANES) {
            let lanes = load_lanes::<I>(x, start, n);
            squares = I::fma(lanes, lanes, squares);
        }
        let inverse = I::splat(1.0 / (I::sum(squares) + eps).sqrt());
        for start in (0..n).step_by(LANES) {
            store_lanes::<I>(out, start, n, I::mul(load_lanes::<I>(x, start, n), inverse));
        }
    }
}

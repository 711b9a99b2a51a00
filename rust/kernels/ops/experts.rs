//! Mixture of experts, one token: choosing its experts, and the weighted sum of their outputs.

use crate::kernels::isa::floats::Isa;
use crate::kernels::ops::rows::{exp, load_lanes, store_lanes};
use crate::kernels::shape::LANES;

/// Writes the indices of the `used` largest of `n` logits (of equal logits the first), the largest first,
/// and then their weights: softmax over all logits, or over the chosen ones if `normalize` is true.
///
/// # Safety
///
/// `logits` holds `n` floats and `out` 2 x `used`, `used` is at most `n`, and the CPU has the
/// instruction set.
#[inline(always)]
pub unsafe fn route<I: Isa>(
    logits: *const f32,
    n: usize,
    out: *mut f32,
    used: usize,
    normalize: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let all = std::slice::from_raw_parts(logits, n);
        let (chosen, weights) = std::slice::from_raw_parts_mut(out, 2 * used).split_at_mut(used);
        for (slot, weight) in weights.iter_mut().enumerate() {
            let (taken, rest) = chosen.split_at_mut(slot);
            let mut best = usize::MAX;
            for (index, value) in all.iter().enumerate() {
                if (best == usize::MAX || *value > all[best]) && !taken.contains(&(index as f32)) {
                    best = index;
                }
            }
            rest[0] = best as f32;
            *weight = all[best];
        }
        let peak = I::splat(all[chosen[0] as usize]);
        let total = if normalize {
            total::<I>(weights.as_ptr(), used, peak)
        } else {
            total::<I>(logits, n, peak)
        };
        for start in (0..used).step_by(LANES) {
            let e = exp::<I>(I::sub(load_lanes::<I>(weights.as_ptr(), start, used), peak));
            store_lanes::<I>(weights.as_mut_ptr(), start, used, I::div(e, I::splat(total)));
        }
    }
}

/// The sum of exp(x - peak), in 16 lanes.
#[inline(always)]
unsafe fn total<I: Isa>(x: *const f32, n: usize, peak: I::F) -> f32 {
    // SAFETY: `n` floats are readable at x.
    unsafe {
        let mut sum = I::splat(0.0);
        for start in (0..n).step_by(LANES) {
            let mut lanes = [0f32; LANES];
            let e = exp::<I>(I::sub(load_lanes::<I>(x, start, n), peak));
            store_lanes::<I>(lanes.as_mut_ptr(), 0, LANES.min(n - start), e);
            sum = I::add(sum, I::load(lanes.as_ptr()));
        }
        I::sum(sum)
    }
}

/// The sum of weight x row over the chosen experts in order, fused, starting from zero; `x` is [used][n].
///
/// # Safety
///
/// `x` holds `used` x `n` floats, `weights` `used`, `out` `n`; the CPU has the instruction set.
#[inline(always)]
pub unsafe fn expert_sum<I: Isa>(
    x: *const f32,
    weights: *const f32,
    out: *mut f32,
    used: usize,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for start in (0..n).step_by(LANES) {
            let mut sum = I::splat(0.0);
            for slot in 0..used {
                let row = load_lanes::<I>(x.add(slot * n), start, n);
                sum = I::fma(I::splat(*weights.add(slot)), row, sum);
            }
            store_lanes::<I>(out, start, n, sum);
        }
    }
}

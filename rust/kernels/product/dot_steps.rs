//! Dot products of unpacked codes, a step (four columns of 16 rows) at a time, with a tile of activations.

#![allow(clippy::needless_range_loop)] // t counts the tile's rows across several arrays

use crate::kernels::isa::bytes::Bytes;
use crate::kernels::shape::{LANES, STEP_BYTES, STEPS};

/// The dot products of `count` steps of 16 rows' codes, from step `first` on, with T rows of activations;
/// `starts` are their start values.
///
/// # Safety
///
/// `codes` and `acts` hold the steps, `starts` holds T values, and the CPU has the instruction set.
#[inline(always)]
pub unsafe fn multiply<I: Bytes, const WIDTH: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    first: usize,
    count: usize,
    starts: *const i32,
) -> [I::I; T] {
    let room = I::ROOM[WIDTH - 4].min(count);
    // SAFETY: the contract of `multiply`.
    unsafe {
        let mut dots = [I::splat_i(0); T];
        for done in (0..count).step_by(room) {
            let products = add_steps::<I, WIDTH, T>(codes, acts, first + done, room);
            for t in 0..T {
                let before = match done {
                    0 => I::splat_i(*starts.add(t)),
                    _ => dots[t],
                };
                dots[t] = I::fold(before, products[t]);
            }
        }
        dots
    }
}

/// Sums the products of `count` steps, at most as many as fit `Bytes::W`.
///
/// Each step's codes are loaded once and multiplied with all T rows before the next step: left alone, the
/// compiler takes the rows one after the other, and the reloads halve the speed.
///
/// # Safety
///
/// As `multiply`.
#[inline(always)]
pub unsafe fn add_steps<I: Bytes, const WIDTH: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    first: usize,
    count: usize,
) -> [I::W; T] {
    // SAFETY: the contract of `multiply`.
    unsafe {
        if I::PAIRED {
            return add_pairs_of_steps::<I, WIDTH, T>(codes, acts, first, count);
        }
        let mut products = [I::no_sums(); T];
        if count.is_multiple_of(4) {
            for at in (first..first + count).step_by(4) {
                multiply_step::<I, WIDTH, T>(codes, acts, at, &mut products);
                multiply_step::<I, WIDTH, T>(codes, acts, at + 1, &mut products);
                multiply_step::<I, WIDTH, T>(codes, acts, at + 2, &mut products);
                multiply_step::<I, WIDTH, T>(codes, acts, at + 3, &mut products);
            }
        } else {
            for step in 0..count {
                multiply_step::<I, WIDTH, T>(codes, acts, first + step, &mut products);
            }
        }
        products
    }
}

/// Adds the products of one step with T rows of activations.
///
/// # Safety
///
/// As `multiply`.
#[inline(always)]
pub unsafe fn multiply_step<I: Bytes, const WIDTH: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    step: usize,
    products: &mut [I::W; T],
) {
    // SAFETY: the contract of `multiply`.
    unsafe {
        let q = I::bytes(codes.add(step * STEP_BYTES));
        for t in 0..T {
            products[t] = I::accumulate::<WIDTH>(products[t], q, acts[t].add(4 * step));
        }
        for t in 0..T {
            products[t] = I::settle(products[t]);
        }
    }
}

/// Rearranges pairs of steps from [2][16 rows][4] codes to [16 rows][8], for `Bytes::accumulate_pairs`.
///
/// # Safety
///
/// `codes` holds `chunks` chunks.
#[inline(always)]
pub unsafe fn pair_steps(codes: *mut u8, chunks: usize) {
    for two in 0..chunks * STEPS / 2 {
        // SAFETY: the caller's promise.
        unsafe {
            let at = codes.add(two * 2 * STEP_BYTES);
            let [first, second] = at.cast::<[[u32; LANES]; 2]>().read_unaligned();
            let mut pairs = [[0; 2]; LANES];
            for lane in 0..LANES {
                pairs[lane] = [first[lane], second[lane]];
            }
            at.cast::<[[u32; 2]; LANES]>().write_unaligned(pairs);
        }
    }
}

/// `add_steps` for two steps and two rows of activations at a time; an odd last row is paired with itself.
#[inline(always)]
unsafe fn add_pairs_of_steps<I: Bytes, const WIDTH: usize, const T: usize>(
    codes: *const u8,
    acts: &[*const i8; T],
    first: usize,
    count: usize,
) -> [I::W; T] {
    // SAFETY: the contract of `multiply`.
    unsafe {
        // One for each pair of rows.
        let mut sums = [[I::no_sums(); 2]; T];
        for step in (first..first + count).step_by(2) {
            let at = codes.add(step * STEP_BYTES);
            let q = [I::bytes(at), I::bytes(at.add(STEP_BYTES))];
            for t in (0..T).step_by(2) {
                let two = [acts[t].add(4 * step), acts[(t + 1).min(T - 1)].add(4 * step)];
                sums[t / 2] = I::accumulate_pairs::<WIDTH>(sums[t / 2], q, two);
            }
            for t in (0..T).step_by(2) {
                sums[t / 2] = [I::settle(sums[t / 2][0]), I::settle(sums[t / 2][1])];
            }
        }
        let mut products = [I::no_sums(); T];
        for t in 0..T {
            products[t] = I::unpair(sums[t / 2])[t % 2];
        }
        products
    }
}

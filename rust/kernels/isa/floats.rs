//! The vector operations on floats and integers that every instruction set implements.
//!
//! A vector has 16 lanes; a lane is a row of a weight matrix, a position of the KV cache, or an element of a
//! row. The number of registers of a vector depends on the instruction set. Every algorithm is written once,
//! over this trait, and gives the same bits everywhere: each operation defines the order and the rounding of
//! its sums.
//!
//! Implementations mark every method `#[inline(always)]` (the scalar one, which needs no feature, has its larger
//! methods as functions) and never `#[target_feature]`: features are enabled once, by the entry points in
//! `entry/`. Kernels use no closures, because closures silently lose these features.

/// An instruction set.
///
/// # Safety
///
/// Every method may be called only if the CPU has the instruction set, and pointers must be
/// valid for the 16 lanes (or 64 bytes) that the method reads or writes; no alignment is needed.
#[allow(clippy::missing_safety_doc)] // the contract above is that of every method
pub unsafe trait Isa: Copy {
    /// 16 lanes of f32.
    type F: Copy;
    /// 16 lanes of i32.
    type I: Copy;
    /// Rows of f32 activations (8, 6 or 4) that are multiplied with a column of weights at a time.
    const TILE_F32: usize;
    /// True if `pair` and `add_pairs` are implemented.
    const PAIRS: bool = false;

    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self::F;
    /// 16 floats.
    unsafe fn load(p: *const f32) -> Self::F;
    /// 16 halves (f16), widened exactly.
    unsafe fn load_f16(p: *const u16) -> Self::F;
    /// 16 bfloat16, widened exactly.
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// Writes 16 floats.
    unsafe fn store(p: *mut f32, x: Self::F);
    /// x + y.
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F;
    /// x - y.
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F;
    /// x y.
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F;
    /// x / y.
    unsafe fn div(x: Self::F, y: Self::F) -> Self::F;
    /// x y + z, rounded once.
    unsafe fn fma(x: Self::F, y: Self::F, z: Self::F) -> Self::F;
    /// The larger of each lane; unspecified for NaN.
    unsafe fn max(x: Self::F, y: Self::F) -> Self::F;
    /// The smaller of each lane; unspecified for NaN.
    unsafe fn min(x: Self::F, y: Self::F) -> Self::F;
    /// |x|.
    unsafe fn abs(x: Self::F) -> Self::F;
    /// 16 bfloat16 of a column and 16 of the next, as words of 32 bits with the first in the higher half.
    unsafe fn pair(_first: *const u16, _second: *const u16) -> Self::F {
        unreachable!("only called if PAIRS is true")
    }
    /// acc + the products of a pair of columns with the pair at `x`, the higher half first, each by
    /// an FMA that treats subnormal numbers as zero.
    unsafe fn add_pairs(_acc: Self::F, _weights: Self::F, _x: *const f32) -> Self::F {
        unreachable!("only called if PAIRS is true")
    }
    /// The lanes' sum by halving: lane i + lane i+8, then i+4, i+2, i+1.
    unsafe fn sum(x: Self::F) -> f32;
    /// The largest lane.
    unsafe fn largest(x: Self::F) -> f32;
    /// Nearest integers, ties to even.
    unsafe fn round(x: Self::F) -> Self::I;
    /// Integers as floats, to nearest.
    unsafe fn float(x: Self::I) -> Self::F;
    /// 2^x for x in -126..=127.
    unsafe fn pow2(x: Self::I) -> Self::F;
    /// All lanes `x`.
    unsafe fn splat_i(x: i32) -> Self::I;
    /// 16 unsigned bytes.
    unsafe fn load_u8(p: *const u8) -> Self::I;
    /// 16 signed bytes.
    unsafe fn load_i8(p: *const u8) -> Self::I;
    /// x + y.
    unsafe fn add_i(x: Self::I, y: Self::I) -> Self::I;
    /// x & y.
    unsafe fn and_i(x: Self::I, y: Self::I) -> Self::I;
    /// The larger of each lane.
    unsafe fn max_i(x: Self::I, y: Self::I) -> Self::I;
    /// The smaller of each lane.
    unsafe fn min_i(x: Self::I, y: Self::I) -> Self::I;
    /// x << BY.
    unsafe fn shift_left<const BY: i32>(x: Self::I) -> Self::I;
    /// x >> BY for x >= 0.
    unsafe fn shift_right<const BY: i32>(x: Self::I) -> Self::I;
    /// The floats that have these bits.
    unsafe fn cast(x: Self::I) -> Self::F;
    /// The lanes' sum.
    unsafe fn sum_i(x: Self::I) -> i32;
    /// Writes 16 integers within -128..=127 as bytes.
    unsafe fn store_i8(p: *mut i8, x: Self::I);
}

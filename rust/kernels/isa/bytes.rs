//! The vector operations on codes (bytes), and their products with int8 activations.

use crate::kernels::isa::floats::Isa;
use crate::kernels::shape::{SPAN, STEPS};

/// Steps of a span: the most steps that are summed before `fold`.
pub const ANY: usize = SPAN * STEPS;

/// The vector operations on codes.
///
/// # Safety
///
/// That of `Isa`.
#[allow(clippy::missing_safety_doc)] // the contract above is that of every method
pub unsafe trait Bytes: Isa {
    /// 64 bytes: four consecutive codes of each of 16 rows.
    type B: Copy;
    /// Exact sums of the products of some steps.
    type W: Copy;
    /// Number of steps that `W` can sum for codes of 4, 5, 6, 7 and 8 bits, at most `ANY`.
    const ROOM: [usize; 5];
    /// Codes of 8 bits are multiplied as `code - CENTER`.
    const CENTER: i32;
    /// Rows of activations (8, 4 or 2) that are multiplied with unpacked codes of 4, 5, 6, 7 and 8 bits at a
    /// time: as many as registers hold.
    const TILE: [usize; 5];
    /// Rows of activations (1 to 4) that are multiplied at a time while codes of 4, 5, 6, 7 and 8 bits are
    /// unpacked.
    const FEW: [usize; 5];
    /// How many times unpacking codes of 4, 5, 6, 7 and 8 bits again, for `FEW` rows each time, is faster than
    /// unpacking them once to memory.
    const PASSES: [usize; 5] = [1; 5];
    /// True if `accumulate_pairs` multiplies two rows of activations at a time.
    const PAIRED: bool = false;

    /// 64 bytes.
    unsafe fn bytes(p: *const u8) -> Self::B;
    /// Writes 64 bytes.
    unsafe fn store_bytes(p: *mut u8, x: Self::B);
    /// `bits` bits of each byte, from bit `shift` up.
    unsafe fn field(x: Self::B, shift: u32, bits: u32) -> Self::B;
    /// Each byte shifted left by `shift` bits; no bit may leave its byte.
    unsafe fn raise(x: Self::B, shift: u32) -> Self::B;
    /// x | y.
    unsafe fn or(x: Self::B, y: Self::B) -> Self::B;
    /// Code `element` (0..4) of each row as a float.
    unsafe fn code(x: Self::B, element: u32) -> Self::F;
    /// The level of each byte: byte `i` of the 16 at `levels` for a byte `i` below 16.
    unsafe fn look_up(x: Self::B, levels: *const u8) -> Self::B;
    /// Sums of zero.
    unsafe fn no_sums() -> Self::W;
    /// Adds the products of one step: codes of `BITS` bits of 16 rows, and four activations within
    /// -127..=127, the same for all rows.
    unsafe fn accumulate<const BITS: usize>(sums: Self::W, q: Self::B, acts: *const i8) -> Self::W;
    /// Adds the products of two steps of codes, [16 rows][8], with eight activations of each of two
    /// rows; only if `PAIRED`.
    unsafe fn accumulate_pairs<const BITS: usize>(
        _sums: [Self::W; 2],
        _q: [Self::B; 2],
        _acts: [*const i8; 2],
    ) -> [Self::W; 2] {
        unreachable!("only called if PAIRED is true")
    }
    /// The sums of the first row of activations and of the second.
    unsafe fn unpair(_sums: [Self::W; 2]) -> [Self::W; 2] {
        unreachable!("only called if PAIRED is true")
    }
    /// The same sums; keeps the compiler from moving later work before these sums are complete.
    unsafe fn settle(sums: Self::W) -> Self::W;
    /// x + the sums.
    unsafe fn fold(x: Self::I, sums: Self::W) -> Self::I;
    /// Numbers of 16 bits in the form that `fold_by` takes: the number in the lower half, anything above.
    unsafe fn factor(x: Self::I) -> Self::I;
    /// x + the sums times a `factor`.
    unsafe fn fold_by(x: Self::I, sums: Self::W, by: Self::I) -> Self::I;
    /// x + the product of the lower 16 bits + the product of the upper 16 bits of each lane, all signed.
    unsafe fn dot_pairs(x: Self::I, y: Self::I, z: Self::I) -> Self::I;
    /// 16 integers.
    unsafe fn words(p: *const u8) -> Self::I;
    /// Writes 16 integers.
    unsafe fn store_words(p: *mut i32, x: Self::I);
}

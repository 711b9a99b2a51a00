//! What an instruction set offers for codes: their bytes, and products with int8 activations.

use crate::kernels::isa::floats::Isa;
use crate::kernels::shape::{SPAN, STEPS};

/// Steps of a span: as many as sums of 32 bits are asked for.
pub const ANY: usize = SPAN * STEPS;

/// The vocabulary of bytes.
///
/// # Safety
///
/// That of `Isa`.
#[allow(clippy::missing_safety_doc)] // the contract above is that of every method
pub unsafe trait Bytes: Isa {
    /// 64 bytes: four consecutive codes of each of 16 rows.
    type B: Copy;
    /// Sums of products of some steps, exact.
    type W: Copy;
    /// How many steps of codes of 4, 5, 6, 7 and 8 bits `W` can take, `ANY` at most.
    const ROOM: [usize; 5];
    /// Codes of 8 bits are multiplied as `code - CENTER`.
    const CENTER: i32;
    /// Rows of activations (8, 4 or 2) that meet codes of 4, 5, 6, 7 and 8 bits at a time: as many
    /// as registers hold.
    const TILE: [usize; 5];
    /// Rows of activations (1 to 4) that meet codes of 4, 5, 6, 7 and 8 bits at a time while these are
    /// unpacked.
    const FEW: [usize; 5];
    /// How often it pays to unpack codes of 4, 5, 6, 7 and 8 bits for that many rows more, instead of
    /// once for all.
    const PASSES: [usize; 5] = [1; 5];
    /// Whether two rows of activations at a time meet codes whose steps lie in pairs.
    const PAIRED: bool = false;

    /// 64 bytes.
    unsafe fn bytes(p: *const u8) -> Self::B;
    /// Writes 64 bytes.
    unsafe fn store_bytes(p: *mut u8, x: Self::B);
    /// `bits` bits of each byte, from bit `shift` up.
    unsafe fn field(x: Self::B, shift: u32, bits: u32) -> Self::B;
    /// Each byte moved up by `shift` bits, where no bit leaves its byte.
    unsafe fn raise(x: Self::B, shift: u32) -> Self::B;
    /// x | y.
    unsafe fn or(x: Self::B, y: Self::B) -> Self::B;
    /// Code `element` (0..4) of each row as a float.
    unsafe fn code(x: Self::B, element: u32) -> Self::F;
    /// Each byte's level: byte `i` of the 16 at `levels` for a byte `i` below 16.
    unsafe fn look_up(x: Self::B, levels: *const u8) -> Self::B;
    /// No products yet.
    unsafe fn no_sums() -> Self::W;
    /// Adds one step's products, code x activation: codes of `BITS` bits, four activations within
    /// -127..=127 that all rows share.
    unsafe fn accumulate<const BITS: usize>(sums: Self::W, q: Self::B, acts: *const i8) -> Self::W;
    /// Adds the products of two steps of codes, [16 rows][8], with eight activations of each of two
    /// rows; where `PAIRED` says so.
    unsafe fn accumulate_pairs<const BITS: usize>(
        _sums: [Self::W; 2],
        _q: [Self::B; 2],
        _acts: [*const i8; 2],
    ) -> [Self::W; 2] {
        unreachable!("only where PAIRED says so")
    }
    /// The sums of the first row of activations and of the second.
    unsafe fn unpair(_sums: [Self::W; 2]) -> [Self::W; 2] {
        unreachable!("only where PAIRED says so")
    }
    /// The sums as they are: whatever went into them is done before what comes after.
    unsafe fn settle(sums: Self::W) -> Self::W;
    /// x + the sums.
    unsafe fn fold(x: Self::I, sums: Self::W) -> Self::I;
    /// Numbers of 16 bits as `fold_by` takes them: themselves in the lower half, whatever is above.
    unsafe fn factor(x: Self::I) -> Self::I;
    /// x + the sums times a `factor`.
    unsafe fn fold_by(x: Self::I, sums: Self::W, by: Self::I) -> Self::I;
    /// x + the products of the lower and of the upper 16 bits, which are signed.
    unsafe fn dot_pairs(x: Self::I, y: Self::I, z: Self::I) -> Self::I;
    /// 16 integers.
    unsafe fn words(p: *const u8) -> Self::I;
    /// Writes 16 integers.
    unsafe fn store_words(p: *mut i32, x: Self::I);
}

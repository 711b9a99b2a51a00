//! AVX-512 with VNNI, with VBMI, and with BF16: a vector is one register.

mod bytes;
mod floats;
mod look_up;
mod look_up_vbmi;

/// AVX-512 F, BW, VL and VNNI, with the extensions of `KIND`.
#[derive(Clone, Copy)]
pub struct Avx512<const KIND: u8>;

/// No extensions.
pub const PLAIN: u8 = 0;
/// Permutations of bytes.
pub const VBMI: u8 = 1;
/// VBMI, and products of bfloat16.
pub const BF16: u8 = 2;

//! Entry points for NEON (aarch64), with dot products, and with matrix products of bytes.

use super::macros::*;
use crate::kernels::isa::neon::{DOT, MATRIX, Neon, PLAIN};

// SAFETY: the functions have the contracts of those that they call.
unsafe impl<const KIND: u8> Outlined for Neon<KIND> {
    outlined! { [], Neon<PLAIN>, Self }
}

pub const NEON: Kernels = kernels! { [], "neon", Neon<PLAIN> };

pub const NEON_DOT: Kernels = kernels! { [], "neon-dotprod", Neon<DOT>, linear_int8 peak, ..NEON };

pub const NEON_MATRIX: Kernels =
    kernels! { [], "neon-i8mm", Neon<MATRIX>, linear_int8 peak, ..NEON };

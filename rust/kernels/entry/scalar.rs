//! Entry points in plain Rust, for any CPU.

use super::macros::*;
use crate::kernels::isa::scalar::Scalar;

// SAFETY: plain Rust runs everywhere; the functions have the contracts of those that they call.
unsafe impl Outlined for Scalar {
    outlined! { [], Self, Self }
}

pub const SCALAR: Kernels = kernels! { [], "scalar", Scalar };

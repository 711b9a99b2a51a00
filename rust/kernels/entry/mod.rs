//! Entry points: the generic kernels compiled once for each instruction set.
//!
//! A kernel is an `#[inline(always)]` function over an instruction set's type. Only the functions written by
//! the macros of this folder enable target features; everything else is inlined into them. The exceptions are
//! small functions in `isa/` around assembly or a few intrinsics, which name the features of their registers.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
mod macros;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod scalar;

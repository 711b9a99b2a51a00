//! Entry points: the generic kernels compiled once for each instruction set.
//!
//! A kernel is an `#[inline(always)]` function over an instruction set's type. Only the functions written by
//! the macros of this folder enable target features; everything else is inlined into them. (Instructions
//! written as assembly are the exception: their small functions in `isa/` name the features of their
//! registers.)

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
mod macros;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod scalar;

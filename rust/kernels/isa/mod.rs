//! Instruction sets: the vector operations that kernels are written in, and each CPU's implementation.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(super) mod book_planes;
pub(super) mod books;
pub(super) mod bytes;
pub mod floats;
pub(super) mod look_up;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod scalar;

//! Instruction sets: the vector operations that kernels are written in, and their implementations.
//!
//! `floats.rs`, `bytes.rs` and `look_up.rs` define the operations as traits; each folder implements them for
//! one family of CPUs.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "x86_64")]
mod book_planes;
mod books;
pub mod bytes;
pub mod floats;
pub mod look_up;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod scalar;

//! NEON (aarch64), with dot products and matrix products of bytes.

mod bytes;
pub(in crate::kernels) mod floats;
pub(in crate::kernels) mod look_up;

//! AVX2 with FMA and F16C, and AVX-VNNI.

mod bytes;
pub(in crate::kernels) mod floats;
pub(in crate::kernels) mod look_up;

//! AVX-512 with VNNI, VBMI and BF16.

mod bytes;
pub(in crate::kernels) mod floats;
pub(in crate::kernels) mod look_up;
mod look_up_vbmi;

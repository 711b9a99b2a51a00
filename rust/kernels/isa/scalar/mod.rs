//! Plain Rust: always compiled, always tested, the meaning of every other instruction set.

mod bytes;
pub(in crate::kernels) mod floats;
pub(in crate::kernels) mod look_up;

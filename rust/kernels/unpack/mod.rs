//! Weights from the run-time layout into bytes and f32 scales that products read.

pub(super) mod look_up;
mod one_bit;
mod signs;
pub(super) mod span;

//! Unpacking: packed weights to bytes and f32 scales that products read.

mod block_words;
mod integer_scales;
pub(super) mod look_up;
mod one_bit;
pub(super) mod scales;
mod signs;
pub(super) mod span;

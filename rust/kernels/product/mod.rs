//! Matrix products: blocks of 16 rows of weights times rows of activations.

mod activation_terms;
mod activation_tiles;
pub(super) mod bf16;
mod bf16_rounding;
mod dot_steps;
mod few_tokens;
pub(super) mod floats;
pub(super) mod int8;
mod integer_scales;
mod many_tokens;
mod output;
pub(super) mod peak_loop;
pub mod scratch;
mod unpack_multiply;

//! Matrix products: blocks of 16 rows of weights times rows of activations.

pub(super) mod activation_terms;
pub(super) mod activation_tiles;
pub mod bf16;
pub(super) mod dot_steps;
pub(super) mod few_tokens;
pub mod floats;
pub mod int8;
pub(super) mod integer_scales;
pub(super) mod many_tokens;
pub(super) mod output;

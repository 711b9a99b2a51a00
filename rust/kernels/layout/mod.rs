//! How weights lie in memory while a model runs.

pub(super) mod memory;
pub(super) mod pack;
pub mod packed;
pub mod scales;
pub(super) mod words;

//! How weights lie in memory while a model runs.

mod floats;
pub(super) mod line;
pub(super) mod memory;
pub(super) mod pack;
pub mod packed;
pub(super) mod scales;
pub(super) mod source;
pub(super) mod words;

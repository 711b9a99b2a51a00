//! Number formats: how a row of weights is stored, read and written.
//!
//! A quantized row unpacks to unsigned codes, one scale a group and, where the format has them,
//! one minimum a group:
//!
//! ```text
//! value = scale * (code - offset) + min
//! ```
//!
//! in f32, each operator rounded. Decoding and the kernels' run-time layout both come from that, so
//! a format is added by writing its `unpack` and its `encode`, and where its scales are bytes its
//! `scale_bytes`, and naming them in `table.rs`, `decode.rs` and `encode.rs`.

mod affine;
mod affine_search;
mod bits;
mod codebook;
mod codes;
mod decode;
mod encode;
pub mod floats;
pub mod grid;
mod grid_encode;
pub(crate) mod grids;
mod iq1_encode;
mod k;
mod k_encode;
mod legacy;
mod levels;
mod points;
mod quantized_row;
mod search;
mod table;
mod ternary;

pub use affine::Affine;
pub use codes::{Codes, ScaleBytes, Scales};
pub use levels::Levels;
pub use points::{Eight, Points, Signs};
pub use quantized_row::{QuantizedRow, ScaleKind, scale_of_byte};
pub use table::{Family, Format};

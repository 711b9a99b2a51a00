//! Sizes that all kernels share: lanes of a vector, columns of a chunk, columns of a span.
//!
//! ```text
//! block    16 rows of a weight matrix: a vector lane is a row
//!   span     256 columns of a block: one super-block of a K format
//!     chunk    32 columns
//!       step     4 columns: 64 codes of one byte
//! ```

/// Rows in one block of a packed matrix; lanes of a vector.
pub const LANES: usize = 16;
/// Columns of a chunk: the shortest run of columns whose int8 activations share a scale.
pub const CHUNK: usize = 32;
/// Steps of a chunk.
pub const STEPS: usize = CHUNK / 4;
/// Bytes of the codes of one step at one byte a code.
pub const STEP_BYTES: usize = 4 * LANES;
/// Bytes of the codes of one chunk at one byte a code.
pub const CHUNK_BYTES: usize = STEPS * STEP_BYTES;
/// Chunks of a span.
pub const SPAN: usize = 8;
/// Columns of a span.
pub const SPAN_COLUMNS: usize = SPAN * CHUNK;

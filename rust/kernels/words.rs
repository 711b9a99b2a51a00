//! The run-time layout of formats whose codes are looked up: a block of the file is taken apart into
//! words of four bytes and its scale d.
//!
//! ```text
//! block of 16 rows      row 0 .. 15, then 16 .. 31, ...; missing rows are zero
//!   span of 256 columns
//!     word              16 rows x 4 bytes: bytes 4 k .. 4 k + 4 of the block without its d
//!     d                 16 rows x f16, where the block has one
//! ```

use super::isa::LANES;
use crate::formats::Format;

/// Bytes of one word of 16 rows.
pub const WORD_BYTES: usize = 4 * LANES;

/// Where a block has its scale d; IQ1_M scatters its own.
pub fn scale_at(format: Format) -> Option<usize> {
    match format {
        Format::IQ1_M => None,
        Format::TQ1_0 => Some(52),
        _ => Some(0),
    }
}

/// Words of one block.
pub fn count(format: Format) -> usize {
    format.block_bytes() / 4
}

/// Where byte `byte` of row `lane`'s block lies in the span.
fn place(format: Format, lane: usize, byte: usize) -> usize {
    let byte = match scale_at(format) {
        Some(at) if (at..at + 2).contains(&byte) => {
            return count(format) * WORD_BYTES + 2 * lane + byte - at;
        }
        Some(at) if byte > at => byte - 2,
        _ => byte,
    };
    byte / 4 * WORD_BYTES + 4 * lane + byte % 4
}

/// Puts row `lane`'s block into its span.
pub fn take_apart(format: Format, lane: usize, block: &[u8], span: &mut [u8]) {
    for (byte, &value) in block.iter().enumerate() {
        span[place(format, lane, byte)] = value;
    }
}

/// Row `lane`'s block of a span.
pub fn put_together(format: Format, lane: usize, span: &[u8], block: &mut [u8]) {
    for (byte, value) in block.iter_mut().enumerate() {
        *value = span[place(format, lane, byte)];
    }
}

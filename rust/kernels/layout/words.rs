//! The run-time layout of code-book formats at file size: blocks split into words of four bytes and the scale d.
//!
//! ```text
//! block of 16 rows      row 0 .. 15, then 16 .. 31, ...; missing rows are zero
//!   span of 256 columns
//!     word              16 rows x 4 bytes: bytes 4 k .. 4 k + 4 of the block without its d
//!     d                 16 rows x f16, where the block has one
//! ```

use crate::formats::{Codes, Format, Scales, grid};
use crate::kernels::shape::LANES;

/// Bytes of one word of 16 rows.
pub const WORD_BYTES: usize = 4 * LANES;

/// The meaning of codes that are looked up in a code book; None for other formats.
pub fn codes(format: Format) -> Option<Codes> {
    let codes = format.codes()?;
    let looked_up = Codes { levels: &[], scales: Scales::Blocks, halvings: 0, ..codes };
    match format {
        Format::TQ1_0 | Format::IQ1_S | Format::IQ1_M => Some(looked_up),
        Format::IQ2_XXS | Format::IQ2_XS | Format::IQ2_S | Format::IQ3_XXS | Format::IQ3_S => {
            Some(Codes { bits: 7, offset: grid::OFFSET, ..looked_up })
        }
        _ => None,
    }
}

/// Offset of the scale d in a block; None for IQ1_M, which spreads it over the block.
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

/// Splits the block of row `lane` into its lane of a span.
pub fn split_block(format: Format, lane: usize, block: &[u8], span: &mut [u8]) {
    let at = scale_at(format);
    let words = match at {
        Some(0) => &block[2..],
        Some(at) => &block[..at],
        None => block,
    };
    let (lines, halves) = span.as_chunks_mut::<WORD_BYTES>();
    for (word, line) in words.as_chunks::<4>().0.iter().zip(lines) {
        line[4 * lane..][..4].copy_from_slice(word);
    }
    if let Some(at) = at {
        halves[2 * lane..][..2].copy_from_slice(&block[at..at + 2]);
    }
}

/// Restores the block of row `lane` from a span.
pub fn join_block(format: Format, lane: usize, span: &[u8], block: &mut [u8]) {
    let (lines, halves) = span.as_chunks::<WORD_BYTES>();
    let words = match scale_at(format) {
        Some(at) => {
            block[at..at + 2].copy_from_slice(&halves[2 * lane..][..2]);
            if at == 0 { &mut block[2..] } else { &mut block[..at] }
        }
        None => block,
    };
    for (word, line) in words.as_chunks_mut::<4>().0.iter_mut().zip(lines) {
        word.copy_from_slice(&line[4 * lane..][..4]);
    }
}

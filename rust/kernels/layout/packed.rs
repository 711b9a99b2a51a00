//! The run-time layout of a weight matrix: 16 rows are interleaved, so that a vector lane is a row.
//!
//! ```text
//! block of 16 rows        row 0 .. 15, then 16 .. 31, ...; missing rows are zero
//!   chunk of 32 columns   missing columns are zero
//!     plane               the code's bits split into planes of 8, 4, 2 and 1 bits, low bits first
//!       64-byte vectors   byte 4 r + i: row r, element 4 step + i
//!                         a plane of p bits holds step s in vector s p / 8 from bit s p % 8 up
//! ```
//!
//! Scales and minima lie in buffers of their own, see `scales.rs`. Floats lie as [row block][column][16].
//! Formats with code books are packed as indices of levels, which takes 1.2 to 2 times the file's bytes, or,
//! at file size, as words of their blocks, see `words.rs`. Nothing is rounded: `Packed::row` returns exactly
//! what the file's format decodes to.

use rayon::prelude::*;

use super::memory::{Aligned, SharedBytes};
use super::pack::{Packer, read_code};
use super::scales::{self, block_is_finite};
use super::source::Source;
use super::words;
use crate::error::{Error, Result};
use crate::formats::{Codes, Format, Scales, floats};
use crate::kernels::shape::{CHUNK, LANES, SPAN, STEP_BYTES};
use crate::threads::in_pool;

/// The bits of 2^-54 as an f32: products of bfloat16 from there up are never subnormal, see
/// `product/bf16.rs`.
pub const LEAST_BF16: u32 = (127 - 54) << 23;

/// How the elements of a matrix are stored.
pub enum Storage {
    /// Elements of F32, F16 or BF16.
    Floats(Format),
    /// Planes of codes with scales.
    Planes(Codes),
    /// The file's blocks in words of 32 bits, see `words.rs`.
    Words(Format, Codes),
}

/// A weight matrix [rows, columns] in the run-time layout.
pub struct Packed {
    pub rows: usize,
    pub columns: usize,
    pub storage: Storage,
    /// Codes, floats or blocks.
    pub data: Aligned,
    /// Bytes of `data` in one block of 16 rows.
    pub block_bytes: usize,
    /// The level of each code, if codes are indices of levels.
    pub levels: [u8; 16],
    scales: Aligned,
    scale_bytes: usize,
    mins: Aligned,
    min_bytes: usize,
    groups: usize,
    takes_bf16: bool,
}

impl Packed {
    /// Packs `rows` rows of `format`, 16 at a time, in parallel. `keep_file_size` keeps code-book weights at
    /// file size, which is slower; results are the same.
    ///
    /// # Errors
    ///
    /// `Shape` if the length of `data` does not fit, `Format` if a weight or a scale is not finite.
    pub fn new(
        data: &[u8],
        format: Format,
        rows: usize,
        columns: usize,
        keep_file_size: bool,
    ) -> Result<Self> {
        let row_bytes = format.row_bytes(columns)?;
        if Some(data.len()) != row_bytes.checked_mul(rows) || rows == 0 || columns == 0 {
            return Err(Error::shape(format!(
                "{rows} rows of {columns} elements as {} take {rows} x {row_bytes} bytes, found {}",
                format.name(),
                data.len()
            )));
        }
        in_pool(0, || Self::pack(data, format, rows, columns, keep_file_size))?
    }

    fn pack(
        data: &[u8],
        format: Format,
        rows: usize,
        columns: usize,
        keep_file_size: bool,
    ) -> Result<Self> {
        let words = if keep_file_size { words::codes(format) } else { None };
        let (packed, finite) = match words.or(format.codes()) {
            None => {
                let mut packed = Self::empty(Storage::Floats(format), rows, columns);
                packed.takes_bf16 = format == Format::BF16 && none_tiny(data);
                (packed.with_floats(data, format.block_bytes()), all_finite(data, format))
            }
            Some(codes) if codes.scales == Scales::Blocks => {
                let size = format.block_bytes();
                let packed = Self::empty(Storage::Words(format, codes), rows, columns);
                let finite =
                    data.par_chunks_exact(size).all(|block| block_is_finite(format, block));
                (packed.with_words(data, format), finite)
            }
            Some(codes) => {
                Self::empty(Storage::Planes(codes), rows, columns).with_codes(data, format)
            }
        };
        if finite {
            return Ok(packed);
        }
        Err(Error::format("a weight or a scale is NaN or infinite")
            .hint("the file is damaged, or the model was trained to overflow"))
    }

    /// A matrix whose weights are not filled in.
    pub(super) fn empty(storage: Storage, rows: usize, columns: usize) -> Self {
        let none = || Aligned::zeroed(0);
        let (data, scales, mins) = (none(), none(), none());
        let (scale_bytes, min_bytes, groups, block_bytes) = (0, 0, 0, 0);
        let levels = [0; 16];
        Self {
            rows,
            columns,
            storage,
            data,
            block_bytes,
            levels,
            scales,
            scale_bytes,
            mins,
            min_bytes,
            groups,
            takes_bf16: false,
        }
    }

    /// Fills in floats of `size` bytes, column by column.
    fn with_floats(mut self, data: &[u8], size: usize) -> Self {
        let row_bytes = data.len() / self.rows;
        self.block_bytes = row_bytes * LANES;
        self.data = Aligned::zeroed(self.blocks() * self.block_bytes);
        let sources = data.par_chunks(self.block_bytes);
        let targets = self.data.as_mut_slice().par_chunks_mut(self.block_bytes);
        targets.zip(sources).for_each(|(out, rows)| match size {
            2 => interleave::<2>(rows, row_bytes, out),
            _ => interleave::<4>(rows, row_bytes, out),
        });
        self
    }

    /// Fills in spans of words, 256 columns each.
    fn with_words(mut self, data: &[u8], format: Format) -> Self {
        let (row_bytes, size) = (data.len() / self.rows, format.block_bytes());
        self.block_bytes = row_bytes * LANES;
        self.data = Aligned::zeroed(self.blocks() * self.block_bytes);
        let sources = data.par_chunks(self.block_bytes);
        let targets = self.data.as_mut_slice().par_chunks_mut(self.block_bytes);
        targets.zip(sources).for_each(|(out, rows)| {
            for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                for (block, span) in row.chunks_exact(size).zip(out.chunks_exact_mut(LANES * size))
                {
                    words::split_block(format, lane, block, span);
                }
            }
        });
        self
    }

    /// Fills in planes and scales; returns also whether all scales are finite.
    fn with_codes(mut self, data: &[u8], format: Format) -> (Self, bool) {
        let codes = format.codes().expect("floats have none");
        let (blocks, chunks) = (self.blocks(), self.columns.div_ceil(CHUNK));
        // Groups of 16 come in pairs: the second half of the last chunk has a scale too.
        self.groups = (chunks * CHUNK).div_ceil(codes.group);
        self.block_bytes = chunks * STEP_BYTES * codes.stored_bits();
        (self.scale_bytes, self.min_bytes) = scales::bytes_of(&codes, self.groups);
        self.data = Aligned::zeroed(blocks * self.block_bytes);
        self.scales = Aligned::zeroed(blocks * self.scale_bytes);
        self.mins = Aligned::zeroed(blocks * self.min_bytes);
        self.levels[..codes.levels.len()].copy_from_slice(codes.levels);
        let finite = {
            let mins = SharedBytes(self.mins.as_mut_slice().as_mut_ptr());
            let (min_bytes, row_bytes) = (self.min_bytes, data.len() / self.rows);
            let (columns, groups) = (self.columns, self.groups);
            let outputs = self
                .data
                .as_mut_slice()
                .par_chunks_mut(self.block_bytes)
                .zip(self.scales.as_mut_slice().par_chunks_mut(self.scale_bytes))
                .zip(data.par_chunks(LANES * row_bytes))
                .enumerate();
            outputs
                .map_init(
                    || Packer::new(format, columns, groups),
                    |packer, (block, ((out, scales), rows))| {
                        // SAFETY: each block of rows writes its own range, allocated above.
                        let mins = unsafe { mins.range(block * min_bytes, min_bytes) };
                        packer.pack(rows, row_bytes, out, scales, mins)
                    },
                )
                .reduce(|| true, |one, other| one && other)
        };
        (self, finite)
    }

    /// True if the fast layout of `format` takes more bytes than its file; only then does `small` of
    /// `new` change anything.
    pub fn larger_than_file(format: Format) -> bool {
        words::codes(format).is_some()
    }

    /// Bytes of memory that the matrix takes.
    pub fn bytes(&self) -> usize {
        [&self.data, &self.scales, &self.mins].iter().map(|buffer| buffer.as_slice().len()).sum()
    }

    /// Blocks of 16 rows.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// The meaning of its codes; None for floats.
    pub fn codes(&self) -> Option<Codes> {
        match self.storage {
            Storage::Floats(_) => None,
            Storage::Planes(codes) | Storage::Words(_, codes) => Some(codes),
        }
    }

    /// True if the weights can be multiplied with int8 activations: groups must fit chunks.
    pub fn takes_int8(&self) -> bool {
        self.codes().is_some_and(|codes| codes.activation_group().is_some())
    }

    /// Chunks of int8 activations that share a scale; None if the weights do not take int8 activations.
    pub fn sharing(&self) -> Option<usize> {
        Some(self.codes()?.activation_group()? / CHUNK)
    }

    /// True if the weights can be multiplied with activations rounded to bfloat16: BF16 weights that are zero or
    /// at least 2^-54 in magnitude, see `product/bf16.rs`.
    pub fn takes_bf16(&self) -> bool {
        self.takes_bf16
    }

    /// Bytes of the scales of a span and of its minima, rounded up; for prefetching.
    pub fn span_scales(&self) -> [usize; 2] {
        let spans = self.columns.div_ceil(SPAN * CHUNK);
        [self.scale_bytes.div_ceil(spans), self.min_bytes.div_ceil(spans)]
    }

    /// The scales of block `block`.
    pub fn source(&self, block: usize) -> Source {
        assert!(block < self.blocks());
        Source {
            scales: self.scales.as_ptr().wrapping_add(block * self.scale_bytes),
            mins: self.mins.as_ptr().wrapping_add(block * self.min_bytes),
        }
    }

    /// Decodes row `row` into `out`, `columns` floats.
    ///
    /// # Panics
    ///
    /// Panics if there is no such row or `out` has another length.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        let (block, lane) = (row / LANES, row % LANES);
        let data = &self.data.as_slice()[block * self.block_bytes..][..self.block_bytes];
        match &self.storage {
            Storage::Floats(format) => {
                let size = format.block_bytes();
                let elements = data.chunks_exact(size).skip(lane).step_by(LANES);
                for (value, bytes) in out.iter_mut().zip(elements) {
                    *value = floats::element(*format, bytes);
                }
            }
            Storage::Words(format, _) => {
                let mut block = vec![0; format.block_bytes()];
                let spans = data.chunks_exact(LANES * block.len());
                for (span, out) in spans.zip(out.chunks_exact_mut(format.block())) {
                    words::join_block(*format, lane, span, &mut block);
                    format.decode_row(&block, out);
                }
            }
            Storage::Planes(codes) => {
                let scales = &self.scales.as_slice()[block * self.scale_bytes..];
                let mins = &self.mins.as_slice()[block * self.min_bytes..];
                for (group, out) in out.chunks_mut(codes.group).enumerate() {
                    let (scale, min) = scales::read(codes, scales, mins, group, lane);
                    for (k, value) in out.iter_mut().enumerate() {
                        let k = group * codes.group + k;
                        let mut q = read_code(data, codes.stored_bits(), lane, k);
                        if !codes.levels.is_empty() {
                            q = codes.levels[usize::from(q)];
                        }
                        *value = scale * (f32::from(q) - f32::from(codes.offset));
                        if codes.has_min {
                            *value += min;
                        }
                    }
                }
            }
        }
    }
}

/// Interleaves up to 16 rows of elements of `N` bytes.
fn interleave<const N: usize>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let out = out.as_chunks_mut::<N>().0;
    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
        for (k, value) in row.as_chunks::<N>().0.iter().enumerate() {
            out[k * LANES + lane] = *value;
        }
    }
}

/// True if no bfloat16 other than zero is below 2^-54 in magnitude.
fn none_tiny(data: &[u8]) -> bool {
    let least = (LEAST_BF16 >> 16) as u16;
    data.par_chunks(1 << 16).all(|piece| {
        let mut tiny = false;
        for b in piece.as_chunks::<2>().0 {
            // Zero wraps to the largest.
            tiny |= (u16::from_le_bytes(*b) & 0x7fff).wrapping_sub(1) < least - 1;
        }
        !tiny
    })
}

/// True if no float is infinite or NaN: if no exponent has all bits set.
fn all_finite(data: &[u8], format: Format) -> bool {
    let two = |mask: u16| {
        data.par_chunks(1 << 16).all(|piece| {
            let mut worst = 0;
            for b in piece.as_chunks::<2>().0 {
                worst = worst.max(u16::from_le_bytes(*b) & mask);
            }
            worst < mask
        })
    };
    match format {
        Format::F16 => two(0x7c00),
        Format::BF16 => two(0x7f80),
        _ => data.par_chunks(1 << 16).all(|piece| {
            let mut worst = 0;
            for b in piece.as_chunks::<4>().0 {
                worst = worst.max(u32::from_le_bytes(*b) & 0x7f80_0000);
            }
            worst < 0x7f80_0000
        }),
    }
}

//! The run-time layout of a weight matrix: 16 rows interleaved, so that a vector lane is a row.
//!
//! ```text
//! block of 16 rows        row 0 .. 15, then 16 .. 31, ...; missing rows are zero
//!   chunk of 32 columns   missing columns are zero
//!     plane               the code's bits split into planes of 8, 4, 2 and 1 bits, low bits first
//!       64-byte vectors   byte 4 r + i: row r, element 4 step + i
//!                         a plane of p bits holds step s in vector s p / 8 from bit s p % 8 up
//! ```
//!
//! Scales (and minima) lie apart as [row block][group][16], f16 where the format's are, else f32.
//! Floats lie as [row block][column][16]. Nothing is rounded: a row reads back exactly.

use rayon::prelude::*;

use super::isa::{CHUNK, LANES, STEP_BYTES, STEPS};
use crate::error::{Error, Result};
use crate::formats::{Codes, Format};

/// The planes of a code of `bits` bits, low bits first.
pub const fn planes(bits: usize) -> [usize; 4] {
    match bits {
        1 => [1, 0, 0, 0],
        2 => [2, 0, 0, 0],
        3 => [2, 1, 0, 0],
        4 => [4, 0, 0, 0],
        5 => [4, 1, 0, 0],
        6 => [4, 2, 0, 0],
        7 => [4, 2, 1, 0],
        _ => [8, 0, 0, 0],
    }
}

/// Bytes that start on a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Memory on cache lines, of any length.
pub struct Aligned {
    lines: Vec<Line>,
    bytes: usize,
}

impl Aligned {
    /// `bytes` zero bytes.
    pub fn zeroed(bytes: usize) -> Self {
        Self { lines: vec![Line([0; 64]); bytes.div_ceil(64)], bytes }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the lines are initialised bytes without padding, `bytes` of them at least.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.bytes) }
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.bytes) }
    }

    /// The first byte, on a cache line.
    pub fn as_ptr(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }
}

/// How a matrix is stored.
pub enum Storage {
    /// F32, F16 or BF16, element by element.
    Floats(Format),
    /// Planes of codes with scales.
    Codes(Codes),
}

/// A weight matrix [rows, columns] in the run-time layout.
pub struct Packed {
    pub rows: usize,
    pub columns: usize,
    pub storage: Storage,
    /// Codes or floats.
    pub data: Aligned,
    /// Bytes of `data` in one block of 16 rows.
    pub block_bytes: usize,
    /// Scales, empty for floats.
    pub scales: Aligned,
    /// Minima, empty where the format has none.
    pub mins: Aligned,
    /// Groups of one row, the padding of the last chunk included.
    pub groups: usize,
}

impl Packed {
    /// Packs `rows` rows of `format`, 16 at a time in parallel.
    ///
    /// # Errors
    ///
    /// `Shape` for a length that does not fit, `Format` for a weight or scale that is not finite.
    pub fn new(data: &[u8], format: Format, rows: usize, columns: usize) -> Result<Self> {
        let row_bytes = format.row_bytes(columns)?;
        if Some(data.len()) != row_bytes.checked_mul(rows) || rows == 0 || columns == 0 {
            return Err(Error::shape(format!(
                "{rows} rows of {columns} elements as {} take {rows} x {row_bytes} bytes, found {}",
                format.name(),
                data.len()
            )));
        }
        let (packed, finite) = match format.codes() {
            None => (Self::floats(data, format, rows, columns), all_finite(data, format)),
            Some(codes) => {
                let packed = Self::codes(data, format, codes, rows, columns);
                let scales = if codes.f16_scales { Format::F16 } else { Format::F32 };
                let finite = [&packed.scales, &packed.mins]
                    .into_iter()
                    .all(|values| all_finite(values.as_slice(), scales));
                (packed, finite)
            }
        };
        if finite {
            return Ok(packed);
        }
        Err(Error::format("a weight or a scale is NaN or infinite")
            .hint("the file is damaged, or the model was trained to overflow"))
    }

    fn floats(data: &[u8], format: Format, rows: usize, columns: usize) -> Self {
        let size = format.block_bytes();
        let block_bytes = columns * LANES * size;
        let mut packed = Aligned::zeroed(rows.div_ceil(LANES) * block_bytes);
        let sources = data.par_chunks(LANES * columns * size);
        packed.as_mut_slice().par_chunks_mut(block_bytes).zip(sources).for_each(|(out, rows)| {
            for (lane, row) in rows.chunks_exact(columns * size).enumerate() {
                for (k, value) in row.chunks_exact(size).enumerate() {
                    out[(k * LANES + lane) * size..][..size].copy_from_slice(value);
                }
            }
        });
        let none = || Aligned::zeroed(0);
        let storage = Storage::Floats(format);
        Self {
            rows,
            columns,
            storage,
            data: packed,
            block_bytes,
            scales: none(),
            mins: none(),
            groups: 0,
        }
    }

    fn codes(data: &[u8], format: Format, codes: Codes, rows: usize, columns: usize) -> Self {
        let blocks = rows.div_ceil(LANES);
        let chunks = columns.div_ceil(CHUNK);
        // Groups of 16 come in pairs: the second half of the last chunk has a scale too.
        let groups = (chunks * CHUNK).div_ceil(codes.group);
        let size = if codes.f16_scales { 2 } else { 4 };
        let block_bytes = chunks * STEP_BYTES * usize::from(codes.bits);
        let scale_bytes = groups * LANES * size;
        let mut packed = Aligned::zeroed(blocks * block_bytes);
        let mut scales = Aligned::zeroed(blocks * scale_bytes);
        let mut mins = Aligned::zeroed(if codes.has_min { blocks * scale_bytes } else { 0 });
        let row_bytes = data.len() / rows;
        {
            let min_bytes = if codes.has_min { scale_bytes } else { 0 };
            let outputs = packed
                .as_mut_slice()
                .par_chunks_mut(block_bytes)
                .zip(scales.as_mut_slice().par_chunks_mut(scale_bytes))
                .enumerate();
            let mins = SharedBytes(mins.as_mut_slice().as_mut_ptr());
            outputs.for_each_init(
                || Unpacked::new(columns, chunks * CHUNK, groups),
                |row, (block, (out, scales))| {
                    // SAFETY: every block writes its own part of the minima, allocated above.
                    let mins = unsafe { mins.part(block * min_bytes, min_bytes) };
                    let first = block * LANES * row_bytes;
                    let last = data.len().min(first + LANES * row_bytes);
                    for (lane, bytes) in data[first..last].chunks_exact(row_bytes).enumerate() {
                        row.read(format, bytes);
                        interleave(&row.q, usize::from(codes.bits), lane, out);
                        write_scales(&row.scale, codes.f16_scales, lane, scales);
                        if codes.has_min {
                            write_scales(&row.min, codes.f16_scales, lane, mins);
                        }
                    }
                },
            );
        }
        let storage = Storage::Codes(codes);
        Self { rows, columns, storage, data: packed, block_bytes, scales, mins, groups }
    }

    /// Bytes that the layout takes.
    pub fn bytes(&self) -> usize {
        [&self.data, &self.scales, &self.mins].iter().map(|part| part.as_slice().len()).sum()
    }

    /// Blocks of 16 rows.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Whether the codes can meet activations rounded to int8: the groups fit the chunks.
    pub fn takes_int8(&self) -> bool {
        match &self.storage {
            Storage::Floats(_) => false,
            Storage::Codes(codes) => codes.group == CHUNK / 2 || codes.group % CHUNK == 0,
        }
    }

    /// Decodes row `row` into `out`, `columns` floats.
    ///
    /// # Panics
    ///
    /// Panics where there is no such row or `out` has another length.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        let (block, lane) = (row / LANES, row % LANES);
        let data = &self.data.as_slice()[block * self.block_bytes..][..self.block_bytes];
        match &self.storage {
            Storage::Floats(format) => {
                let size = format.block_bytes();
                for (k, value) in out.iter_mut().enumerate() {
                    let bytes = &data[(k * LANES + lane) * size..][..size];
                    format.decode_row(bytes, std::slice::from_mut(value));
                }
            }
            Storage::Codes(codes) => {
                for (k, value) in out.iter_mut().enumerate() {
                    let at = (block * self.groups + k / codes.group) * LANES + lane;
                    let q = read_code(data, usize::from(codes.bits), lane, k);
                    let scale = read_scale(&self.scales, codes.f16_scales, at);
                    *value = scale * (f32::from(q) - f32::from(codes.offset));
                    if codes.has_min {
                        *value += read_scale(&self.mins, codes.f16_scales, at);
                    }
                }
            }
        }
    }
}

/// Shares a pointer between threads that write disjoint parts.
struct SharedBytes(*mut u8);

// SAFETY: `part` is only called for disjoint ranges.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// # Safety
    ///
    /// The range must be allocated and no two live parts may overlap.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, start: usize, length: usize) -> &mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), length) }
    }
}

/// Whether none of the floats has an exponent of all ones.
fn all_finite(data: &[u8], format: Format) -> bool {
    let two = |mask: u16| {
        data.par_chunks(1 << 16).all(|part| {
            let mut worst = 0;
            for b in part.as_chunks::<2>().0 {
                worst = worst.max(u16::from_le_bytes(*b) & mask);
            }
            worst < mask
        })
    };
    match format {
        Format::F16 => two(0x7c00),
        Format::BF16 => two(0x7f80),
        _ => data.par_chunks(1 << 16).all(|part| {
            let mut worst = 0;
            for b in part.as_chunks::<4>().0 {
                worst = worst.max(u32::from_le_bytes(*b) & 0x7f80_0000);
            }
            worst < 0x7f80_0000
        }),
    }
}

/// One row as codes and scales, padded to whole chunks.
struct Unpacked {
    columns: usize,
    q: Vec<u8>,
    scale: Vec<f32>,
    min: Vec<f32>,
}

impl Unpacked {
    fn new(columns: usize, padded: usize, groups: usize) -> Self {
        Self { columns, q: vec![0; padded], scale: vec![0.0; groups], min: vec![0.0; groups] }
    }

    fn read(&mut self, format: Format, bytes: &[u8]) {
        let columns = self.columns;
        format.unpack_row(bytes, columns, &mut self.q[..columns], &mut self.scale, &mut self.min);
    }
}

/// Writes one row's codes into its lane of a block.
fn interleave(q: &[u8], bits: usize, lane: usize, out: &mut [u8]) {
    for (chunk, q) in out.chunks_exact_mut(STEP_BYTES * bits).zip(q.chunks_exact(CHUNK)) {
        let mut low = 0;
        let mut at = 0;
        for plane in planes(bits).into_iter().take_while(|&plane| plane > 0) {
            let mask = 0xffu8 >> (8 - plane);
            for step in 0..STEPS {
                let vector = at + step * plane / 8 * STEP_BYTES + 4 * lane;
                for i in 0..4 {
                    chunk[vector + i] |= ((q[4 * step + i] >> low) & mask) << (step * plane % 8);
                }
            }
            low += plane;
            at += STEP_BYTES * plane;
        }
    }
}

/// The code of column `k` in lane `lane` of a block.
fn read_code(block: &[u8], bits: usize, lane: usize, k: usize) -> u8 {
    let chunk = &block[k / CHUNK * STEP_BYTES * bits..][..STEP_BYTES * bits];
    let (step, i) = (k % CHUNK / 4, k % 4);
    let (mut low, mut at, mut q) = (0, 0, 0);
    for plane in planes(bits).into_iter().take_while(|&plane| plane > 0) {
        let byte = chunk[at + step * plane / 8 * STEP_BYTES + 4 * lane + i];
        q |= ((byte >> (step * plane % 8)) & (0xff >> (8 - plane))) << low;
        low += plane;
        at += STEP_BYTES * plane;
    }
    q
}

fn write_scales(values: &[f32], f16: bool, lane: usize, out: &mut [u8]) {
    for (group, &value) in values.iter().enumerate() {
        let at = group * LANES + lane;
        if f16 {
            out[2 * at..][..2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
        } else {
            out[4 * at..][..4].copy_from_slice(&value.to_le_bytes());
        }
    }
}

fn read_scale(scales: &Aligned, f16: bool, at: usize) -> f32 {
    let bytes = scales.as_slice();
    if f16 {
        half::f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32()
    } else {
        f32::from_le_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]])
    }
}

//! Tensors from one format into another: rows in parallel, each by way of f32.

pub mod feedback;
pub mod stream;

/// Magnitudes from 2^-40 to 32,768, and weights up to 2^40, cannot overflow.
const LEAST: f32 = 1.0 / (1u64 << 40) as f32;
const LARGE: f32 = 32768.0;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::formats::Format;
use crate::threads::in_pool;

/// Stores `rows` rows of `columns` elements, given in format `source`, in format `target`.
///
/// `importance` weights the error of each column; formats that do not use it ignore it. `threads` 0
/// means all cores; the bytes do not depend on it.
///
/// # Errors
///
/// `Shape` for lengths that do not fit, `Format` for a NaN or an infinity (it is named with its
/// row and column) and for an importance that is negative or not finite.
#[allow(clippy::too_many_arguments)] // two tensors and how they are laid out
pub fn encode_tensor(
    src: &[u8],
    source: Format,
    dst: &mut [u8],
    target: Format,
    rows: usize,
    columns: usize,
    importance: Option<&[f32]>,
    threads: usize,
) -> Result<()> {
    let slab = Slab { data: src, source, target, count: rows, columns, first: 0, importance };
    let (from, to) = slab.check()?;
    slab.check_importance()?;
    expect_bytes("target", target, dst.len(), slab.count, to)?;
    if slab.count == 0 || columns == 0 {
        return Ok(());
    }
    let bad = in_pool(threads, || {
        dst.par_chunks_exact_mut(to)
            .zip(src.par_chunks_exact(from))
            .enumerate()
            .map_init(
                || vec![0f32; columns],
                |x, (row, (dst, src))| {
                    slab.encode(row, src, x, dst).err().map(|error| (row, error))
                },
            )
            .reduce(|| None, first_of)
    })?;
    bad.map_or(Ok(()), |(_, error)| Err(error))
}

/// Neighbouring rows of one tensor to encode: `count` rows of `columns` elements.
///
/// `first` is the index of the first row, for errors. `importance` weights the error of each
/// column.
pub struct Slab<'a> {
    pub data: &'a [u8],
    pub source: Format,
    pub target: Format,
    pub count: usize,
    pub columns: usize,
    pub first: usize,
    pub importance: Option<&'a [f32]>,
}

impl Slab<'_> {
    /// Checks the bytes; returns those of a row before and after.
    fn check(&self) -> Result<(usize, usize)> {
        let from = self.source.row_bytes(self.columns)?;
        let to = self.target.row_bytes(self.columns)?;
        expect_bytes("source", self.source, self.data.len(), self.count, from)?;
        Ok((from, to))
    }

    /// Checks that the target format can be encoded with this importance, or without any.
    fn check_importance(&self) -> Result<()> {
        check_importance(self.importance, self.columns)?;
        if self.importance.is_none() && self.target.needs_importance() {
            let name = self.target.name();
            return Err(Error::format(format!("{name} needs an importance matrix")).hint(
                "`fewbit imatrix` collects one and `--imatrix` takes it; IQ2_S and Q2_K do without",
            ));
        }
        Ok(())
    }

    /// Encodes row `row` by way of `x`, a row of floats.
    fn encode(&self, row: usize, src: &[u8], x: &mut [f32], dst: &mut [u8]) -> Result<()> {
        let largest = self.source.decode_finite(src, x).map_err(|column| {
            Error::format(format!(
                "cannot store {} as {}: row {}, column {column} is not finite",
                x[column],
                self.target.name(),
                self.first + row
            ))
            .hint("the checkpoint is damaged or was trained to overflow; mend it before quantizing")
        })?;
        self.target.encode_row(x, self.importance, dst);
        if self.may_overflow(largest) {
            self.check_stored(row, src, dst, x)?;
        }
        Ok(())
    }

    /// False if no scale of a row whose largest magnitude is `largest` can overflow: every format
    /// holds numbers of this size, and sums of their squares stay finite.
    fn may_overflow(&self, largest: f32) -> bool {
        let ordinary = |x: f32, most: f32| x == 0.0 || (LEAST..most).contains(&x);
        let weights = self.importance.filter(|_| self.target.codes().is_some()).unwrap_or_default();
        !ordinary(largest, LARGE) || !weights.iter().all(|&weight| ordinary(weight, 1.0 / LEAST))
    }

    /// Refuses a row with a block that is not finite when it is read back, or whose largest number
    /// is large but read back as 0: a scale, or a sum to find it, has overflowed. `x` holds the row
    /// and is overwritten.
    #[cold]
    fn check_stored(&self, row: usize, src: &[u8], dst: &[u8], x: &mut [f32]) -> Result<()> {
        let mut stored = vec![0f32; x.len()];
        self.target.decode_row(dst, &mut stored);
        // The columns are finite: `encode` has looked at them.
        let _ = self.source.decode_finite(src, x);
        let block = self.target.block();
        for (index, (x, stored)) in x.chunks(block).zip(stored.chunks(block)).enumerate() {
            let pairs = x.iter().copied().zip(stored.iter().copied());
            let (peak, read) =
                pairs.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs())).unwrap_or_default();
            let vanished = peak.abs() >= LARGE && read == 0.0;
            if !vanished && stored.iter().all(|value| value.is_finite()) {
                continue;
            }
            let (start, row) = (index * block, self.first + row);
            let place = match x.len() {
                1 => format!("column {start}"),
                n => format!("block {index} (columns {start} to {})", start + n - 1),
            };
            let name = self.target.name();
            return Err(Error::format(format!(
                "cannot store {peak:e} as {name}: row {row}, {place} overflows"
            ))
            .hint("BF16 and F32 hold numbers of this size: keep the tensor in one of them"));
        }
        Ok(())
    }
}

/// Reads `rows` rows of `columns` elements as f32.
///
/// # Errors
///
/// `Shape` for lengths that do not fit.
pub fn decode_tensor(
    src: &[u8],
    format: Format,
    dst: &mut [f32],
    rows: usize,
    columns: usize,
    threads: usize,
) -> Result<()> {
    let from = format.row_bytes(columns)?;
    expect_bytes("source", format, src.len(), rows, from)?;
    if Some(dst.len()) != rows.checked_mul(columns) {
        return Err(Error::shape(format!("{rows} x {columns} floats, found {}", dst.len())));
    }
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    in_pool(threads, || {
        dst.par_chunks_exact_mut(columns)
            .zip(src.par_chunks_exact(from))
            .for_each(|(dst, src)| format.decode_row(src, dst));
    })
}

fn expect_bytes(
    what: &str,
    format: Format,
    found: usize,
    rows: usize,
    row_bytes: usize,
) -> Result<()> {
    if Some(found) == rows.checked_mul(row_bytes) {
        return Ok(());
    }
    Err(Error::shape(format!(
        "the {what} must hold {rows} rows of {row_bytes} bytes ({}), found {found} bytes",
        format.name()
    )))
}

fn check_importance(importance: Option<&[f32]>, columns: usize) -> Result<()> {
    let Some(weights) = importance else { return Ok(()) };
    if weights.len() != columns {
        return Err(Error::shape(format!(
            "the importance must hold {columns} weights, one a column, found {}",
            weights.len()
        )));
    }
    match weights.iter().position(|weight| !weight.is_finite() || *weight < 0.0) {
        None => Ok(()),
        Some(column) => Err(Error::format(format!(
            "the importance of column {column} is {}, expected a finite number of 0 or more",
            weights[column]
        ))),
    }
}

type Found = Option<(usize, Error)>;

/// The error in the earlier row, so that the report does not depend on the threads.
fn first_of(a: Found, b: Found) -> Found {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
        (a, b) => a.or(b),
    }
}

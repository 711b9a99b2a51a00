//! A tensor into another format: rows in parallel, a row at a time in f32.

pub mod search;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::formats::Format;

/// Stores `rows` rows of `columns` elements, given in format `source`, in format `target`.
///
/// `importance` weighs each column's error; formats that know no importance ignore it. `threads`
/// 0 means all cores; the bytes do not depend on it.
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
    let (from, to) = (source.row_bytes(columns)?, target.row_bytes(columns)?);
    expect_bytes("source", source, src.len(), rows, from)?;
    expect_bytes("target", target, dst.len(), rows, to)?;
    check_importance(importance, columns)?;
    if importance.is_none() && target.needs_importance() {
        return Err(Error::format(format!("{} needs an importance matrix", target.name())).hint(
            "llama-imatrix collects one and `--imatrix` takes it; IQ2_S and Q2_K do without",
        ));
    }
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    let bad = in_pool(threads, || {
        dst.par_chunks_exact_mut(to)
            .zip(src.par_chunks_exact(from))
            .enumerate()
            .map_init(
                || vec![0f32; columns],
                |x, (row, (dst, src))| {
                    source.decode_row(src, x);
                    if let Some(column) = first_not_finite(x) {
                        return Some((row, column, x[column]));
                    }
                    target.encode_row(x, importance, dst);
                    None
                },
            )
            .reduce(|| None, first_of)
    })?;
    match bad {
        None => Ok(()),
        Some((row, column, value)) => Err(Error::format(format!(
            "cannot store {value} as {}: row {row}, column {column} is not finite",
            target.name()
        ))
        .hint("the checkpoint is damaged or was trained to overflow; mend it before quantizing")),
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

/// The first NaN or infinity: eight exponents of all ones a look.
fn first_not_finite(x: &[f32]) -> Option<usize> {
    let mut worst = 0u32;
    for x in x {
        worst = worst.max(x.to_bits() & 0x7f80_0000);
    }
    if worst < 0x7f80_0000 {
        return None;
    }
    x.iter().position(|x| !x.is_finite())
}

type Found = Option<(usize, usize, f32)>;

/// The one in the earlier row: what is reported does not depend on the threads.
fn first_of(a: Found, b: Found) -> Found {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
        (a, b) => a.or(b),
    }
}

/// Runs `work` on `threads` threads, 0 for all cores.
pub fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    if threads == 0 {
        return Ok(work());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    Ok(pool
        .map_err(|error| Error::input(format!("cannot start {threads} threads: {error}")))?
        .install(work))
}

//! Rows into another format and straight into a file: each thread encodes a piece at a time and
//! writes it where it belongs, so memory holds a piece a thread, and writing waits for nobody.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::{Rows, first_of, in_pool};
use crate::error::{Error, Result};

/// Bytes of a piece: enough for a call of the system, few enough for the cache.
const PIECE: usize = 256 << 10;

/// Stores rows from byte `offset` of the file at `path` on, which must be there. `threads` 0 means
/// all cores; the bytes do not depend on it. Rows that are in the target's format are copied.
///
/// # Errors
///
/// As `encode_tensor`, and `System` where the file cannot be written.
pub fn encode_to_file(rows: &Rows, path: &Path, offset: u64, threads: usize) -> Result<()> {
    let (from, to) = rows.check()?;
    if rows.source != rows.target {
        rows.check_importance()?;
    }
    if rows.count == 0 || rows.columns == 0 {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(path).map_err(Error::system)?;
    let piece = (PIECE / to.max(from)).max(1);
    // Pieces behind one that failed are skipped, those before it are not: the first is reported.
    let failed = AtomicUsize::new(usize::MAX);
    let encode = |worker: &mut Worker, start: usize| {
        if start > failed.load(Ordering::Relaxed) {
            return None;
        }
        let error = worker.piece(start..rows.count.min(start + piece), &file, offset).err()?;
        failed.fetch_min(start, Ordering::Relaxed);
        Some((start, error))
    };
    let worker = || Worker { rows, from, to, x: vec![0f32; rows.columns], out: vec![] };
    let bad = if rows.count <= piece {
        encode(&mut worker(), 0) // no other thread to wake and wait for
    } else {
        in_pool(threads, || {
            (0..rows.count.div_ceil(piece))
                .into_par_iter()
                .map_init(worker, |worker, index| encode(worker, index * piece))
                .reduce(|| None, first_of)
        })?
    };
    bad.map_or(Ok(()), |(_, error)| Err(error))
}

struct Worker<'a> {
    rows: &'a Rows<'a>,
    from: usize,
    to: usize,
    x: Vec<f32>,
    out: Vec<u8>,
}

impl Worker<'_> {
    fn piece(&mut self, range: std::ops::Range<usize>, file: &File, offset: u64) -> Result<()> {
        let (rows, from, to) = (self.rows, self.from, self.to);
        let place = offset + (range.start * to) as u64;
        let src = &rows.data[range.start * from..range.end * from];
        if rows.source == rows.target {
            return write_at(file, src, place).map_err(Error::system);
        }
        self.out.resize(range.len() * to, 0);
        let out = self.out.chunks_exact_mut(to);
        for (row, (src, out)) in range.zip(src.chunks_exact(from).zip(out)) {
            rows.encode(row, src, &mut self.x, out)?;
        }
        write_at(file, &self.out, place).map_err(Error::system)
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], place: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, place)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut place: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, place)?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        place += written as u64;
    }
    Ok(())
}

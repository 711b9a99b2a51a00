//! Encoding straight into a file: each thread encodes a piece of rows and writes it in its place.
//!
//! Memory holds one piece a thread, and no thread waits for another to write.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::{Slab, first_of};
use crate::error::{Error, Result};
use crate::threads::in_pool;

/// Bytes of a piece: many enough for one system call, few enough for the cache.
const PIECE: usize = 256 << 10;

/// Stores rows in the file at `path`, which must exist, from byte `offset` on. `threads` 0 means
/// all cores; the bytes do not depend on it. Rows that have the target's format are copied.
///
/// # Errors
///
/// As `encode_tensor`, and `System` where the file cannot be written.
pub fn encode_to_file(slab: &Slab, path: &Path, offset: u64, threads: usize) -> Result<()> {
    let (from, to) = slab.check()?;
    if slab.source != slab.target {
        slab.check_importance()?;
    }
    if slab.count == 0 || slab.columns == 0 {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(path).map_err(Error::system)?;
    let piece = (PIECE / to.max(from)).max(1);
    // Pieces after a failed one are skipped, those before it are not: the first error is reported.
    let failed = AtomicUsize::new(usize::MAX);
    let encode = |worker: &mut Worker, start: usize| {
        if start > failed.load(Ordering::Relaxed) {
            return None;
        }
        let error = worker.piece(start..slab.count.min(start + piece), &file, offset).err()?;
        failed.fetch_min(start, Ordering::Relaxed);
        Some((start, error))
    };
    let worker = || Worker { slab, from, to, x: vec![0f32; slab.columns], out: vec![] };
    let bad = if slab.count <= piece {
        encode(&mut worker(), 0) // no other thread to wake and wait for
    } else {
        in_pool(threads, || {
            (0..slab.count.div_ceil(piece))
                .into_par_iter()
                .map_init(worker, |worker, index| encode(worker, index * piece))
                .reduce(|| None, first_of)
        })?
    };
    bad.map_or(Ok(()), |(_, error)| Err(error))
}

/// A thread's memory, and what it encodes.
struct Worker<'a> {
    slab: &'a Slab<'a>,
    from: usize,
    to: usize,
    x: Vec<f32>,
    out: Vec<u8>,
}

impl Worker<'_> {
    /// Encodes the rows of `range` and writes them.
    fn piece(&mut self, range: std::ops::Range<usize>, file: &File, offset: u64) -> Result<()> {
        let (slab, from, to) = (self.slab, self.from, self.to);
        let place = offset + (range.start * to) as u64;
        let src = &slab.data[range.start * from..range.end * from];
        if slab.source == slab.target {
            return write_at(file, src, place).map_err(Error::system);
        }
        self.out.resize(range.len() * to, 0);
        let out = self.out.chunks_exact_mut(to);
        for (row, (src, out)) in range.zip(src.chunks_exact(from).zip(out)) {
            slab.encode(row, src, &mut self.x, out)?;
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

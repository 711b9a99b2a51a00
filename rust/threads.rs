//! Threads for work on rows: one pool a process, and a new one in a forked child.
//!
//! `fork` copies memory but no threads. A pool that was made before it would wait for ever in the
//! child, so everything that owns threads is kept with the id of its process.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};
use std::{process, ptr, thread};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// The largest number of threads that can be asked for.
pub const MOST_THREADS: usize = 1024;

/// A value of this process: made at first use, and once more in a forked child.
///
/// No lock is taken, as another thread may have held it at the fork.
pub struct PerProcess<T> {
    value: AtomicPtr<(u32, T)>,
}

impl<T: Sync + 'static> PerProcess<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { value: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The value of this process. That of the parent is left as it is: its threads are not here,
    /// and dropping it would wait for them.
    ///
    /// # Errors
    ///
    /// The error of `make`.
    pub fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<&'static T> {
        let (known, id) = (self.value.load(Ordering::Acquire), process::id());
        // SAFETY: null or from `Box::into_raw` below, and never freed.
        if let Some((owner, value)) = unsafe { known.cast_const().as_ref::<'static>() }
            && *owner == id
        {
            return Ok(value);
        }
        let made = Box::into_raw(Box::new((id, make()?)));
        let winner =
            match self.value.compare_exchange(known, made, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => made,
                Err(other) => {
                    // SAFETY: `made` came from `Box::into_raw` and was given to nobody.
                    drop(unsafe { Box::from_raw(made) });
                    other
                }
            };
        // SAFETY: from `Box::into_raw` in this process, and never freed.
        Ok(unsafe { &(*winner.cast_const()).1 })
    }
}

impl<T: Sync + 'static> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A mutex that a forked child does not wait for in vain: no thread gives back what a thread of the
/// parent held at the fork.
pub struct ForkMutex<T> {
    value: Mutex<T>,
    /// The process that used it last: its threads wait for each other.
    process: AtomicU32,
    /// The process that found it held for ever.
    lost: AtomicU32,
}

/// How long the first use in a forked child waits for another thread of the child; a thread that
/// takes the mutex says so at once.
const CHILD_WAITS: Duration = Duration::from_millis(200);

impl<T> ForkMutex<T> {
    /// A free mutex.
    pub fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            process: AtomicU32::new(process::id()),
            lost: AtomicU32::new(0),
        }
    }

    /// The value, once no other thread of this process has it; None in a child that was forked
    /// while a thread of the parent had it.
    pub fn lock(&self) -> Option<MutexGuard<'_, T>> {
        let (id, start) = (process::id(), Instant::now());
        while self.process.load(Ordering::Acquire) != id {
            let taken = match self.value.try_lock() {
                Ok(taken) => Some(taken),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if taken.is_some() {
                self.process.store(id, Ordering::Release);
                return taken;
            }
            if self.lost.load(Ordering::Acquire) == id || start.elapsed() > CHILD_WAITS {
                self.lost.store(id, Ordering::Release);
                return None;
            }
            thread::yield_now();
        }
        Some(self.value.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// Refuses numbers of threads that no machine runs.
///
/// # Errors
///
/// `Input` beyond `MOST_THREADS`.
pub fn check_threads(threads: usize) -> Result<()> {
    if threads <= MOST_THREADS {
        return Ok(());
    }
    Err(Error::input(format!("cannot use {threads} threads, {MOST_THREADS} at most"))
        .hint("0 takes one thread per core"))
}

/// Runs `work` on `threads` threads; 0 means all cores.
///
/// # Errors
///
/// `Input` for too many threads, or if the system does not start them.
pub fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    static ALL_CORES: PerProcess<ThreadPool> = PerProcess::new();
    if threads == 0 {
        return Ok(ALL_CORES.get(|| pool(0))?.install(work));
    }
    check_threads(threads)?;
    Ok(pool(threads)?.install(work))
}

fn pool(threads: usize) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| Error::input(format!("cannot start {threads} threads: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once() {
        static VALUE: PerProcess<usize> = PerProcess::new();
        assert_eq!(VALUE.get(|| Err(Error::input("none"))), Err(Error::input("none")));
        assert_eq!(VALUE.get(|| Ok(7)), Ok(&7));
        assert_eq!(VALUE.get(|| Ok(8)), Ok(&7));
    }

    #[test]
    fn too_many_threads_are_refused() {
        assert_eq!(
            in_pool(MOST_THREADS + 1, || ()).unwrap_err().message,
            "cannot use 1025 threads, 1024 at most"
        );
        assert_eq!(in_pool(3, rayon::current_num_threads), Ok(3));
    }
}

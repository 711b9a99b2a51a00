//! Threads that execute a plan together: one wake-up a step, a barrier between stages.
//!
//! Waiting spins for a moment and then yields, so a neighbour that takes a core slows the walk
//! but does not stop it. An idle pool spins on for about the time between two tokens, then sleeps.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::{process, thread};

use crate::error::{Error, Result};
use crate::threads::{PerProcess, check_threads};

/// Turns of the spinning wait before it yields; a few microseconds.
const SPINS: usize = 2000;
/// Yields of an idle worker before it sleeps.
const YIELDS: usize = 200;

/// Spins, then yields, until `done()`; gives up after `yields` yields.
fn wait_until(done: impl Fn() -> bool, yields: usize) -> bool {
    for _ in 0..SPINS {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    for _ in 0..yields {
        if done() {
            return true;
        }
        thread::yield_now();
    }
    done()
}

/// All of `count` threads wait for each other.
pub struct Barrier {
    count: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
}

impl Barrier {
    fn new(count: usize) -> Self {
        Self { count, arrived: AtomicUsize::new(0), round: AtomicUsize::new(0) }
    }

    /// Returns when all threads have come here.
    pub fn wait(&self) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
        } else {
            wait_until(|| self.round.load(Ordering::Acquire) != round, usize::MAX);
        }
    }
}

type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    barrier: Barrier,
    /// The job of the present round: points to a `Job` on the caller's stack.
    job: AtomicPtr<()>,
    round: AtomicUsize,
    running: AtomicUsize,
    stop: AtomicBool,
    sleepers: Mutex<usize>,
    wake: Condvar,
}

/// A number of threads, the caller's among them.
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
    /// The process that has the threads; a forked child has none of them.
    process: u32,
    busy: Mutex<()>,
}

impl Pool {
    /// The process's pool of `threads` threads; 0 for as many as there are cores.
    ///
    /// # Errors
    ///
    /// `Input` for too many threads, or if the system does not start them.
    pub fn shared(threads: usize) -> Result<Arc<Pool>> {
        static POOLS: PerProcess<Mutex<HashMap<usize, Arc<Pool>>>> = PerProcess::new();
        check_threads(threads)?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores } else { threads };
        let mut pools = POOLS.get(|| Ok(Mutex::default()))?.lock().expect("no thread panics here");
        if let Some(pool) = pools.get(&threads) {
            return Ok(Arc::clone(pool));
        }
        let pool = Arc::new(Pool::new(threads)?);
        pools.insert(threads, Arc::clone(&pool));
        Ok(pool)
    }

    /// True if the threads are this process's; false in a child that was forked since.
    pub fn is_ours(&self) -> bool {
        self.process == process::id()
    }

    fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            barrier: Barrier::new(threads),
            job: AtomicPtr::new(std::ptr::null_mut()),
            round: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
        });
        // Dropped on an error, it stops the workers that have been started.
        let pool = Self { shared, threads, process: process::id(), busy: Mutex::new(()) };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new()
                .name(format!("fewbit-{worker}"))
                .spawn(move || work(&shared, worker))
                .map_err(|error| {
                    Error::input(format!("cannot start {threads} threads: {error}"))
                })?;
        }
        Ok(pool)
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The barrier that all threads of a running job may use.
    pub fn barrier(&self) -> &Barrier {
        &self.shared.barrier
    }

    /// Calls `job(worker)` once on each thread, worker 0 being the caller; returns when all have.
    pub fn run(&self, job: Job<'_>) {
        let _one_at_a_time = self.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = &*self.shared;
        shared.job.store((&raw const job).cast_mut().cast(), Ordering::Release);
        shared.running.store(self.threads - 1, Ordering::Release);
        {
            let sleepers = shared.sleepers.lock().expect("no thread panics here");
            shared.round.fetch_add(1, Ordering::AcqRel);
            if *sleepers > 0 {
                shared.wake.notify_all();
            }
        }
        // As in `work`: the others still hold the job, which an unwinding caller would take away.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(0))).is_err() {
            std::process::abort();
        }
        wait_until(|| shared.running.load(Ordering::Acquire) == 0, usize::MAX);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.is_ours() {
            return; // a thread of the parent may have held the lock at the fork
        }
        let _sleepers = self.shared.sleepers.lock();
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.notify_all();
    }
}

/// A worker's life: wait for a round, do its job, say so. A panic would leave the others waiting
/// for ever, so it ends the process: kernels are checked before they run and have none.
fn work(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        let ready =
            || shared.round.load(Ordering::Acquire) != seen || shared.stop.load(Ordering::Acquire);
        if !wait_until(ready, YIELDS) {
            let mut sleepers = shared.sleepers.lock().expect("no thread panics here");
            *sleepers += 1;
            while !ready() {
                sleepers = shared.wake.wait(sleepers).expect("no thread panics here");
            }
            *sleepers -= 1;
        }
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        seen = shared.round.load(Ordering::Acquire);
        // SAFETY: `run` keeps the job alive until `running` is zero, which this thread delays.
        let job = unsafe { *shared.job.load(Ordering::Acquire).cast::<Job<'_>>() };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(worker)));
        if outcome.is_err() {
            std::process::abort();
        }
        shared.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_runs_and_meets_the_barrier() {
        for threads in [1, 2, 5] {
            let pool = Pool::shared(threads).unwrap();
            let count = AtomicUsize::new(0);
            for round in 1..=50 {
                pool.run(&|_| {
                    count.fetch_add(1, Ordering::Relaxed);
                    pool.barrier().wait();
                    assert_eq!(count.load(Ordering::Relaxed), round * threads);
                    pool.barrier().wait();
                });
            }
        }
    }
}

//! The CPU executor: runs a plan over packed weights; tokens and a KV cache in, logits out.

pub mod cache;
pub mod collect;
mod compile;
mod compile_stateful;
pub mod copies;
mod covariance;
mod ops;
pub mod plan;
mod program;
mod state;
mod step;
mod threads;
mod walk;
pub mod weights;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use cache::{Cache, KvType, LayerPointers};
use collect::{Collection, Collector};
use program::Program;
use state::StatePointers;
use step::{Step, Token, Workspace};
use threads::Pool;
use weights::Weights;

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::kernels::data::Acts;

use crate::kernels::shape::CHUNK;
use crate::kernels::shape::SPAN;
use crate::threads::{ForkMutex, PerProcess};

/// Most tokens of a step; `Executor::forward` splits more into several steps.
pub const BATCH: usize = 512;

/// How products treat their activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// Left as they are.
    F32,
    /// Rounded to int8 by 32 or 256 columns where the weights are quantized.
    Int8,
}

/// Runs one plan over one set of weights.
pub struct Executor {
    program: Program,
    kernels: &'static Kernels,
    pool: Arc<Pool>,
    memory: ForkMutex<Memory>,
    /// In a child that was forked while a thread of the parent computed: memory of the child.
    memory_of_child: PerProcess<ForkMutex<Memory>>,
}

/// New tokens: `tokens[i]` goes to sequence `sequences[i]`; `outputs` are the indices, ascending,
/// of the tokens whose logits are wanted.
pub struct Batch<'a> {
    pub tokens: &'a [u32],
    pub sequences: &'a [u32],
    pub outputs: &'a [u32],
    pub activations: Activations,
}

impl Executor {
    /// Binds a plan (JSON) to weights and an instruction set; `threads` 0 means all cores.
    pub fn new(
        plan: &str,
        weights: &Weights,
        threads: usize,
        kernels: &'static Kernels,
    ) -> Result<Self> {
        let program = compile::compile(&plan::parse(plan)?, weights)?;
        let pool = Pool::shared(threads)?;
        let memory = ForkMutex::new(Memory::new(&program, pool.threads()));
        Ok(Self { program, kernels, pool, memory, memory_of_child: PerProcess::new() })
    }

    /// An empty cache for `sequences` sequences of up to `capacity` tokens.
    pub fn cache(&self, sequences: usize, capacity: usize, kv_type: KvType) -> Result<Cache> {
        self.check_capacity(capacity)?;
        Cache::new(&self.program.layers, &self.program.recurrent, sequences, capacity, kv_type)
    }

    /// Refuses more tokens than the model has learned positions for.
    fn check_capacity(&self, capacity: usize) -> Result<()> {
        match self.program.positions {
            Some(positions) if capacity > positions => Err(Error::input(format!(
                "a cache of {capacity} tokens, the model has {positions} positions"
            ))
            .hint("make the cache smaller")),
            _ => Ok(()),
        }
    }

    /// The name of the instruction set.
    pub fn isa(&self) -> &'static str {
        self.kernels.name
    }

    /// Columns of the logits.
    pub fn width(&self) -> usize {
        self.program.slots[self.program.logits]
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Appends the tokens to their sequences; returns logits [outputs, width]. On an error the
    /// cache is as before.
    pub fn forward(&self, cache: &mut Cache, batch: &Batch) -> Result<Vec<f32>> {
        self.walk(cache, batch, None, self.program.stages.len())
    }

    /// An empty collector of the inputs of those products whose weights `wanted` names.
    pub fn collector(
        &self,
        wanted: impl Fn(&str) -> bool,
        collection: Collection,
    ) -> Result<Collector> {
        Collector::new(&self.program, wanted, collection)
    }

    /// Appends the tokens to their sequences and adds the inputs of the collector's products to its
    /// sums. Ops after the last of these products are computed only if `complete`; then the result
    /// is that of `forward`.
    pub fn collect(
        &self,
        cache: &mut Cache,
        batch: &Batch,
        collector: &Collector,
        complete: bool,
    ) -> Result<Vec<f32>> {
        if !collector.fits(&self.program) {
            return Err(Error::input("the collector was made for another plan"));
        }
        let stages = if complete { self.program.stages.len() } else { collector.walked };
        let logits = self.walk(cache, batch, Some(collector), stages)?;
        Ok(if complete { logits } else { Vec::new() })
    }

    /// The pool, or in a forked child, which has none of its threads, one of the child.
    fn pool(&self) -> Result<Arc<Pool>> {
        if self.pool.is_ours() {
            return Ok(Arc::clone(&self.pool));
        }
        Pool::shared(self.pool.threads())
    }

    /// The working memory, which one thread at a time has.
    fn memory(&self, pool: &Pool) -> Result<MutexGuard<'_, Memory>> {
        if let Some(memory) = self.memory.lock() {
            return Ok(memory);
        }
        let make = || Ok(ForkMutex::new(Memory::new(&self.program, pool.threads())));
        self.memory_of_child.get(make)?.lock().ok_or_else(|| Error::held_at_fork("the model"))
    }

    fn walk(
        &self,
        cache: &mut Cache,
        batch: &Batch,
        collector: Option<&Collector>,
        stages: usize,
    ) -> Result<Vec<f32>> {
        self.check(cache, batch)?;
        let pool = self.pool()?;
        let mut memory = self.memory(&pool)?;
        place(cache, batch, &mut memory.tokens)?;
        // The only allocation of a step: the caller keeps it.
        let made = if stages == self.program.stages.len() { batch.outputs.len() } else { 0 };
        let mut logits = vec![0f32; made * self.width()];
        let all = std::mem::take(&mut memory.tokens);
        let mut done = 0;
        let mut outputs = batch.outputs;
        for (index, tokens) in all.chunks(BATCH).enumerate() {
            let start = index * BATCH;
            let here = outputs.partition_point(|&row| (row as usize) < start + tokens.len());
            memory.taken.clear();
            memory.taken.extend(outputs[..here].iter().map(|&row| row as usize - start));
            let rows = if made == 0 {
                &mut []
            } else {
                &mut logits[done * self.width()..][..here * self.width()]
            };
            let observer = (collector, stages);
            self.step(cache, &mut memory, &pool, tokens, batch.activations, rows, observer);
            outputs = &outputs[here..];
            done += here;
        }
        memory.tokens = all;
        Ok(logits)
    }

    fn check(&self, cache: &Cache, batch: &Batch) -> Result<()> {
        let n = batch.tokens.len();
        if !cache.fits(&self.program.layers, &self.program.recurrent) {
            return Err(Error::input("the cache was made for another plan"));
        }
        self.check_capacity(cache.capacity())?;
        if batch.sequences.len() != n {
            return Err(Error::shape(format!(
                "{n} tokens but {} sequences",
                batch.sequences.len()
            )));
        }
        if let Some(token) =
            batch.tokens.iter().find(|&&token| token as usize >= self.program.vocab)
        {
            return Err(Error::input(format!(
                "token {token} is not in the vocabulary of {}",
                self.program.vocab
            )));
        }
        let ascending = batch.outputs.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || batch.outputs.last().is_some_and(|&row| row as usize >= n) {
            return Err(Error::input(format!("`outputs` must be ascending indices below {n}")));
        }
        Ok(())
    }

    /// Runs up to `BATCH` tokens through all stages; `memory.taken` are those whose logits are
    /// wanted.
    #[allow(clippy::too_many_arguments)] // tokens, and where they go
    fn step(
        &self,
        cache: &mut Cache,
        memory: &mut Memory,
        pool: &Pool,
        tokens: &[Token],
        activations: Activations,
        logits: &mut [f32],
        (collector, stages): (Option<&Collector>, usize),
    ) {
        // A plan without `take` makes logits of all tokens; the wanted ones are copied.
        let makes_all = !self.program.takes();
        memory.reserve(&self.program, tokens.len());
        let mut addresses = std::mem::take(&mut memory.addresses);
        addresses.write(memory, cache);
        if !makes_all {
            addresses.slots[self.program.logits] = logits.as_mut_ptr();
        }
        for claim in &memory.claims {
            claim.store(0, Ordering::Relaxed);
        }
        let acts = memory.acts(&self.program);
        let step = Step {
            program: &self.program,
            kernels: self.kernels,
            tokens,
            taken: &memory.taken,
            int8: activations == Activations::Int8,
            slots: &addresses.slots,
            acts,
            turns: &addresses.turns,
            layers: &addresses.layers,
            state: &addresses.state,
            capacity: cache.capacity(),
            claims: &memory.claims,
            workspaces: &memory.workspaces,
            barrier: pool.barrier(),
            collector,
            stages,
        };
        pool.run(&|worker| step.walk(worker));
        if makes_all && !logits.is_empty() {
            let width = self.width();
            for (out, &row) in logits.chunks_exact_mut(width).zip(&memory.taken) {
                out.copy_from_slice(&memory.slots[self.program.logits][row * width..][..width]);
            }
        }
        memory.addresses = addresses;
    }
}

/// Gives each token its position, and its sequence its new length; on an error the cache is as
/// before.
fn place(cache: &mut Cache, batch: &Batch, tokens: &mut Vec<Token>) -> Result<()> {
    tokens.clear();
    for (&id, &sequence) in batch.tokens.iter().zip(batch.sequences) {
        let sequence = sequence as usize;
        match cache.advance(sequence) {
            Ok(position) => tokens.push(Token { id, sequence, position, fold: false }),
            Err(error) => {
                for token in tokens.iter().rev() {
                    cache.truncate(token.sequence, token.position)?;
                }
                return Err(error);
            }
        }
    }
    for token in tokens {
        token.fold = cache.state().advance(token.sequence, token.position);
    }
    Ok(())
}

/// Working memory, which one step leaves to the next.
struct Memory {
    slots: Vec<Vec<f32>>,
    turns: Vec<Vec<f32>>,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    claims: Vec<AtomicUsize>,
    workspaces: Vec<Mutex<Workspace>>,
    tokens: Vec<Token>,
    taken: Vec<usize>,
    addresses: Addresses,
    rows: usize,
}

/// Pointers to the memory of a step.
#[derive(Default)]
struct Addresses {
    slots: Vec<*mut f32>,
    turns: Vec<*mut f32>,
    layers: Vec<LayerPointers>,
    state: StatePointers,
}

// SAFETY: each step writes all addresses before it uses any.
unsafe impl Send for Addresses {}

impl Addresses {
    fn write(&mut self, memory: &mut Memory, cache: &mut Cache) {
        self.slots.clear();
        self.slots.extend(memory.slots.iter_mut().map(Vec::as_mut_ptr));
        self.turns.clear();
        self.turns.extend(memory.turns.iter_mut().map(Vec::as_mut_ptr));
        self.layers.clear();
        self.layers.extend(cache.pointers());
        cache.state().write_pointers(&mut self.state);
    }
}

impl Memory {
    fn new(program: &Program, threads: usize) -> Self {
        Self {
            slots: vec![Vec::new(); program.slots.len()],
            turns: vec![Vec::new(); program.ropes.len()],
            codes: Vec::new(),
            scales: Vec::new(),
            sums: Vec::new(),
            claims: program.stages.iter().map(|_| AtomicUsize::new(0)).collect(),
            workspaces: (0..threads).map(|_| Mutex::default()).collect(),
            tokens: Vec::new(),
            taken: Vec::new(),
            addresses: Addresses::default(),
            rows: 0,
        }
    }

    /// Makes room for `rows` tokens.
    fn reserve(&mut self, program: &Program, rows: usize) {
        if rows <= self.rows {
            return;
        }
        self.rows = rows;
        for (index, (slot, width)) in self.slots.iter_mut().zip(&program.slots).enumerate() {
            if !(index == program.logits && program.takes()) {
                slot.resize(rows * width, 0.0);
            }
        }
        for (turns, rope) in self.turns.iter_mut().zip(&program.ropes) {
            turns.resize(rows * 2 * rope.freqs.len(), 0.0);
        }
        let chunks = rows * (program.chunks[0] + program.chunks[1]);
        self.codes.resize(chunks * CHUNK, 0);
        self.scales.resize(chunks, 0.0);
        self.sums.resize(2 * chunks, 0);
    }

    /// Buffers for rounded rows: with a scale for each chunk, and with a scale for 256 columns.
    fn acts(&mut self, program: &Program) -> [Acts; 2] {
        let [chunks, shared] = program.chunks;
        let first = Acts {
            q: self.codes.as_mut_ptr(),
            d: self.scales.as_mut_ptr(),
            sums: self.sums.as_mut_ptr(),
            chunks,
            sharing: 1,
        };
        // SAFETY: `reserve` made room for both.
        let (q, d, sums) =
            unsafe { (first.codes(self.rows), first.scales(self.rows), first.halves(self.rows)) };
        [first, Acts { q, d, sums, chunks: shared, sharing: SPAN }]
    }
}

//! Packed weights, KV caches and the CPU executor as Python classes.

use std::collections::HashSet;
use std::sync::MutexGuard;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::arrays::{bytes, vector};
use super::machine::{kernels_of, thread_count};
use crate::error::Error;
use crate::exec::cache::KvType;
use crate::exec::collect::Collection;
use crate::exec::{self, Activations, Batch};
use crate::formats::Format;
use crate::threads::ForkMutex;

/// What `acts` may be: how products treat their activations.
pub const ACTIVATIONS: [(&str, Activations); 2] =
    [("f32", Activations::F32), ("int8", Activations::Int8)];

/// What `kv` may be: the element type of the KV cache.
pub const KV_TYPES: [(&str, KvType); 3] =
    [("f32", KvType::F32), ("f16", KvType::F16), ("int8", KvType::Int8)];

/// The value that `table` has under `name`.
fn find<T: Copy, const N: usize>(
    what: &str,
    name: &str,
    table: &[(&str, T); N],
) -> Result<T, Error> {
    table.iter().find(|row| row.0 == name).map(|row| row.1).ok_or_else(|| {
        let known = table.each_ref().map(|row| row.0).join(", ");
        Error::input(format!("unknown {what} `{name}`")).hint(format!("known: {known}"))
    })
}

/// The weights of a model, packed for the kernels.
#[pyclass(frozen, module = "fewbit._core")]
pub struct Weights(ForkMutex<exec::weights::Weights>);

impl Weights {
    /// The weights, locked.
    pub fn get(&self) -> Result<MutexGuard<'_, exec::weights::Weights>, Error> {
        self.0.lock().ok_or_else(|| Error::held_at_fork("the set of weights"))
    }
}

#[pymethods]
impl Weights {
    /// `keep_file_size` keeps formats with code books at the bytes of their file, which is slower.
    #[new]
    #[pyo3(signature = (keep_file_size=false))]
    fn new(keep_file_size: bool) -> Self {
        Self(ForkMutex::new(exec::weights::Weights::new(keep_file_size)))
    }

    /// Packs and stores one tensor of `matrices` matrices with `rows` rows in all.
    #[pyo3(signature = (name, format, rows, columns, data, matrices=1))]
    #[allow(clippy::too_many_arguments)] // Python's signature
    fn add(
        &self,
        py: Python<'_>,
        name: &str,
        format: &str,
        rows: usize,
        columns: usize,
        data: PyReadonlyArray2<'_, u8>,
        matrices: usize,
    ) -> PyResult<()> {
        let format = Format::parse(format)?;
        let data = bytes(&data)?;
        let shape = [matrices, rows / matrices.max(1), columns];
        Ok(py.detach(|| self.get()?.add(name, format, shape, data))?)
    }

    /// Bytes that the packed tensors take.
    #[getter]
    fn nbytes(&self) -> PyResult<usize> {
        Ok(self.get()?.bytes())
    }
}

/// The KV cache of several sequences.
#[pyclass(frozen, module = "fewbit._core")]
pub struct Cache(ForkMutex<exec::cache::Cache>);

impl Cache {
    fn get(&self) -> Result<MutexGuard<'_, exec::cache::Cache>, Error> {
        self.0.lock().ok_or_else(|| Error::held_at_fork("the cache"))
    }
}

#[pymethods]
impl Cache {
    #[getter]
    fn capacity(&self) -> PyResult<usize> {
        Ok(self.get()?.capacity())
    }

    #[getter]
    fn sequences(&self) -> PyResult<usize> {
        Ok(self.get()?.sequences())
    }

    #[pyo3(signature = (sequence=0))]
    fn length(&self, sequence: usize) -> PyResult<usize> {
        Ok(self.get()?.length(sequence)?)
    }

    fn truncate(&self, sequence: usize, length: usize) -> PyResult<()> {
        Ok(self.get()?.truncate(sequence, length)?)
    }

    fn reachable(&self, sequence: usize, length: usize) -> PyResult<usize> {
        Ok(self.get()?.reachable(sequence, length)?)
    }

    fn reset(&self) -> PyResult<()> {
        self.get()?.reset();
        Ok(())
    }

    fn copy(&self, py: Python<'_>, source: usize, target: usize) -> PyResult<()> {
        Ok(py.detach(|| self.get()?.copy(source, target))?)
    }

    /// Forgets a sequence and gives its memory back to the system.
    fn free(&self, py: Python<'_>, sequence: usize) -> PyResult<()> {
        Ok(py.detach(|| self.get()?.free(sequence))?)
    }

    /// Bytes of keys, values and states that tokens have taken since the last `free`.
    fn bytes(&self) -> PyResult<usize> {
        Ok(self.get()?.bytes())
    }

    /// The recurrent state of a sequence, to `restore` it.
    fn snapshot(&self, py: Python<'_>, sequence: usize) -> PyResult<Snapshot> {
        Ok(Snapshot(py.detach(|| self.get()?.snapshot(sequence))?))
    }

    /// Takes a sequence, which begins with the tokens of the snapshot, back to them.
    fn restore(&self, py: Python<'_>, snapshot: &Snapshot, sequence: usize) -> PyResult<()> {
        Ok(py.detach(|| self.get()?.restore(&snapshot.0, sequence))?)
    }

    /// Keys, values and state of a sequence as bytes.
    fn export<'py>(&self, py: Python<'py>, sequence: usize) -> PyResult<Bound<'py, PyArray1<u8>>> {
        Ok(py.detach(|| self.get()?.export(sequence))?.into_pyarray(py))
    }

    /// Makes a sequence the one of `length` tokens whose bytes `export` made.
    #[pyo3(name = "import_")]
    fn import(
        &self,
        py: Python<'_>,
        sequence: usize,
        length: usize,
        data: PyReadonlyArray1<'_, u8>,
    ) -> PyResult<()> {
        let data = vector("data", &data)?;
        Ok(py.detach(|| self.get()?.import(sequence, length, data))?)
    }
}

/// A sequence's recurrent state after some tokens.
#[pyclass(frozen, module = "fewbit._core")]
pub struct Snapshot(exec::copies::Snapshot);

#[pymethods]
impl Snapshot {
    /// Number of tokens.
    #[getter]
    fn length(&self) -> usize {
        self.0.length
    }

    /// Bytes of the state.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.bytes()
    }
}

/// Runs one plan over one set of weights on the CPU.
#[pyclass(frozen, module = "fewbit._core")]
pub struct Executor(exec::Executor);

#[pymethods]
impl Executor {
    #[new]
    #[pyo3(signature = (plan, weights, threads=0, isa=None))]
    fn new(
        plan: &str,
        weights: &Weights,
        #[pyo3(from_py_with = thread_count)] threads: usize,
        isa: Option<&str>,
    ) -> PyResult<Self> {
        let kernels = kernels_of(isa)?;
        Ok(Self(exec::Executor::new(plan, &*weights.get()?, threads, kernels)?))
    }

    /// The name of the instruction set.
    #[getter]
    fn isa(&self) -> &'static str {
        self.0.isa()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.0.threads()
    }

    /// An empty cache whose keys and values have type `kv`, one of `KV_TYPES`.
    #[pyo3(signature = (sequences, capacity, kv = "f32"))]
    fn cache(&self, sequences: usize, capacity: usize, kv: &str) -> PyResult<Cache> {
        let kv_type = find("type of keys and values", kv, &KV_TYPES)?;
        Ok(Cache(ForkMutex::new(self.0.cache(sequences, capacity, kv_type)?)))
    }

    /// Empty sums of the inputs of products, by the names of their weights: of squares, or with
    /// `covariance` of the products of each two columns; tokens below position `skip` are left out.
    #[pyo3(signature = (names, covariance=false, skip=0))]
    fn collector(
        &self,
        names: HashSet<String>,
        covariance: bool,
        skip: usize,
    ) -> PyResult<Collector> {
        let collection = Collection { covariance, skip };
        Ok(Collector(self.0.collector(|name| names.contains(name), collection)?))
    }

    /// Appends tokens to sequence 0 and adds their inputs of products to the collector; with
    /// `complete` also computes their logits, f32 [tokens, width], else [0, width].
    #[pyo3(signature = (cache, tokens, collector, complete=false))]
    fn collect<'py>(
        &self,
        py: Python<'py>,
        cache: &Cache,
        tokens: PyReadonlyArray1<'py, u32>,
        collector: &Collector,
        complete: bool,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let tokens = vector("tokens", &tokens)?;
        let batch = Batch {
            tokens,
            sequences: &vec![0; tokens.len()],
            outputs: &(0..tokens.len() as u32).collect::<Vec<_>>(),
            activations: Activations::F32,
        };
        let rows = if complete { tokens.len() } else { 0 };
        let logits =
            py.detach(|| self.0.collect(&mut *cache.get()?, &batch, &collector.0, complete))?;
        logits.into_pyarray(py).reshape([rows, self.0.width()])
    }

    /// Appends tokens to their sequences; f32 [outputs, width] logits.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        cache: &Cache,
        tokens: PyReadonlyArray1<'py, u32>,
        sequences: PyReadonlyArray1<'py, u32>,
        outputs: PyReadonlyArray1<'py, u32>,
        acts: &str,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let batch = Batch {
            tokens: vector("tokens", &tokens)?,
            sequences: vector("sequences", &sequences)?,
            outputs: vector("outputs", &outputs)?,
            activations: find("activations", acts, &ACTIVATIONS)?,
        };
        let rows = batch.outputs.len();
        let logits = py.detach(|| self.0.forward(&mut *cache.get()?, &batch))?;
        logits.into_pyarray(py).reshape([rows, self.0.width()])
    }
}

/// Sums of the squared inputs of products, or of the products of their columns.
#[pyclass(frozen, module = "fewbit._core")]
pub struct Collector(exec::collect::Collector);

/// Names of weights with one input, f64 [matrices, columns] sums, u64 [matrices] counts of rows.
type Collected<'py> = (Vec<String>, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<u64>>);

#[pymethods]
impl Collector {
    /// The sums so far.
    fn sums<'py>(&self, py: Python<'py>) -> PyResult<Vec<Collected<'py>>> {
        self.0
            .all()
            .map(|found| {
                let (counts, sums) = (found.counts(), found.sums());
                let shape = [counts.len(), sums.len() / counts.len()];
                let sums = sums.into_pyarray(py).reshape(shape)?;
                Ok((found.names.clone(), sums, counts.into_pyarray(py)))
            })
            .collect()
    }

    /// The sums of the products of each two columns, f64 [columns, columns], of the input of matrix
    /// `matrix` of weight `name`; None if they are not collected.
    #[pyo3(signature = (name, matrix=0))]
    fn covariance<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        matrix: usize,
    ) -> PyResult<Option<Bound<'py, PyArray2<f64>>>> {
        let found = self.0.all().find(|sums| sums.names.iter().any(|known| known == name));
        let Some(sums) = found else { return Ok(None) };
        let columns = sums.columns();
        let covariance = py.detach(|| sums.covariance(matrix));
        covariance.map(|c| c.into_pyarray(py).reshape([columns, columns])).transpose()
    }
}

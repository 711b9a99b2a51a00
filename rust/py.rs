//! The Python module `fewbit._core`: arguments are checked, the GIL released, errors turned into
//! the classes of `fewbit.errors`. Only files called `py*` name pyo3.

use std::collections::HashSet;
use std::sync::Mutex;

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Error, Kind};
use crate::exec::{self, Activations, Batch};
use crate::formats::Format;
use crate::kernels::attention::Kept;
use crate::kernels::{Kernels, peak};
use crate::py_encode::{decode, encode, encode_to_file};
use crate::{kernels, measure, read_rate};

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::attach(|py| raise(py, &error).unwrap_or_else(|failure| failure))
    }
}

/// The exception of `fewbit.errors` that an error stands for.
fn raise(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let class = match error.kind {
        Kind::Format => "FormatError",
        Kind::Shape => "ShapeError",
        Kind::Unsupported => "UnsupportedError",
        Kind::Input => "InputError",
        Kind::System(code) => {
            let reason = py.import("os")?.call_method1("strerror", (code,))?;
            return Ok(PyOSError::new_err((code, reason.unbind())));
        }
    };
    let facts = PyDict::new(py);
    facts.set_item("hint", error.hint.as_deref())?;
    let class = py.import("fewbit.errors")?.getattr(class)?;
    Ok(PyErr::from_value(class.call((&error.message,), Some(&facts))?))
}

/// Rows of bytes, without gaps between them.
pub fn bytes<'a>(data: &'a PyReadonlyArray2<'_, u8>) -> PyResult<&'a [u8]> {
    data.as_slice().map_err(|_| Error::shape("the array must be C-contiguous").into())
}

/// A vector without gaps.
pub fn vector<'a, T: numpy::Element>(
    name: &str,
    data: &'a PyReadonlyArray1<'_, T>,
) -> PyResult<&'a [T]> {
    data.as_slice().map_err(|_| Error::shape(format!("`{name}` must be contiguous")).into())
}

fn activations(acts: &str) -> Result<Activations, Error> {
    match acts {
        "f32" => Ok(Activations::F32),
        "int8" => Ok(Activations::Int8),
        other => {
            Err(Error::input(format!("unknown activations `{other}`")).hint("known: f32, int8"))
        }
    }
}

fn kept(kv: &str) -> Result<Kept, Error> {
    match kv {
        "f32" => Ok(Kept::F32),
        "f16" => Ok(Kept::F16),
        "int8" => Ok(Kept::Int8),
        other => Err(Error::input(format!("unknown type of keys and values `{other}`"))
            .hint("known: f32, f16, int8")),
    }
}

/// A model's tensors, packed for the kernels.
#[pyclass(frozen, module = "fewbit._core")]
struct Weights(Mutex<exec::weights::Weights>);

impl Weights {
    fn get(&self) -> std::sync::MutexGuard<'_, exec::weights::Weights> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[pymethods]
impl Weights {
    /// `small` keeps formats with code books at the bytes of their file, where that is slower.
    #[new]
    #[pyo3(signature = (small=false))]
    fn new(small: bool) -> Self {
        Self(Mutex::new(exec::weights::Weights::new(small)))
    }

    /// Packs and keeps one tensor of `matrices` matrices, `rows` in all.
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
        Ok(py.detach(|| self.get().add(name, format, shape, data))?)
    }

    /// Bytes that the packed tensors take.
    #[getter]
    fn nbytes(&self) -> usize {
        self.get().bytes()
    }
}

/// Keys and values of several sequences.
#[pyclass(frozen, module = "fewbit._core")]
struct Cache(Mutex<exec::cache::Cache>);

impl Cache {
    fn get(&self) -> std::sync::MutexGuard<'_, exec::cache::Cache> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[pymethods]
impl Cache {
    #[getter]
    fn capacity(&self) -> usize {
        self.get().capacity()
    }

    #[getter]
    fn sequences(&self) -> usize {
        self.get().sequences()
    }

    #[pyo3(signature = (sequence=0))]
    fn length(&self, sequence: usize) -> PyResult<usize> {
        Ok(self.get().length(sequence)?)
    }

    fn truncate(&self, sequence: usize, length: usize) -> PyResult<()> {
        Ok(self.get().truncate(sequence, length)?)
    }

    fn reachable(&self, sequence: usize, length: usize) -> PyResult<usize> {
        Ok(self.get().reachable(sequence, length)?)
    }

    fn reset(&self) {
        self.get().reset();
    }

    fn copy(&self, py: Python<'_>, source: usize, target: usize) -> PyResult<()> {
        Ok(py.detach(|| self.get().copy(source, target))?)
    }
}

/// Runs one plan over one set of weights on the CPU.
#[pyclass(frozen, module = "fewbit._core")]
struct Executor(exec::Executor);

#[pymethods]
impl Executor {
    #[new]
    #[pyo3(signature = (plan, weights, threads=0, isa=None))]
    fn new(plan: &str, weights: &Weights, threads: usize, isa: Option<&str>) -> PyResult<Self> {
        let kernels = kernels_of(isa)?;
        Ok(Self(exec::Executor::new(plan, &weights.get(), threads, kernels)?))
    }

    /// The instruction set that runs it.
    #[getter]
    fn isa(&self) -> &'static str {
        self.0.isa()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.0.threads()
    }

    /// An empty cache that keeps keys and values as `kv` says.
    #[pyo3(signature = (sequences, capacity, kv = "f32"))]
    fn cache(&self, sequences: usize, capacity: usize, kv: &str) -> PyResult<Cache> {
        Ok(Cache(Mutex::new(self.0.cache(sequences, capacity, kept(kv)?)?)))
    }

    /// Empty sums of the squared inputs of products, by the names of their weights.
    fn collector(&self, names: HashSet<String>) -> Collector {
        Collector(self.0.collector(|name| names.contains(name)))
    }

    /// Appends tokens to sequence 0 and what products take in of them to the collector's sums.
    fn collect(
        &self,
        py: Python<'_>,
        cache: &Cache,
        tokens: PyReadonlyArray1<'_, u32>,
        collector: &Collector,
    ) -> PyResult<()> {
        let tokens = vector("tokens", &tokens)?;
        let batch = Batch {
            tokens,
            sequences: &vec![0; tokens.len()],
            outputs: &(0..tokens.len() as u32).collect::<Vec<_>>(),
            activations: Activations::F32,
        };
        Ok(py.detach(|| self.0.collect(&mut cache.get(), &batch, &collector.0))?)
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
            activations: activations(acts)?,
        };
        let rows = batch.outputs.len();
        let logits = py.detach(|| self.0.forward(&mut cache.get(), &batch))?;
        logits.into_pyarray(py).reshape([rows, self.0.width()])
    }
}

/// Sums of the squared inputs of products.
#[pyclass(frozen, module = "fewbit._core")]
struct Collector(exec::collect::Collector);

/// The names that share an input, f64 [matrices, columns] sums and u64 [matrices] counts of rows.
type Collected<'py> = (Vec<String>, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<u64>>);

#[pymethods]
impl Collector {
    /// What was collected so far.
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
}

/// The instruction set in use.
#[pyfunction]
fn isa() -> PyResult<&'static str> {
    Ok(kernels::chosen()?.name)
}

/// The instruction sets that this CPU has, the best first.
#[pyfunction]
fn isas() -> Vec<&'static str> {
    kernels::available().iter().map(|set| set.name).collect()
}

/// Rows of logits and their targets, checked.
fn scored<'a>(
    logits: &'a PyReadonlyArray2<'_, f32>,
    targets: &'a PyReadonlyArray1<'_, u32>,
) -> PyResult<(&'a [f32], &'a [u32], usize)> {
    let rows = logits.as_slice().map_err(|_| Error::shape("`logits` must be C-contiguous"))?;
    Ok((rows, vector("targets", targets)?, logits.shape()[1]))
}

/// -ln p(target) of each row.
#[pyfunction]
fn nll<'py>(
    py: Python<'py>,
    logits: PyReadonlyArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, u32>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (rows, targets, width) = scored(&logits, &targets)?;
    let out = py.detach(|| measure::nll(rows, width, targets))?;
    Ok(out.into_pyarray(py))
}

/// Each row of logits against the base's.
#[pyfunction]
fn divergence<'py>(
    py: Python<'py>,
    base: PyReadonlyArray2<'py, f32>,
    logits: PyReadonlyArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, u32>,
) -> PyResult<Bound<'py, PyDict>> {
    let (rows, targets, width) = scored(&logits, &targets)?;
    let base = base.as_slice().map_err(|_| Error::shape("`base` must be C-contiguous"))?;
    let found = py.detach(|| measure::divergence(base, rows, width, targets))?;
    let out = PyDict::new(py);
    out.set_item("nll_base", found.nll_base.into_pyarray(py))?;
    out.set_item("nll", found.nll.into_pyarray(py))?;
    out.set_item("kld", found.kld.into_pyarray(py))?;
    out.set_item("dp", found.dp.into_pyarray(py))?;
    out.set_item("same_top", found.same_top.into_pyarray(py))?;
    Ok(out)
}

/// The kernels called so, the process's own for None.
fn kernels_of(isa: Option<&str>) -> Result<&'static Kernels, Error> {
    isa.map_or_else(kernels::chosen, |name| kernels::find(Some(name)))
}

/// Peak of int8 multiply-adds, billions a second.
#[pyfunction]
#[pyo3(signature = (threads=0, isa=None))]
fn peak_rate(py: Python<'_>, threads: usize, isa: Option<&str>) -> PyResult<f64> {
    let kernels = kernels_of(isa)?;
    Ok(py.detach(|| peak::peak_rate(kernels, threads)))
}

/// Streaming read rate in GB/s.
#[pyfunction]
#[pyo3(name = "read_rate", signature = (threads=0))]
fn stream_rate(py: Python<'_>, threads: usize) -> PyResult<f64> {
    Ok(py.detach(|| read_rate::read_rate(threads))?)
}

/// Finds numpy's API and its borrow flags before the first call: they are found by importing
/// modules, and where a signal's handler raises just then, the numpy crate panics.
fn find_numpy(py: Python<'_>) -> PyResult<()> {
    let array = PyArray1::<u8>::zeros(py, 0, false);
    array.try_readonly()?;
    array.try_readwrite()?;
    Ok(())
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    find_numpy(module.py())?;
    module.add_class::<Weights>()?;
    module.add_class::<Cache>()?;
    module.add_class::<Executor>()?;
    module.add_class::<Collector>()?;
    for function in [
        wrap_pyfunction!(encode, module)?,
        wrap_pyfunction!(encode_to_file, module)?,
        wrap_pyfunction!(decode, module)?,
        wrap_pyfunction!(isa, module)?,
        wrap_pyfunction!(isas, module)?,
        wrap_pyfunction!(nll, module)?,
        wrap_pyfunction!(divergence, module)?,
        wrap_pyfunction!(stream_rate, module)?,
        wrap_pyfunction!(peak_rate, module)?,
    ] {
        module.add_function(function)?;
    }
    Ok(())
}

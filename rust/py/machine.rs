//! The machine: its instruction sets, peak rate of multiply-adds, and read rate of memory.

use pyo3::prelude::*;

use crate::error::Error;
use crate::kernels::{self, Kernels, peak};
use crate::read_rate;
use crate::threads::{MOST_THREADS, check_threads};

/// The instruction set in use.
#[pyfunction]
pub fn isa() -> PyResult<&'static str> {
    Ok(kernels::chosen()?.name)
}

/// The instruction sets of this CPU, the best first.
#[pyfunction]
pub fn isas() -> Vec<&'static str> {
    kernels::available().iter().map(|set| set.name).collect()
}

/// The kernels named `isa`; None means those that this process chose.
pub fn kernels_of(isa: Option<&str>) -> Result<&'static Kernels, Error> {
    isa.map_or_else(kernels::chosen, |name| kernels::find(Some(name)))
}

/// A number of threads that a caller asks for.
pub fn thread_count(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    let refused = || {
        Error::input(format!("the number of threads is {value}, expected 0 to {MOST_THREADS}"))
            .hint("0 takes one thread per core")
    };
    let count = value.extract::<usize>().map_err(|_| refused())?;
    check_threads(count).map_err(|_| refused())?;
    Ok(count)
}

/// Checks a number of threads: 0 to 1,024.
#[pyfunction]
#[pyo3(name = "check_threads")]
pub fn checked_threads(#[pyo3(from_py_with = thread_count)] threads: usize) -> usize {
    threads
}

/// Peak rate of int8 multiply-adds in billions a second.
#[pyfunction]
#[pyo3(signature = (threads=0, isa=None))]
pub fn peak_rate(
    py: Python<'_>,
    #[pyo3(from_py_with = thread_count)] threads: usize,
    isa: Option<&str>,
) -> PyResult<f64> {
    let kernels = kernels_of(isa)?;
    Ok(py.detach(|| peak::peak_rate(kernels, threads)))
}

/// Streaming read rate in GB/s.
#[pyfunction]
#[pyo3(name = "read_rate", signature = (threads=0))]
pub fn stream_rate(
    py: Python<'_>,
    #[pyo3(from_py_with = thread_count)] threads: usize,
) -> PyResult<f64> {
    Ok(py.detach(|| read_rate::read_rate(threads))?)
}

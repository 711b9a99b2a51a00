//! The machine: its instruction sets, peak rate of multiply-adds, and read rate of memory.

use pyo3::prelude::*;

use crate::error::Error;
use crate::kernels::{self, Kernels, peak};
use crate::read_rate;

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

/// Peak rate of int8 multiply-adds in billions a second.
#[pyfunction]
#[pyo3(signature = (threads=0, isa=None))]
pub fn peak_rate(py: Python<'_>, threads: usize, isa: Option<&str>) -> PyResult<f64> {
    let kernels = kernels_of(isa)?;
    Ok(py.detach(|| peak::peak_rate(kernels, threads)))
}

/// Streaming read rate in GB/s.
#[pyfunction]
#[pyo3(name = "read_rate", signature = (threads=0))]
pub fn stream_rate(py: Python<'_>, threads: usize) -> PyResult<f64> {
    Ok(py.detach(|| read_rate::read_rate(threads))?)
}

//! What this machine can do: its instruction sets, its peak of multiply-adds, its memory's read rate.

use pyo3::prelude::*;

use crate::error::Error;
use crate::kernels::{self, Kernels, peak};
use crate::read_rate;

/// The instruction set in use.
#[pyfunction]
pub fn isa() -> PyResult<&'static str> {
    Ok(kernels::chosen()?.name)
}

/// The instruction sets that this CPU has, the best first.
#[pyfunction]
pub fn isas() -> Vec<&'static str> {
    kernels::available().iter().map(|set| set.name).collect()
}

/// The kernels called so, the process's own for None.
pub fn kernels_of(isa: Option<&str>) -> Result<&'static Kernels, Error> {
    isa.map_or_else(kernels::chosen, |name| kernels::find(Some(name)))
}

/// Peak of int8 multiply-adds, billions a second.
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

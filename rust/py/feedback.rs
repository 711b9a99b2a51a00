//! Error feedback and coordinate descent for Python.

use numpy::{
    IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArrayDyn,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{matrix, vector};
use super::machine::thread_count;
use crate::error::Error;
use crate::formats::Format;
use crate::quantize::feedback::{self, Effort, Outputs, Problem};

/// Encodes weights, then improves their codes and scales in the metric of a covariance.
#[pyfunction]
#[pyo3(signature = (
    weights, format, covariance, *, output_covariance=None, held_out=None, importance=None,
    damping=0.01, sweeps=8, rounds=2, blocks=1, threads=0
))]
#[allow(clippy::too_many_arguments)] // a tensor, and how to quantize it
pub fn improve<'py>(
    py: Python<'py>,
    weights: PyReadonlyArray2<'py, f32>,
    format: &str,
    covariance: PyReadonlyArray2<'py, f64>,
    output_covariance: Option<PyReadonlyArrayDyn<'py, f64>>,
    held_out: Option<PyReadonlyArray2<'py, f64>>,
    importance: Option<PyReadonlyArray1<'py, f32>>,
    damping: f64,
    sweeps: usize,
    rounds: usize,
    blocks: usize,
    #[pyo3(from_py_with = thread_count)] threads: usize,
) -> PyResult<(Bound<'py, PyArray2<u8>>, Bound<'py, PyDict>)> {
    let (rows, columns) = (weights.shape()[0], weights.shape()[1]);
    let problem = Problem {
        weights: matrix("weights", &weights)?,
        rows,
        columns,
        format: Format::parse(format)?,
        covariance: matrix("covariance", &covariance)?,
        outputs: output_covariance.as_ref().map(outputs).transpose()?,
        held_out: held_out.as_ref().map(|values| matrix("held_out", values)).transpose()?,
        importance: importance.as_ref().map(|values| vector("importance", values)).transpose()?,
        damping,
        effort: Effort { sweeps, rounds },
        blocks,
        threads,
    };
    let row_bytes = problem.format.row_bytes(columns)?;
    let (out, found) = py.detach(|| feedback::improve(&problem))?;
    let report = PyDict::new(py);
    report.set_item("before", found.before)?;
    report.set_item("after", found.after)?;
    report.set_item("predicted", found.predicted)?;
    report.set_item("changed", found.changed)?;
    report.set_item("kept", found.kept)?;
    report.set_item("held_out", found.held_out)?;
    report.set_item("damping", found.damping)?;
    Ok((out.into_pyarray(py).reshape([rows, row_bytes])?, report))
}

/// One covariance [rows, rows], or diagonal blocks of it, [blocks, size, size].
fn outputs<'a>(array: &'a PyReadonlyArrayDyn<'_, f64>) -> PyResult<Outputs<'a>> {
    let shape = array.shape();
    let square = matches!(*shape, [a, b] | [_, a, b] if a == b);
    let data = array.as_slice().ok().filter(|_| square).ok_or_else(|| {
        Error::shape(format!(
            "`output_covariance` must be C-contiguous [rows, rows] or [blocks, size, size], \
             found {shape:?}"
        ))
    })?;
    Ok(Outputs { covariance: data, size: shape[shape.len() - 1] })
}

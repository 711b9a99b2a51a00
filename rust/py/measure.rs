//! Measures of logits: negative log-likelihood and divergence, a number for each row.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::vector;
use crate::error::Error;
use crate::measure;

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
pub fn nll<'py>(
    py: Python<'py>,
    logits: PyReadonlyArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, u32>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (rows, targets, width) = scored(&logits, &targets)?;
    let out = py.detach(|| measure::nll(rows, width, targets))?;
    Ok(out.into_pyarray(py))
}

/// Compares each row of logits with that of the base model.
#[pyfunction]
pub fn divergence<'py>(
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

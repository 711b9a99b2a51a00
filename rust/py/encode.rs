//! Encoding and decoding for Python: rows between formats, in memory or straight into a file.

use std::path::PathBuf;

use numpy::{
    IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use super::arrays::{bytes, vector};
use super::machine::thread_count;
use crate::error::Error;
use crate::formats::Format;
use crate::memory::{Zero, zeros};
use crate::quantize::{self, Slab, stream};

/// Zeros for `rows` rows of `columns` numbers.
fn room<T: Zero>(rows: usize, columns: usize) -> Result<Vec<T>, Error> {
    let refused = || Error::memory(rows.saturating_mul(columns).saturating_mul(size_of::<T>()));
    rows.checked_mul(columns).and_then(zeros).ok_or_else(refused)
}

/// Stores rows in another format.
#[pyfunction]
#[pyo3(signature = (data, source, columns, format, importance=None, threads=0))]
pub fn encode<'py>(
    py: Python<'py>,
    data: PyReadonlyArray2<'py, u8>,
    source: &str,
    columns: usize,
    format: &str,
    importance: Option<PyReadonlyArray1<'py, f32>>,
    #[pyo3(from_py_with = thread_count)] threads: usize,
) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let (source, target) = (Format::parse(source)?, Format::parse(format)?);
    let rows = data.shape()[0];
    let importance = importance.as_ref().map(|values| vector("importance", values)).transpose()?;
    let row_bytes = target.row_bytes(columns)?;
    let input = bytes(&data)?;
    let out = py.detach(|| {
        let mut out = room::<u8>(rows, row_bytes)?;
        let result = quantize::encode_tensor(
            input, source, &mut out, target, rows, columns, importance, threads,
        );
        result.map(|()| out)
    })?;
    out.into_pyarray(py).reshape([rows, row_bytes])
}

/// Stores rows in another format in an existing file, from byte `offset` on.
#[pyfunction]
#[pyo3(signature = (data, source, columns, format, path, offset, first=0, importance=None, threads=0))]
#[allow(clippy::too_many_arguments)] // rows, and where they go
pub fn encode_to_file(
    py: Python<'_>,
    data: PyReadonlyArray2<'_, u8>,
    source: &str,
    columns: usize,
    format: &str,
    path: PathBuf,
    offset: u64,
    first: usize,
    importance: Option<PyReadonlyArray1<'_, f32>>,
    #[pyo3(from_py_with = thread_count)] threads: usize,
) -> PyResult<()> {
    let slab = Slab {
        data: bytes(&data)?,
        source: Format::parse(source)?,
        target: Format::parse(format)?,
        count: data.shape()[0],
        columns,
        first,
        importance: importance.as_ref().map(|values| vector("importance", values)).transpose()?,
    };
    Ok(py.detach(|| stream::encode_to_file(&slab, &path, offset, threads))?)
}

/// Reads rows back as f32.
#[pyfunction]
#[pyo3(signature = (data, format, columns, threads=0))]
pub fn decode<'py>(
    py: Python<'py>,
    data: PyReadonlyArray2<'py, u8>,
    format: &str,
    columns: usize,
    #[pyo3(from_py_with = thread_count)] threads: usize,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let format = Format::parse(format)?;
    let rows = data.shape()[0];
    let input = bytes(&data)?;
    let out = py.detach(|| {
        let mut out = room::<f32>(rows, columns)?;
        quantize::decode_tensor(input, format, &mut out, rows, columns, threads).map(|()| out)
    })?;
    out.into_pyarray(py).reshape([rows, columns])
}

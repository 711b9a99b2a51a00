//! NumPy arrays as slices, without copying.

use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::error::Error;

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

/// A matrix without gaps.
pub fn matrix<'a, T: numpy::Element>(
    name: &str,
    data: &'a PyReadonlyArray2<'_, T>,
) -> PyResult<&'a [T]> {
    data.as_slice().map_err(|_| Error::shape(format!("`{name}` must be C-contiguous")).into())
}

//! Errors of the core as the exceptions of `fewbit.errors`.

use pyo3::exceptions::{PyMemoryError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Error, Kind};

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::attach(|py| raise(py, &error).unwrap_or_else(|failure| failure))
    }
}

/// The exception of `fewbit.errors` for an error.
fn raise(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let class = match error.kind {
        Kind::Format => "FormatError",
        Kind::Shape => "ShapeError",
        Kind::Unsupported => "UnsupportedError",
        Kind::Input => "InputError",
        Kind::Memory => return Ok(PyMemoryError::new_err(error.message.clone())),
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

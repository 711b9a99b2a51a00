//! The Python module `fewbit._core`: checks arguments, releases the GIL, raises `fewbit.errors`.
//!
//! Only files of this folder name pyo3.

mod arrays;
mod encode;
mod errors;
mod feedback;
mod formats;
mod gradients;
mod machine;
mod measure;
mod model;
mod sample;

use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::exec::BATCH;
use crate::sample::NO_TOKEN;

/// Loads NumPy's API and borrow flags now: the numpy crate loads them on first use by importing
/// modules, and panics if a signal handler raises during that.
fn find_numpy(py: Python<'_>) -> PyResult<()> {
    let array = PyArray1::<u8>::zeros(py, 0, false);
    array.try_readonly()?;
    array.try_readwrite()?;
    Ok(())
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    find_numpy(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("BATCH", BATCH)?;
    let py = module.py();
    module.add("ACTIVATIONS", PyTuple::new(py, model::ACTIVATIONS.map(|(name, _)| name))?)?;
    module.add("KV_TYPES", PyTuple::new(py, model::KV_TYPES.map(|(name, _)| name))?)?;
    module.add("NO_TOKEN", NO_TOKEN)?;
    module.add_class::<formats::FormatInfo>()?;
    module.add_class::<model::Weights>()?;
    module.add_class::<model::Cache>()?;
    module.add_class::<model::Snapshot>()?;
    module.add_class::<model::Executor>()?;
    module.add_class::<model::Collector>()?;
    module.add_class::<sample::Sampler>()?;
    module.add_class::<gradients::ScaledTensor>()?;
    module.add_class::<gradients::OutputCovariances>()?;
    module.add_class::<gradients::ScaleGradients>()?;
    module.add_class::<gradients::Pass>()?;
    module.add_class::<gradients::Differentiator>()?;
    for function in [
        wrap_pyfunction!(formats::formats, module)?,
        wrap_pyfunction!(formats::find_format, module)?,
        wrap_pyfunction!(encode::encode, module)?,
        wrap_pyfunction!(encode::encode_to_file, module)?,
        wrap_pyfunction!(encode::decode, module)?,
        wrap_pyfunction!(feedback::improve, module)?,
        wrap_pyfunction!(machine::isa, module)?,
        wrap_pyfunction!(machine::isas, module)?,
        wrap_pyfunction!(machine::checked_threads, module)?,
        wrap_pyfunction!(measure::nll, module)?,
        wrap_pyfunction!(measure::divergence, module)?,
        wrap_pyfunction!(sample::choose_tokens, module)?,
        wrap_pyfunction!(sample::logprobs, module)?,
        wrap_pyfunction!(sample::random_fraction, module)?,
        wrap_pyfunction!(machine::stream_rate, module)?,
        wrap_pyfunction!(machine::peak_rate, module)?,
    ] {
        module.add_function(function)?;
    }
    Ok(())
}

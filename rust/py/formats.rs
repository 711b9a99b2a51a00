//! The table of number formats for Python, which has no other.

use pyo3::prelude::*;

use crate::formats::Format;
use crate::kernels::layout::packed::Packed;

/// Facts about one number format.
#[pyclass(frozen, get_all, module = "fewbit._core")]
pub struct FormatInfo {
    /// The name in GGUF, or of the affine family.
    name: String,
    /// Formats of one family have blocks that are built alike; "floats" have no blocks.
    family: &'static str,
    /// Elements of a block.
    block: usize,
    /// Bytes of a block.
    bytes: usize,
    /// GGUF's number of the tensor type, None where GGUF has no such type.
    gguf_id: Option<u32>,
    /// Columns that share a scale of the weights, None for floats.
    scale_group: Option<usize>,
    /// True if a minimum is added to each group.
    has_minimum: bool,
    /// Columns that share a scale of int8 activations, None where activations stay floats.
    activation_group: Option<usize>,
    /// True if encoding needs an importance matrix.
    needs_importance: bool,
    /// True if the CPU's fast layout takes more bytes than the file.
    larger_than_file: bool,
}

impl From<Format> for FormatInfo {
    fn from(format: Format) -> Self {
        Self {
            name: format.name(),
            family: format.family().name(),
            block: format.block(),
            bytes: format.block_bytes(),
            gguf_id: format.gguf_id(),
            scale_group: format.codes().map(|codes| codes.group),
            has_minimum: format.codes().is_some_and(|codes| codes.has_min),
            activation_group: format.activation_group(),
            needs_importance: format.needs_importance(),
            larger_than_file: Packed::larger_than_file(format),
        }
    }
}

/// All formats that GGUF has and fewbit reads and writes.
#[pyfunction]
pub fn formats() -> Vec<FormatInfo> {
    Format::all().map(FormatInfo::from).collect()
}

/// The format called `name`, in any letter case: one of the table or an affine one.
#[pyfunction]
pub fn find_format(name: &str) -> PyResult<FormatInfo> {
    Ok(Format::parse(name)?.into())
}

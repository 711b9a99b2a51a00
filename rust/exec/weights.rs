//! The tensors of a model, packed for the kernels.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::formats::Format;
use crate::kernels::packed::Packed;

/// Packed tensors by name; executors share them.
#[derive(Default, Clone)]
pub struct Weights {
    tensors: HashMap<String, Arc<Packed>>,
}

impl Weights {
    /// Packs and keeps one tensor of `rows` x `columns` (1 row for a vector).
    pub fn add(
        &mut self,
        name: &str,
        format: Format,
        rows: usize,
        columns: usize,
        data: &[u8],
    ) -> Result<()> {
        let packed = Packed::new(data, format, rows, columns)
            .map_err(|error| Error { message: format!("`{name}`: {}", error.message), ..error })?;
        self.tensors.insert(name.to_owned(), Arc::new(packed));
        Ok(())
    }

    /// Bytes that the packed tensors take.
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.bytes()).sum()
    }

    /// The tensor `name`, of `rows` x `columns` where those are given.
    pub fn find(&self, name: &str, rows: Option<usize>, columns: usize) -> Result<Arc<Packed>> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            Error::input(format!("the plan needs tensor `{name}`, which is missing"))
        })?;
        if tensor.columns != columns || rows.is_some_and(|rows| rows != tensor.rows) {
            let want = rows.map_or("any number of".to_owned(), |rows| rows.to_string());
            return Err(Error::shape(format!(
                "`{name}` must have {want} rows of {columns} elements, found {} of {}",
                tensor.rows, tensor.columns
            )));
        }
        Ok(Arc::clone(tensor))
    }

    /// The vector `name` of `columns` floats.
    pub fn vector(&self, name: &str, columns: usize) -> Result<Vec<f32>> {
        let tensor = self.find(name, Some(1), columns)?;
        let mut out = vec![0.0; columns];
        tensor.row(0, &mut out);
        Ok(out)
    }
}

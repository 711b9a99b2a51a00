//! The weights of a model, packed for the kernels.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::formats::Format;
use crate::kernels::layout::packed::Packed;

/// Packed tensors by name, which executors share. Experts' tensors have a matrix for each expert.
#[derive(Default, Clone)]
pub struct Weights {
    tensors: HashMap<String, Vec<Arc<Packed>>>,
    keep_file_size: bool,
}

impl Weights {
    /// No tensors; `keep_file_size` keeps formats with code books at the bytes of their file, which
    /// is slower.
    pub fn new(keep_file_size: bool) -> Self {
        Self { tensors: HashMap::new(), keep_file_size }
    }

    /// Packs and stores one tensor: `matrices` of `rows` x `columns` each (1 row for a vector).
    pub fn add(
        &mut self,
        name: &str,
        format: Format,
        [matrices, rows, columns]: [usize; 3],
        data: &[u8],
    ) -> Result<()> {
        let fail =
            |error: Error| Error { message: format!("`{name}`: {}", error.message), ..error };
        if matrices == 0 || !data.len().is_multiple_of(matrices) {
            let what = format!("{} bytes do not divide into {matrices} matrices", data.len());
            return Err(fail(Error::shape(what)));
        }
        let packed = (0..matrices).map(|matrix| {
            let size = data.len() / matrices;
            Packed::new(&data[matrix * size..][..size], format, rows, columns, self.keep_file_size)
                .map(Arc::new)
        });
        self.tensors.insert(name.to_owned(), packed.collect::<Result<_>>().map_err(fail)?);
        Ok(())
    }

    /// Bytes that the packed tensors take.
    pub fn bytes(&self) -> usize {
        self.tensors.values().flatten().map(|tensor| tensor.bytes()).sum()
    }

    /// The tensor `name`, of `rows` x `columns` where those are given.
    pub fn find(&self, name: &str, rows: Option<usize>, columns: usize) -> Result<Arc<Packed>> {
        let found = self.matrices(name)?;
        let [tensor] = found else {
            return Err(Error::shape(format!("`{name}` holds {} matrices", found.len())));
        };
        if tensor.columns != columns || rows.is_some_and(|rows| rows != tensor.rows) {
            let want = rows.map_or("any number of".to_owned(), |rows| rows.to_string());
            return Err(Error::shape(format!(
                "`{name}` must have {want} rows of {columns} elements, found {} of {}",
                tensor.rows, tensor.columns
            )));
        }
        Ok(Arc::clone(tensor))
    }

    /// The matrix `name` of `rows` rows, of any length.
    pub fn matrix(&self, name: &str, rows: usize) -> Result<Arc<Packed>> {
        self.find(name, Some(rows), self.columns(name)?)
    }

    /// Columns of the tensor `name`.
    pub fn columns(&self, name: &str) -> Result<usize> {
        Ok(self.matrices(name)?[0].columns)
    }

    /// The `experts` matrices of `rows` x `columns` in the tensor `name`.
    pub fn experts(
        &self,
        name: &str,
        [experts, rows, columns]: [usize; 3],
    ) -> Result<Vec<Arc<Packed>>> {
        let found = self.matrices(name)?;
        let fits = |tensor: &Arc<Packed>| tensor.rows == rows && tensor.columns == columns;
        if found.len() != experts || !found.iter().all(fits) {
            return Err(Error::shape(format!(
                "`{name}` must have {experts} matrices of {rows} x {columns}, found {} of {} x {}",
                found.len(),
                found[0].rows,
                found[0].columns
            )));
        }
        Ok(found.to_vec())
    }

    /// The matrices of the tensor `name`.
    pub fn matrices(&self, name: &str) -> Result<&[Arc<Packed>]> {
        self.tensors.get(name).map(Vec::as_slice).ok_or_else(|| {
            Error::input(format!("the plan needs tensor `{name}`, which is missing"))
        })
    }

    /// The vector `name` of `columns` floats.
    pub fn vector(&self, name: &str, columns: usize) -> Result<Vec<f32>> {
        let tensor = self.find(name, Some(1), columns)?;
        let mut out = vec![0.0; columns];
        tensor.row(0, &mut out);
        Ok(out)
    }
}

//! Sums of the squared inputs of products, from which importance matrices are made, or of the
//! products of each two columns, from which covariances are made.
//!
//! Products with one input share a stage and its sums. The sums are f64 and run over the tokens in
//! order, each column in one thread: the number of threads does not change them. A stage of experts
//! has sums and a count for each expert.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::covariance::Products;
use super::program::{Program, Work};
use crate::error::{Error, Result};
use crate::kernels::Kernels;

/// Columns that a thread adds at a time.
const COLUMNS: usize = 64;

/// The sums of those stages whose weights were asked for.
pub struct Collector {
    /// One entry a stage of the program.
    stages: Vec<Option<Sums>>,
    /// The stages to execute: up to the last one with sums.
    pub walked: usize,
    /// Tokens at positions below it are not added.
    pub skip: usize,
}

/// What a collector adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    /// The products of each two columns, not only the squares of each.
    pub covariance: bool,
    /// Tokens at positions below it are left out.
    pub skip: usize,
}

/// The sums of one stage's input, and the number of rows in them.
pub struct Sums {
    /// The weights that multiply this input.
    pub names: Vec<String>,
    columns: usize,
    /// [piece][matrices, columns of the piece]; empty if `products` has them.
    pieces: Vec<Mutex<Vec<f64>>>,
    /// The products of each two columns, if these are collected.
    products: Option<Products>,
    counts: Vec<AtomicU64>,
}

impl Collector {
    /// For the products whose weights `wanted` names.
    ///
    /// # Errors
    ///
    /// The covariances are larger than memory can be.
    pub fn new(
        program: &Program,
        wanted: impl Fn(&str) -> bool,
        collection: Collection,
    ) -> Result<Self> {
        let mut stages: Vec<Option<Sums>> = Vec::with_capacity(program.stages.len());
        for stage in &program.stages {
            let names: Vec<String> = match &stage.work {
                Work::Linear { jobs, .. } => jobs.iter().map(|job| job.name.clone()).collect(),
                Work::Experts(work) => work.jobs.iter().map(|job| job.name.clone()).collect(),
                _ => Vec::new(),
            };
            let names: Vec<String> = names.into_iter().filter(|name| wanted(name)).collect();
            stages.push(match input(&stage.work) {
                Some((matrices, columns)) if !names.is_empty() => {
                    Some(Sums::new(names, matrices, columns, collection.covariance)?)
                }
                _ => None,
            });
        }
        let walked = stages.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        Ok(Self { stages, walked, skip: collection.skip })
    }

    /// True if it was made for a program with the same stages.
    pub fn fits(&self, program: &Program) -> bool {
        self.stages.len() == program.stages.len()
            && self.stages.iter().zip(&program.stages).all(|(sums, stage)| {
                sums.as_ref()
                    .is_none_or(|s| input(&stage.work) == Some((s.counts.len(), s.columns)))
            })
    }

    /// The sums of stage `index`, if it has any.
    pub fn stage(&self, index: usize) -> Option<&Sums> {
        self.stages[index].as_ref()
    }

    /// All sums, in the plan's order.
    pub fn all(&self) -> impl Iterator<Item = &Sums> {
        self.stages.iter().flatten()
    }
}

/// The matrices that a stage of products chooses among, and the columns of its input.
fn input(work: &Work) -> Option<(usize, usize)> {
    match work {
        Work::Linear { x, .. } => Some((1, x.width)),
        Work::Experts(work) => Some((work.jobs[0].weights.len(), work.rows().width)),
        _ => None,
    }
}

impl Sums {
    fn new(names: Vec<String>, matrices: usize, columns: usize, covariance: bool) -> Result<Self> {
        if covariance && Products::bytes(matrices, columns).is_none() {
            return Err(Error::input(format!("no memory holds the covariance of `{}`", names[0])));
        }
        let squared = if covariance { 0 } else { columns };
        let pieces = (0..squared)
            .step_by(COLUMNS)
            .map(|start| Mutex::new(vec![0.0; matrices * COLUMNS.min(columns - start)]))
            .collect();
        let products = covariance.then(|| Products::new(matrices, columns));
        let counts = (0..matrices).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { names, columns, pieces, products, counts })
    }

    /// Adds rows that matrix `matrix` multiplies. Each of `workers` threads calls it with the same
    /// rows and adds some of the columns.
    ///
    /// # Safety
    ///
    /// Each row has `columns` floats, which nobody changes meanwhile.
    pub unsafe fn add(
        &self,
        kernels: &Kernels,
        matrix: usize,
        rows: impl Iterator<Item = *const f32> + Clone,
        worker: usize,
        workers: usize,
    ) {
        if worker == 0 {
            self.counts[matrix].fetch_add(rows.clone().count() as u64, Ordering::Relaxed);
        }
        if let Some(products) = &self.products {
            // SAFETY: the caller's promise.
            unsafe { products.add(kernels, matrix, rows, worker, workers) };
            return;
        }
        for (piece, sums) in self.pieces.iter().enumerate().skip(worker).step_by(workers) {
            let mut sums = sums.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let width = sums.len() / self.counts.len();
            let sums = &mut sums[matrix * width..][..width];
            for row in rows.clone() {
                // SAFETY: the caller's promise; the pieces lie side by side within the columns.
                let row = unsafe { std::slice::from_raw_parts(row.add(piece * COLUMNS), width) };
                for (sum, &x) in sums.iter_mut().zip(row) {
                    *sum += f64::from(x) * f64::from(x);
                }
            }
        }
    }

    /// The sums of the products of each two columns, [columns, columns], of the input of matrix
    /// `matrix`; None if only squares are collected or there is no such matrix.
    pub fn covariance(&self, matrix: usize) -> Option<Vec<f64>> {
        let found = self.products.as_ref().filter(|_| matrix < self.counts.len())?;
        Some(found.of(matrix))
    }

    /// Columns of the input.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The sums of squares so far, [matrices, columns].
    pub fn sums(&self) -> Vec<f64> {
        if let Some(products) = &self.products {
            return products.squares();
        }
        let mut out = vec![0.0; self.counts.len() * self.columns];
        for (piece, sums) in self.pieces.iter().enumerate() {
            let sums = sums.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let width = sums.len() / self.counts.len();
            for (row, sums) in out.chunks_exact_mut(self.columns).zip(sums.chunks_exact(width)) {
                row[piece * COLUMNS..][..width].copy_from_slice(sums);
            }
        }
        out
    }

    /// The rows that each matrix multiplied.
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::available;

    #[test]
    fn each_matrix_has_its_own_rows_whoever_adds_them() {
        const WIDTH: usize = COLUMNS + 7;
        let row = |scale: f32| (0..WIDTH).map(|i| scale * i as f32).collect::<Vec<f32>>();
        let rows = [row(1.0), row(2.0), row(3.0)];
        for workers in 1..4 {
            let sums = Sums::new(vec!["experts".to_owned()], 2, WIDTH, false).unwrap();
            let kernels = available()[0];
            for worker in 0..workers {
                // SAFETY: the rows have as many columns as the sums, and nobody writes them.
                unsafe {
                    sums.add(kernels, 0, [rows[0].as_ptr()].into_iter(), worker, workers);
                    sums.add(kernels, 1, rows[1..].iter().map(|row| row.as_ptr()), worker, workers);
                }
            }
            assert_eq!(sums.counts(), [1, 2]);
            let found = sums.sums();
            for column in 0..WIDTH {
                let square = (column * column) as f64;
                assert_eq!(found[column], square);
                assert_eq!(found[WIDTH + column], 13.0 * square);
            }
        }
    }
}

//! The backward pass for Python: passes over windows, and what observes them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArray4, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
};
use pyo3::prelude::*;

use super::arrays::{bytes, vector};
use super::machine::{kernels_of, thread_count};
use super::model::Weights;
use crate::backward::observer::{NoObserver, Observer};
use crate::backward::scaled::{Places, Scaled};
use crate::backward::{self, covariance, scale_gradients};
use crate::error::Error;
use crate::formats::Format;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A quantized tensor with fixed codes, whose super-block scales are f32.
#[pyclass(frozen, module = "fewbit._core")]
pub struct ScaledTensor(Mutex<Arc<Scaled>>);

impl ScaledTensor {
    fn get(&self) -> Arc<Scaled> {
        Arc::clone(&lock(&self.0))
    }
}

#[pymethods]
impl ScaledTensor {
    /// `d_at` and `m_at` are the first bytes of a block's f16 scale and minimum.
    #[new]
    #[pyo3(signature = (data, format, columns, d_at, m_at=None))]
    fn new(
        data: PyReadonlyArray2<'_, u8>,
        format: &str,
        columns: usize,
        d_at: usize,
        m_at: Option<usize>,
    ) -> PyResult<Self> {
        let format = Format::parse(format)?;
        let data = bytes(&data)?;
        let rows = data.len() / format.row_bytes(columns)?.max(1);
        let places = Places { d: d_at, m: m_at };
        let tensor = Scaled::new(data.to_vec(), format, [rows, columns], places)?;
        Ok(Self(Mutex::new(Arc::new(tensor))))
    }

    /// f32 [rows, blocks] scales.
    #[getter]
    fn d<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let tensor = self.get();
        tensor.d.clone().into_pyarray(py).reshape([tensor.rows, tensor.blocks()])
    }

    /// f32 [rows, blocks] minima, [rows, 0] for formats without.
    #[getter]
    fn m<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let tensor = self.get();
        let blocks = tensor.m.len() / tensor.rows;
        tensor.m.clone().into_pyarray(py).reshape([tensor.rows, blocks])
    }

    /// Replaces all scales and minima.
    fn set(&self, d: PyReadonlyArray1<'_, f32>, m: PyReadonlyArray1<'_, f32>) -> PyResult<()> {
        let (d, m) = (vector("d", &d)?.to_vec(), vector("m", &m)?.to_vec());
        let other = self.get().with_scales(d, m)?;
        *lock(&self.0) = Arc::new(other);
        Ok(())
    }

    /// The bytes of the tensor, its scales rounded to f16: uint8 [rows, row bytes].
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u8>>> {
        let tensor = self.get();
        let data = tensor.bytes();
        let size = data.len() / tensor.rows;
        data.into_pyarray(py).reshape([tensor.rows, size])
    }
}

type Tensors<'py> = HashMap<String, PyRef<'py, ScaledTensor>>;

fn tensors(scaled: &Tensors<'_>) -> HashMap<String, Arc<Scaled>> {
    scaled.iter().map(|(name, tensor)| (name.clone(), tensor.get())).collect()
}

/// Sums of g g^T over the gradients g of outputs.
#[pyclass(frozen, module = "fewbit._core")]
pub struct OutputCovariances(Mutex<covariance::Covariances>);

/// f64 [matrices, blocks, outputs of a block, outputs of a block], and u64 [matrices] tokens.
type Collected<'py> = (Bound<'py, PyArray4<f64>>, Bound<'py, PyArray1<u64>>);

#[pymethods]
impl OutputCovariances {
    /// For the outputs of `products` and the rows of the tables `embeddings`: an entire matrix for
    /// up to `most` outputs, otherwise equal blocks on the diagonal of up to `block` outputs.
    #[new]
    #[pyo3(signature = (products, embeddings, most=2048, block=256, isa=None))]
    fn new(
        products: HashSet<String>,
        embeddings: HashSet<String>,
        most: usize,
        block: usize,
        isa: Option<&str>,
    ) -> PyResult<Self> {
        let sizes = [most, block];
        let found = covariance::Covariances::new(kernels_of(isa)?, products, embeddings, sizes);
        Ok(Self(Mutex::new(found)))
    }

    /// The sums since the last call.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<HashMap<String, Collected<'py>>> {
        let found = lock(&self.0).take();
        found
            .into_iter()
            .map(|(name, sums)| {
                let shape = [sums.counts.len(), sums.width / sums.block, sums.block, sums.block];
                let all = sums.symmetric().into_pyarray(py).reshape(shape)?;
                Ok((name, (all, sums.counts.into_pyarray(py))))
            })
            .collect()
    }
}

/// Sums of the gradients of scales and weight vectors.
#[pyclass(frozen, module = "fewbit._core")]
pub struct ScaleGradients(Mutex<scale_gradients::ScaleGradients>);

type Arrays<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>);

#[pymethods]
impl ScaleGradients {
    #[new]
    #[pyo3(signature = (tensors, vectors, isa=None))]
    fn new(tensors: Tensors<'_>, vectors: HashSet<String>, isa: Option<&str>) -> PyResult<Self> {
        let kernels = kernels_of(isa)?;
        let tensors = self::tensors(&tensors);
        let found = scale_gradients::ScaleGradients::new(kernels, &tensors, vectors);
        Ok(Self(Mutex::new(found)))
    }

    /// The gradients of scales and of minima, f64, in the order of `ScaledTensor.set`.
    fn tensors<'py>(&self, py: Python<'py>) -> HashMap<String, Arrays<'py>> {
        let found = lock(&self.0);
        let arrays = |g: &scale_gradients::Gradients| {
            (g.d.clone().into_pyarray(py), g.m.clone().into_pyarray(py))
        };
        found.tensors().map(|(name, g)| (name.clone(), arrays(g))).collect()
    }

    /// The gradients of weight vectors that the pass met, f64.
    fn vectors<'py>(&self, py: Python<'py>) -> HashMap<String, Bound<'py, PyArray1<f64>>> {
        let found = lock(&self.0);
        let met = found.vectors().iter().filter(|(_, gradient)| !gradient.is_empty());
        met.map(|(name, gradient)| (name.clone(), gradient.clone().into_pyarray(py))).collect()
    }
}

/// What watches a backward pass.
#[derive(FromPyObject)]
enum Watcher<'py> {
    Covariances(PyRef<'py, OutputCovariances>),
    Scales(PyRef<'py, ScaleGradients>),
}

/// Calls `work` with the observer, without the GIL.
fn observed<R: Send>(
    py: Python<'_>,
    watcher: Option<&Watcher<'_>>,
    work: impl FnOnce(&mut (dyn Observer + Send)) -> Result<R, Error> + Send,
) -> PyResult<R> {
    let covariances = match watcher {
        Some(Watcher::Covariances(found)) => Some(&found.0),
        _ => None,
    };
    let scales = match watcher {
        Some(Watcher::Scales(found)) => Some(&found.0),
        _ => None,
    };
    Ok(py.detach(|| match (covariances, scales) {
        (Some(found), _) => work(&mut *lock(found)),
        (_, Some(found)) => work(&mut *lock(found)),
        _ => work(&mut NoObserver),
    })?)
}

/// A forward and backward pass over some windows.
#[pyclass(frozen, module = "fewbit._core")]
pub struct Pass(Mutex<backward::Pass>);

#[pymethods]
impl Pass {
    /// f32 [tokens, width]: the gradient of the input of the segment that was gone through last.
    #[getter]
    fn gradient<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let pass = lock(&self.0);
        let (gradient, tokens) = (pass.gradient().to_vec(), pass.tokens());
        let width = gradient.len() / tokens;
        gradient.into_pyarray(py).reshape([tokens, width])
    }
}

/// A plan with weights, to be differentiated on the CPU.
#[pyclass(frozen, module = "fewbit._core")]
pub struct Differentiator(backward::Differentiator);

#[pymethods]
impl Differentiator {
    /// Tensors in `scaled` come before those of the same name in `weights`.
    #[new]
    #[pyo3(signature = (plan, weights, scaled=None, threads=0, isa=None))]
    fn new(
        plan: &str,
        weights: &Weights,
        scaled: Option<Tensors<'_>>,
        #[pyo3(from_py_with = thread_count)] threads: usize,
        isa: Option<&str>,
    ) -> PyResult<Self> {
        let (kernels, scaled) = (kernels_of(isa)?, tensors(&scaled.unwrap_or_default()));
        let made =
            backward::Differentiator::new(plan, &*weights.get()?, &scaled, threads, kernels)?;
        Ok(Self(made))
    }

    /// The weights of products in each segment: the embedding, each layer, the output layer.
    #[getter]
    fn products(&self) -> Vec<Vec<String>> {
        self.0.products()
    }

    /// Values up to the output layer of windows of `lengths` tokens; `keep` for a backward pass.
    #[pyo3(signature = (tokens, lengths, keep=true))]
    fn forward(
        &self,
        py: Python<'_>,
        tokens: PyReadonlyArray1<'_, u32>,
        lengths: Vec<usize>,
        keep: bool,
    ) -> PyResult<Pass> {
        let tokens = vector("tokens", &tokens)?;
        let pass = py.detach(|| self.0.forward(tokens, &lengths, keep))?;
        Ok(Pass(Mutex::new(pass)))
    }

    /// f32 [tokens, vocabulary] logits.
    fn logits<'py>(&self, py: Python<'py>, pass_: &Pass) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let logits = py.detach(|| self.0.logits(&lock(&pass_.0)))?;
        let rows = logits.len() / self.0.width();
        logits.into_pyarray(py).reshape([rows, self.0.width()])
    }

    /// Differentiates the sum of -ln p(label), labels sampled by `uniforms` f64 [tokens]; u32 labels.
    #[pyo3(signature = (pass_, uniforms, observer=None))]
    fn sampled_loss<'py>(
        &self,
        py: Python<'py>,
        pass_: &Pass,
        uniforms: PyReadonlyArray1<'_, f64>,
        observer: Option<Watcher<'_>>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let uniforms = vector("uniforms", &uniforms)?;
        let labels = observed(py, observer.as_ref(), |observer| {
            self.0.sampled_loss(&mut lock(&pass_.0), uniforms, observer)
        })?;
        Ok(labels.into_pyarray(py))
    }

    /// Differentiates the mean of KL(base || this model); f64 [tokens] divergences in nats.
    #[pyo3(signature = (pass_, base, base_pass, observer=None))]
    fn divergence<'py>(
        &self,
        py: Python<'py>,
        pass_: &Pass,
        base: &Differentiator,
        base_pass: &Pass,
        observer: Option<Watcher<'_>>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        if std::ptr::eq(pass_, base_pass) {
            return Err(Error::input("the passes of the model and of its base are the same").into());
        }
        let found = observed(py, observer.as_ref(), |observer| {
            let (mut pass, base_pass) = (lock(&pass_.0), lock(&base_pass.0));
            self.0.divergence(&mut pass, &base.0, &base_pass, observer)
        })?;
        Ok(found.into_pyarray(py))
    }

    /// Goes back through one segment; its index, or None if the embedding was the last.
    #[pyo3(signature = (pass_, observer=None))]
    fn back(
        &self,
        py: Python<'_>,
        pass_: &Pass,
        observer: Option<Watcher<'_>>,
    ) -> PyResult<Option<usize>> {
        observed(py, observer.as_ref(), |observer| self.0.back(&mut lock(&pass_.0), observer))
    }
}

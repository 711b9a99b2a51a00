//! Choosing tokens, and their log-probabilities.

use std::sync::{Arc, MutexGuard};

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use super::arrays::vector;
use crate::error::{Error, Result};
use crate::sample::filters::Filters;
use crate::sample::penalties::{Breakers, Changes, Dry};
use crate::sample::scores::scores;
use crate::sample::{self, Request};
use crate::threads::ForkMutex;

/// How one sequence's tokens are drawn, and its tokens so far.
#[pyclass(frozen, module = "fewbit._core")]
pub struct Sampler(Arc<ForkMutex<sample::Sampler>>);

impl Sampler {
    fn get(&self) -> Result<MutexGuard<'_, sample::Sampler>> {
        sample::locked(&self.0)
    }
}

/// The last tokens of a window: -1 is all of them.
fn window(tokens: i64) -> Option<usize> {
    usize::try_from(tokens).ok()
}

/// Refuses what has no meaning; `fewbit.Sampling` refuses more, by name.
fn check(filters: &Filters, changes: &Changes) -> Result<()> {
    let Filters { temperature, top_p, min_p, .. } = *filters;
    let numbers = [changes.presence, changes.frequency, changes.dry.multiplier];
    let good = temperature >= 0.0
        && temperature.is_finite()
        && top_p > 0.0
        && (0.0..=1.0).contains(&min_p)
        && changes.repeat > 0.0
        && changes.dry.base >= 1.0
        && numbers.iter().all(|x| x.is_finite())
        && changes.bias.iter().all(|bias| bias.1 < f64::INFINITY);
    if good { Ok(()) } else { Err(Error::input("an option of the sampler is out of its range")) }
}

#[pymethods]
impl Sampler {
    /// By default the likeliest token is always taken.
    #[new]
    #[pyo3(signature = (
        *, seed=0, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, logit_bias=Vec::new(),
        repeat_penalty=1.0, repeat_last_n=64, presence_penalty=0.0, frequency_penalty=0.0,
        dry_multiplier=0.0, dry_base=1.75, dry_allowed_length=2, dry_penalty_last_n=-1,
        breakers=Breakers::new(),
    ))]
    #[allow(clippy::too_many_arguments)] // Python's signature
    fn new(
        seed: u64,
        temperature: f64,
        top_k: usize,
        top_p: f64,
        min_p: f64,
        logit_bias: Vec<(u32, f64)>,
        repeat_penalty: f64,
        repeat_last_n: i64,
        presence_penalty: f64,
        frequency_penalty: f64,
        dry_multiplier: f64,
        dry_base: f64,
        dry_allowed_length: usize,
        dry_penalty_last_n: i64,
        breakers: Breakers,
    ) -> PyResult<Self> {
        let filters = Filters { temperature, top_k, top_p, min_p };
        let changes = Changes {
            bias: logit_bias,
            repeat: repeat_penalty,
            presence: presence_penalty,
            frequency: frequency_penalty,
            window: window(repeat_last_n),
            dry: Dry {
                multiplier: dry_multiplier,
                base: dry_base,
                allowed: dry_allowed_length,
                window: window(dry_penalty_last_n),
                breakers,
            },
        };
        check(&filters, &changes)?;
        let history = Vec::new();
        Ok(Self(Arc::new(ForkMutex::new(sample::Sampler { seed, filters, changes, history }))))
    }

    #[getter]
    fn seed(&self) -> PyResult<u64> {
        Ok(self.get()?.seed)
    }

    /// Number of tokens so far, prompt and text: the position of the next one.
    #[getter]
    fn position(&self) -> PyResult<usize> {
        Ok(self.get()?.history.len())
    }

    /// Appends tokens of the prompt or the text.
    fn accept(&self, tokens: Vec<u32>) -> PyResult<()> {
        self.get()?.history.extend(tokens);
        Ok(())
    }

    /// Forgets all but the first `length` tokens.
    fn truncate(&self, length: usize) -> PyResult<()> {
        self.get()?.history.truncate(length);
        Ok(())
    }

    /// Logits [vocab] after bias, penalties and DRY, f64.
    fn changed<'py>(
        &self,
        py: Python<'py>,
        logits: PyReadonlyArray1<'py, f32>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let row = vector("logits", &logits)?;
        let mut out = Vec::new();
        py.detach(|| self.get().map(|sampler| sampler.changed(row, &mut out)))?;
        Ok(out.into_pyarray(py))
    }
}

/// Log-probabilities [n] of tokens, the ids [n, top] of the likeliest ones and theirs.
type Scores<'py> =
    (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray2<u32>>, Bound<'py, PyArray2<f64>>);

fn scores_of<'py>(py: Python<'py>, found: sample::scores::Scores) -> PyResult<Scores<'py>> {
    let rows = found.logprobs.len();
    let shape = [rows, found.top_ids.len() / rows.max(1)];
    Ok((
        found.logprobs.into_pyarray(py),
        found.top_ids.into_pyarray(py).reshape(shape)?,
        found.top_logprobs.into_pyarray(py).reshape(shape)?,
    ))
}

/// ln p(target) of each row, and the `top_n` likeliest tokens with theirs.
#[pyfunction]
#[pyo3(signature = (logits, targets, top_n=0))]
pub fn logprobs<'py>(
    py: Python<'py>,
    logits: PyReadonlyArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, u32>,
    top_n: usize,
) -> PyResult<Scores<'py>> {
    let (rows, targets, width) =
        (rows_of(&logits)?, vector("targets", &targets)?, logits.shape()[1]);
    let found = py.detach(|| scores(rows, width, targets, top_n))?;
    scores_of(py, found)
}

fn rows_of<'a>(logits: &'a PyReadonlyArray2<'_, f32>) -> PyResult<&'a [f32]> {
    logits.as_slice().map_err(|_| Error::shape("`logits` must be C-contiguous").into())
}

/// The list of a row's optional values, or None for each row.
fn each<T>(name: &str, rows: usize, values: Option<Vec<Option<T>>>) -> Result<Vec<Option<T>>> {
    let values = values.unwrap_or_else(|| (0..rows).map(|_| None).collect());
    if values.len() == rows {
        return Ok(values);
    }
    let found = values.len();
    Err(Error::shape(format!(
        "`{name}` has {found} elements, expected one for each of {rows} rows"
    )))
}

type Masks<'py> = Vec<Option<PyReadonlyArray1<'py, u32>>>;

/// The token after each row of logits, and its scores if `top_n` is given.
#[pyfunction]
#[pyo3(signature = (logits, samplers, masks=None, forced=None, top_n=None))]
#[pyo3(name = "sample")]
pub fn choose_tokens<'py>(
    py: Python<'py>,
    logits: PyReadonlyArray2<'py, f32>,
    samplers: Vec<PyRef<'py, Sampler>>,
    masks: Option<Masks<'py>>,
    forced: Option<Vec<Option<u32>>>,
    top_n: Option<usize>,
) -> PyResult<(Bound<'py, PyArray1<u32>>, Option<Scores<'py>>)> {
    let (rows, width, count) = (rows_of(&logits)?, logits.shape()[1], samplers.len());
    let samplers: Vec<_> = samplers.iter().map(|sampler| Arc::clone(&sampler.0)).collect();
    let masks = each("masks", count, masks)?;
    let allowed: Vec<Option<&[u32]>> = masks
        .iter()
        .map(|mask| mask.as_ref().map(|mask| vector("masks", mask)).transpose())
        .collect::<PyResult<_>>()?;
    let forced = each("forced", count, forced)?;
    let requests: Vec<_> = (samplers.iter().zip(allowed).zip(forced))
        .map(|((sampler, allowed), forced)| Request { sampler, allowed, forced })
        .collect();
    let (ids, found) = py.detach(|| -> Result<_> {
        let ids = sample::sample(rows, width, &requests)?;
        let found = top_n.map(|top_n| scores(rows, width, &ids, top_n)).transpose()?;
        Ok((ids, found))
    })?;
    let found = found.map(|found| scores_of(py, found)).transpose()?;
    Ok((ids.into_pyarray(py), found))
}

/// The number from 0 to 1 that a device which draws itself uses at a position.
#[pyfunction]
pub fn random_fraction(seed: u64, position: u64) -> f64 {
    (sample::random_bits(seed, position) >> 11) as f64 / (1u64 << 53) as f64
}

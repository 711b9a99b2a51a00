"""Measure perplexity and KL divergence of models over a text, window by window.

The windows are llama.cpp's: the text without one final newline is tokenised at once and cut into
windows of `ctx` tokens. The second half of each window is scored, so every scored token has at
least ctx/2 tokens before it. Models are compared side by side: only one window's logits are in
memory (a card measures them itself), and no file of logits is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.measure import statistics as measures
from fewbit.measure.results import Divergence, Perplexity, Sample
from fewbit.measure.statistics import Values
from fewbit.run.limits import ACTIVATIONS, BATCH, Activations
from fewbit.run.model import LoadedModel
from fewbit.run.predictions import Ids, Predictions


@dataclass(frozen=True)
class Variant:
    """A model and the kind of activations that it runs with."""

    model: LoadedModel
    acts: Activations


@dataclass(frozen=True)
class Windows:
    """Token ids [chunks, ctx]: `targets` as the text has them, `inputs` with BOS in front."""

    inputs: Ids
    targets: Ids

    @property
    def ctx(self) -> int:
        """Tokens per window."""
        return int(self.targets.shape[1])

    @property
    def first(self) -> int:
        """The first position whose prediction is scored; the last is ctx - 2."""
        return self.ctx // 2

    @property
    def scored(self) -> Ids:
        """The tokens that are scored, [chunks, ctx - 1 - first]."""
        return self.targets[:, self.first + 1 :]


def windows(model: LoadedModel, text: str, ctx: int = 512, chunks: int | None = None) -> Windows:
    """The windows of `text` for `model`'s tokenizer, the first `chunks` of them.

    Where the vocabulary adds BOS, it replaces the first token of each window (which is never
    scored).

    Raises:
        InputError: ctx is below 4, chunks below 1, or the text has fewer than 2 ctx tokens.

    """
    if ctx < 4:
        raise InputError(f"a window of {ctx} tokens is too short", hint="use 4 or more", ctx=ctx)
    if chunks is not None and chunks < 1:
        raise InputError(f"cannot measure {chunks} chunks", hint="use 1 or more", chunks=chunks)
    ids = model.tokenizer.encode(text.removesuffix("\n"), special=True)
    if len(ids) < 2 * ctx:
        raise InputError(
            f"the text has {len(ids)} tokens, windows of {ctx} need at least {2 * ctx}",
            hint="use a longer text or a smaller window (`--ctx`)",
            tokens=len(ids),
            needed=2 * ctx,
        )
    count = min(len(ids) // ctx, chunks or len(ids))
    targets = np.array(ids[: count * ctx], np.uint32).reshape(count, ctx)
    inputs = targets.copy()
    if model.tokenizer.adds_bos and model.tokenizer.bos is not None:
        inputs[:, 0] = model.tokenizer.bos
    return Windows(inputs, targets)


def perplexity(
    model: LoadedModel,
    text: str,
    ctx: int = 512,
    chunks: int | None = None,
    acts: Activations = "int8",
    progress: Progress | None = None,
) -> Perplexity:
    """The perplexity of `text` under `model`, as ``llama-perplexity`` measures it.

    Raises:
        InputError: the text is too short for two windows, or `acts` is unknown.

    """
    _check_acts(acts)
    found = windows(model, text, ctx, chunks)
    run = _Run(Variant(model, acts), found)
    start, count = time.perf_counter(), len(found.inputs)
    scored: list[Values] = []
    for chunk in range(count):
        for rows, targets in run.predictions(chunk):
            scored.append(rows.nll(targets))
        if progress:
            progress(
                chunk + 1, count, f"PPL {measures.mean(np.concatenate(scored)).exp().value:.4f}"
            )
    nll = np.concatenate(scored)
    return measures.perplexity(nll, acts, _sample(found, start, int(np.isfinite(nll).sum())))


def divergence(
    model: LoadedModel,
    base: LoadedModel,
    text: str,
    ctx: int = 512,
    chunks: int | None = None,
    acts: Activations = "int8",
    base_acts: Activations = "f32",
    progress: Progress | None = None,
) -> Divergence:
    """How the predictions of `model` diverge from those of `base` on `text`.

    Raises:
        InputError: as `perplexity`, or the vocabularies differ.

    """
    variants = [Variant(model, acts)]
    return divergences(variants, Variant(base, base_acts), text, ctx, chunks, progress)[0]


def divergences(
    variants: Sequence[Variant],
    base: Variant,
    text: str,
    ctx: int = 512,
    chunks: int | None = None,
    progress: Progress | None = None,
) -> list[Divergence]:
    """The divergence of each variant from `base`, all side by side: the base runs once.

    Raises:
        InputError: as `divergence`.

    """
    for variant in (*variants, base):
        _check_acts(variant.acts)
    for variant in variants:
        _check_vocabulary(variant.model, base.model)
    found = windows(base.model, text, ctx, chunks)
    base_run = _Run(base, found)
    tallies = [_Tally(None if v == base else _Run(v, found)) for v in variants]
    start, count = time.perf_counter(), len(found.inputs)
    for chunk in range(count):
        _score_chunk(base_run, tallies, chunk)
        if progress:
            progress(chunk + 1, count, "")
    return [
        tally.result(variant.acts, base.acts, found, start)
        for tally, variant in zip(tallies, variants, strict=True)
    ]


def _score_chunk(base: _Run, tallies: list[_Tally], chunk: int) -> None:
    streams = [tally.run.predictions(chunk) if tally.run else None for tally in tallies]
    for base_rows, targets in base.predictions(chunk):
        for tally, stream in zip(tallies, streams, strict=True):
            rows = base_rows if stream is None else next(stream)[0]
            tally.add(base_rows, rows, targets)


class _Tally:
    """One value per scored token of a variant; a `run` of None is the base against itself."""

    NAMES = ("nll_base", "nll", "kld", "dp", "same_top")

    def __init__(self, run: _Run | None) -> None:
        self.run = run
        self.values: dict[str, list[NDArray[np.generic]]] = {name: [] for name in self.NAMES}

    def add(self, base: Predictions, rows: Predictions, targets: Ids) -> None:
        for name, values in rows.divergence(base, targets).items():
            self.values[name].append(values)

    def result(self, acts: str, base_acts: str, found: Windows, start: float) -> Divergence:
        joined = {name: np.concatenate(values) for name, values in self.values.items()}
        same_top = joined.pop("same_top").astype(np.bool_)
        tokens = {name: values.astype(np.float64) for name, values in joined.items()}
        finite = np.isfinite(np.stack(list(tokens.values()))).all(axis=0)
        sample = _sample(found, start, int(finite.sum()))
        return measures.divergence(tokens, same_top, acts, base_acts, sample)


class _Run:
    """A variant with its cache, giving the predictions of one window after another."""

    def __init__(self, variant: Variant, found: Windows) -> None:
        self.variant = variant
        self.windows = found
        self.cache = variant.model.cache(1, found.ctx)

    def predictions(self, chunk: int) -> Iterator[tuple[Predictions, Ids]]:
        """The scored rows of window `chunk` and the tokens they predict, batch by batch.

        Rows are good until the next are asked for.
        """
        found, model = self.windows, self.variant.model
        self.cache.reset()
        for start in range(0, found.ctx - 1, BATCH):
            stop = min(start + BATCH, found.ctx - 1)  # nothing asks what the last token predicts
            first = min(max(start, found.first), stop)
            rows = model.predict(
                self.cache,
                found.inputs[chunk, start:stop],
                np.arange(first - start, stop - start, dtype=np.uint32),
                self.variant.acts,
            )
            try:
                if first < stop:
                    yield rows, np.ascontiguousarray(found.targets[chunk, first + 1 : stop + 1])
            finally:
                rows.release()


def _sample(found: Windows, start: float, finite: int) -> Sample:
    seconds = time.perf_counter() - start
    count, ctx = found.inputs.shape
    return Sample(ctx, count, found.scored.size, seconds, found.scored.size - finite)


def _check_acts(acts: str) -> None:
    if acts not in ACTIVATIONS:
        raise InputError(f"unknown activations `{acts}`", hint="known: f32, int8", acts=acts)


def _check_vocabulary(model: LoadedModel, base: LoadedModel) -> None:
    if model.config.vocab != base.config.vocab:
        raise InputError(
            f"the models have {model.config.vocab} and {base.config.vocab} tokens",
            hint="a divergence needs two models with one vocabulary",
            vocab=model.config.vocab,
            base_vocab=base.config.vocab,
        )

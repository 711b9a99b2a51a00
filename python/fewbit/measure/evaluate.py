"""Measure perplexity and KL divergence of models over a text, window by window.

The windows are llama.cpp's: the text without one final newline is tokenised at once and cut into
windows of `ctx` tokens. The second half of each window is scored, so every scored token has at
least ctx/2 tokens before it. Models are compared side by side: only one window's logits are in
memory (a card measures them itself), and no file of logits is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.measure import statistics as measures
from fewbit.measure.clusters import joined, single_tokens
from fewbit.measure.positions import by_position
from fewbit.measure.results import BaseNote, Divergence, Perplexity, Sample
from fewbit.measure.statistics import Values
from fewbit.measure.vocabularies import check_vocabulary
from fewbit.run.executor import Cache
from fewbit.run.limits import ACTIVATIONS, BATCH, Activations
from fewbit.run.model import LoadedModel
from fewbit.run.predictions import Ids, Measures, Predictions


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
    def count(self) -> int:
        """How many windows there are."""
        return len(self.targets)

    @property
    def first(self) -> int:
        """The first position whose prediction is scored; the last is ctx - 2."""
        return self.ctx // 2

    @property
    def scored(self) -> Ids:
        """The tokens that are scored, [chunks, ctx - 1 - first]."""
        return self.targets[:, self.first + 1 :]


_SHORT = "use a longer text or a smaller window (`--ctx`)"
_SHORT_OR_STRIDE = f"{_SHORT}, or `--stride` (`stride=`), which scores every token of any text"


def windows(
    model: LoadedModel,
    text: str,
    ctx: int = 512,
    chunks: int | None = None,
    hint: str = _SHORT,
) -> Windows:
    """The windows of `text` for `model`'s tokenizer, the first `chunks` of them.

    Where the vocabulary adds BOS, it replaces the first token of each window (which is never
    scored).

    Raises:
        InputError: ctx is below 4, chunks below 1, or the text has fewer than 2 ctx tokens.

    """
    _check_windows(ctx, chunks)
    ids = model.tokenizer.encode(text.removesuffix("\n"), special=True)
    if len(ids) < 2 * ctx:
        raise InputError(
            f"the text has {len(ids)} tokens, windows of {ctx} need at least {2 * ctx}",
            hint=hint,
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
    stride: int | None = None,
) -> Perplexity:
    """The perplexity of `text` under `model`, as ``llama-perplexity`` measures it.

    With a `stride` windows overlap: each begins `stride` tokens behind the last and scores the
    tokens that none has scored before, the first window all of its own. So every token of a text
    of any length is scored, all but the first with the tokens before it.

    Raises:
        InputError: the text is too short for two windows, with a `stride` for one token to score,
            or an option is out of range.

    """
    _check_acts(acts)
    _check_windows(ctx, chunks)
    if stride is None:
        found = windows(model, text, ctx, chunks, _SHORT_OR_STRIDE)
        pieces = [(found.inputs[i], found.targets[i], found.first) for i in range(found.count)]
    else:
        pieces = strided_windows(model, text, ctx, stride)[:chunks]
    cache = model.cache(1, max(len(inputs) for inputs, _, _ in pieces))
    start, scored = time.perf_counter(), list[Values]()
    for done, (inputs, targets, first) in enumerate(pieces, 1):
        batches = scored_rows(Variant(model, acts), cache, inputs, targets, first)
        scored.append(np.concatenate([rows.nll(wanted) for rows, wanted in batches]))
        if progress:
            mean = measures.mean(np.concatenate(scored))
            progress(done, len(pieces), f"PPL {mean.exp().value:.4f}")
    nll, sizes = joined(scored)
    size = sum(scored_bytes(model, targets, first) for _, targets, first in pieces)
    processed = None if stride is None else sum(len(inputs) - 1 for inputs, _, _ in pieces)
    sample = Sample(
        ctx, len(pieces), nll.size, time.perf_counter() - start,
        nll.size - int(np.isfinite(nll).sum()), stride, processed, size,
    )  # fmt: skip
    return measures.perplexity(nll, acts, sample, sizes)


def scored_bytes(model: LoadedModel, targets: Ids, first: int) -> int:
    """The bytes of UTF-8 that a window's scored tokens stand for.

    A character that begins in tokens before counts with up to two bytes more or fewer.
    """
    text, before = targets.tolist(), targets[: first + 1].tolist()
    decode = model.tokenizer.decode
    return len(decode(text).encode()) - len(decode(before).encode())


def strided_windows(
    model: LoadedModel, text: str, ctx: int, stride: int
) -> list[tuple[Ids, Ids, int]]:
    """Overlapping windows of `text`: ids [up to ctx], the same again, the first row that counts.

    Where the vocabulary adds BOS, each window begins with it.

    Raises:
        InputError: the stride is not from 1 to below `ctx`, or no token can be scored.

    """
    if not isinstance(stride, int) or not 1 <= stride < ctx:
        raise InputError(
            f"a stride of {stride} tokens, expected 1 to {ctx - 1}",
            hint="the stride is shorter than the window (`--ctx`)", stride=stride, ctx=ctx,
        )  # fmt: skip
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text.removesuffix("\n"), special=True)
    bos = [tokenizer.bos] if tokenizer.adds_bos and tokenizer.bos is not None else []
    if bos and ids[:1] == bos:
        ids = ids[1:]
    if len(ids) + len(bos) < 2:
        raise InputError(
            f"the text has {len(ids)} tokens, too few to score one", hint="use a longer text"
        )
    width, start, scored = ctx - len(bos), 0, 1 - len(bos)
    found = []
    while scored < len(ids):
        window = np.array(bos + ids[start : start + width], np.uint32)
        found.append((window, window, scored - start + len(bos) - 1))
        start, scored = start + stride, start + width
    return found


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
    on_base: Callable[[Predictions, Ids], None] | None = None,
) -> list[Divergence]:
    """The divergence of each variant from `base`, all side by side: the base runs once.

    `on_base` gets the base's rows and the tokens that they predict, batch by batch.

    Raises:
        InputError: as `divergence`.

    """
    for variant in (*variants, base):
        _check_acts(variant.acts)
    for variant in variants:
        check_vocabulary(variant.model, base.model)
    found = windows(base.model, text, ctx, chunks)
    base_run = _Run(base, found)
    tallies = [Tally(None if v == base else _Run(v, found)) for v in variants]
    start, count = time.perf_counter(), len(found.inputs)
    for chunk in range(count):
        _score_chunk(base_run, tallies, chunk, on_base)
        if progress:
            progress(chunk + 1, count, "")
    return [
        tally.result(variant.acts, base.acts, found, start)
        for tally, variant in zip(tallies, variants, strict=True)
    ]


def _score_chunk(
    base: _Run,
    tallies: list[Tally],
    chunk: int,
    on_base: Callable[[Predictions, Ids], None] | None,
) -> None:
    streams = [tally.run.predictions(chunk) if tally.run else None for tally in tallies]
    for base_rows, targets in base.predictions(chunk):
        if on_base:
            on_base(base_rows, targets)
        for tally, stream in zip(tallies, streams, strict=True):
            rows = base_rows if stream is None else next(stream)[0]
            tally.add(rows.divergence(base_rows, targets))


class Tally:
    """One value per scored token of a variant; a `run` of None is the base against itself."""

    NAMES = ("nll_base", "nll", "kld", "dp", "same_top")

    def __init__(self, run: _Run | None = None, names: Sequence[str] = NAMES) -> None:
        self.run = run
        self.values: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}

    def add(self, found: Measures) -> None:
        """Append the measures of a batch."""
        for name in self.values:
            self.values[name].append(found[name])

    def mean(self, name: str) -> float:
        """The mean of all values called `name`."""
        return float(np.concatenate(self.values[name]).mean())

    def result(
        self,
        acts: str,
        base_acts: str,
        found: Windows,
        start: float,
        base_file: BaseNote | None = None,
    ) -> Divergence:
        """The statistics of all values; `start` is when measuring began.

        With llama.cpp's formula the errors are llama.cpp's too, which take tokens as independent.
        """
        joined = {name: np.concatenate(self.values[name]) for name in self.NAMES}
        same_top = joined.pop("same_top").astype(np.bool_)
        tokens = {name: values.astype(np.float64) for name, values in joined.items()}
        finite = np.isfinite(np.stack(list(tokens.values()))).all(axis=0)
        sample = _sample(found, start, int(finite.sum()))
        like = base_file is not None and base_file.formula == "llama.cpp"
        sizes = single_tokens(len(same_top)) if like else None
        result = measures.divergence(tokens, same_top, acts, base_acts, sample, sizes)
        places = np.tile(np.arange(found.first, found.ctx - 1), found.count)
        return replace(result, positions=by_position(tokens, same_top, places), base_file=base_file)


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
        found = self.windows
        yield from scored_rows(
            self.variant, self.cache, found.inputs[chunk], found.targets[chunk], found.first
        )


def scored_rows(
    variant: Variant, cache: Cache, inputs: Ids, targets: Ids, first: int
) -> Iterator[tuple[Predictions, Ids]]:
    """The rows of a window from `first` on, and the tokens they predict, batch by batch."""
    model, end = variant.model, len(inputs) - 1  # nothing asks what the last token predicts
    cache.reset()
    for start in range(0, end, BATCH):
        stop = min(start + BATCH, end)
        begin = min(max(start, first), stop)
        outputs = np.arange(begin - start, stop - start, dtype=np.uint32)
        rows = model.predict(cache, inputs[start:stop], outputs, variant.acts)
        try:
            if begin < stop:
                yield rows, np.ascontiguousarray(targets[begin + 1 : stop + 1])
        finally:
            rows.release()


def _sample(found: Windows, start: float, finite: int) -> Sample:
    seconds = time.perf_counter() - start
    count, ctx = found.inputs.shape
    return Sample(ctx, count, found.scored.size, seconds, found.scored.size - finite)


def _check_windows(ctx: int, chunks: int | None) -> None:
    if ctx < 4:
        raise InputError(f"a window of {ctx} tokens is too short", hint="use 4 or more", ctx=ctx)
    if chunks is not None and chunks < 1:
        raise InputError(f"cannot measure {chunks} chunks", hint="use 1 or more", chunks=chunks)


def _check_acts(acts: str) -> None:
    if acts not in ACTIVATIONS:
        raise InputError(f"unknown activations `{acts}`", hint="known: f32, int8", acts=acts)

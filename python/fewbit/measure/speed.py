"""Measure speed as ``llama-bench`` does: a prompt, then tokens one by one, several times.

Between repetitions the memory's read rate and the peak of int8 multiply-adds are measured under the
same conditions. Generation reads every weight once per token, so the first is its upper bound; a
prompt uses each weight for many tokens, so the second is its upper bound.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.measure.limits import Bounds, limit, main_format, products_of
from fewbit.plan.sizes import sizes_of
from fewbit.run.limits import BATCH, Activations
from fewbit.run.model import LoadedModel
from fewbit.tables import Page, Shown, Table

MOSTLY = 0.9
"""A model whose multiply-adds are int8 to this fraction is held to the peak of int8."""


@dataclass(frozen=True)
class Case:
    """One timed case: a prompt ("pp") of `tokens` tokens, or generation ("tg") of them one by one.

    The KV cache holds `depth` tokens beforehand. `sequences` sequences generate side by side, and
    their tokens read the weights together.
    """

    kind: str
    tokens: int
    depth: int = 0
    sequences: int = 1

    @property
    def name(self) -> str:
        """As ``llama-bench`` writes it: "tg128 x4 @ d2048"."""
        many = f" x{self.sequences}" if self.sequences > 1 else ""
        return f"{self.kind}{self.tokens}{many}" + (f" @ d{self.depth}" if self.depth else "")


@dataclass(frozen=True)
class Rate:
    """Repeated measurements of one kind: `samples` are tokens per second.

    `bytes_per_token` is how much of the weights each token reads; None for a prompt, which reads
    them once for many tokens. `of_read_rate` and `of_peak` are the fractions of the memory's read
    rate and of the peak of int8 multiply-adds that the mean reaches; `of_peak` is None if the model
    multiplies floats or runs on a card. `limit` is the bound it is near to: "memory", "arithmetic",
    "threads" (all cores would raise the nearer bound), "cache" (the weights fit in it), "overhead"
    (half of neither), or "not memory" (not near the read rate, and no peak is known).
    """

    name: str
    tokens: int
    samples: tuple[float, ...]
    bytes_per_token: int | None
    of_read_rate: float
    of_peak: float | None
    limit: str

    @property
    def mean(self) -> float:
        """The mean of the samples."""
        return statistics.fmean(self.samples)

    @property
    def deviation(self) -> float:
        """The standard deviation of the samples, 0 of one."""
        return statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0

    @property
    def gb_per_second(self) -> float | None:
        """GB/s (10^9 bytes) of weights read."""
        return None if self.bytes_per_token is None else self.bytes_per_token * self.mean / 1e9


@dataclass(frozen=True)
class Bench(Shown):
    """The rates of a model in one format with `threads` threads (0: all cores).

    `read_rates` are the memory's at each repetition, GB/s (10^9 bytes), `peak_rates` the int8
    multiply-adds per second then, in billions; none on a card.
    """

    SCHEMA: ClassVar = "fewbit.bench/1"

    rates: tuple[Rate, ...]
    acts: str
    read_rates: tuple[float, ...]
    machine: str
    isa: str
    fewbit: str
    model: str
    format: str
    threads: int
    peak_rates: tuple[float, ...]

    @property
    def peak_rate(self) -> float | None:
        """The mean of the peak rates, billions of int8 multiply-adds per second; None if none."""
        return statistics.fmean(self.peak_rates) if self.peak_rates else None

    @property
    def read_rate(self) -> float:
        """The mean of the machine's read rates, GB/s."""
        return statistics.fmean(self.read_rates)

    def page(self) -> Page:
        """As `fewbit bench` prints it."""
        return bench_page([self])


def bench(
    model: LoadedModel,
    *,
    prompt: int = 512,
    generate: int = 128,
    depths: Sequence[int] = (0,),
    sequences: int = 1,
    repetitions: int = 5,
    acts: Activations = "int8",
    threads: int = 0,
    progress: Progress | None = None,
) -> Bench:
    """Tokens per second of a prompt of `prompt` tokens and of `generate` tokens one by one.

    0 leaves one of the two out. Both come behind each of `depths` tokens that the cache holds
    before; `sequences` generate side by side. Each is run once unmeasured, then `repetitions`
    times.

    Raises:
        InputError: a length is beyond the model's context, or nothing is left to measure.

    """
    tests = [
        test
        for depth in depths
        for test in (Case("pp", prompt, depth), Case("tg", generate, depth, sequences))
        if test.tokens
    ]
    _check(tests, repetitions, sequences, model.config.context)
    caches = {test: Filled(model, test, acts) for test in tests}
    samples: dict[Case, list[float]] = {test: [] for test in tests}
    bounds = []
    for repetition in range(repetitions + 1):
        if progress:
            progress(repetition, repetitions + 1, "warm-up" if repetition == 0 else "")
        for test in tests:
            rate = caches[test].measure(seed=repetition)
            if repetition:
                samples[test].append(rate)
        if repetition:
            bounds.append(Bounds(model.memory_rate(threads), model.peak_rate(threads)))
    more = Bounds(model.memory_rate(), model.peak_rate()) if threads else None
    rates = tuple(_rate(model, test, samples[test], acts, _mean_of(bounds), more) for test in tests)
    return Bench(
        rates, acts, tuple(found.memory for found in bounds),
        platform.processor() or platform.machine(), _core.isa(), _core.__version__,
        model.config.name, model.recipe or main_format(model.plan, model.formats), threads,
        tuple(found.arithmetic for found in bounds if found.arithmetic is not None),
    )  # fmt: skip


def _rate(
    model: LoadedModel, test: Case, samples: Sequence[float], acts: Activations, bounds: Bounds,
    all_cores: Bounds | None,
) -> Rate:  # fmt: skip
    """The result of one case, and the bound that it is near to."""
    read = sizes_of(model.plan, model.formats).bytes_per_token
    products = products_of(model.plan, model.formats)
    mean = statistics.fmean(samples)
    together = test.sequences if test.kind == "tg" else min(BATCH, test.tokens)
    with_logits = together if test.kind == "tg" else 1
    memory = read / together * mean / 1e9 / bounds.memory
    arithmetic = None
    if bounds.arithmetic is not None and acts == "int8" and products.int8 > MOSTLY:
        each = products.body + products.head * with_logits / together
        arithmetic = each * mean / 1e9 / bounds.arithmetic
    return Rate(
        test.name, test.tokens, tuple(samples),
        read // test.sequences if test.kind == "tg" else None,
        memory, arithmetic, limit(memory, arithmetic, bounds, all_cores),
    )  # fmt: skip


class Filled:
    """A KV cache filled to a case's depth, and truncated to it before each measurement."""

    def __init__(self, model: LoadedModel, test: Case, acts: Activations) -> None:
        self.model, self.test, self.acts = model, test, acts
        self.sequences = test.sequences if test.kind == "tg" else 1
        self.cache: Any = model.cache(self.sequences, test.depth + test.tokens)

    def measure(self, seed: int = 0) -> float:
        """Tokens per second of random tokens; each step asks for its last logits."""
        test = self.test
        for sequence in range(self.sequences):
            self._refill(sequence)
        tokens = _random_tokens(self.model, test.tokens * self.sequences, seed)
        step = BATCH if test.kind == "pp" else self.sequences
        owners = np.arange(step, dtype=np.uint32) % self.sequences
        wanted = range(self.sequences) if test.kind == "tg" else [-1]
        start = time.perf_counter()
        for at in range(0, tokens.size, step):
            batch = tokens[at : at + step]
            outputs = np.array([i % len(batch) for i in wanted], np.uint32)
            self.model.forward(self.cache, batch, owners[: len(batch)], outputs, acts=self.acts)
        return tokens.size / (time.perf_counter() - start)

    def _refill(self, sequence: int) -> None:
        depth = self.test.depth
        length = self.cache.reachable(sequence, depth)
        self.cache.truncate(sequence, length)
        tokens = _random_tokens(self.model, depth, seed=0)[length:]
        for at in range(0, tokens.size, BATCH):
            batch = tokens[at : at + BATCH]
            owners = np.full(batch.size, sequence, np.uint32)
            last = np.array([batch.size - 1], np.uint32)
            self.model.forward(self.cache, batch, owners, last, acts=self.acts)


def _mean_of(bounds: Sequence[Bounds]) -> Bounds:
    """The mean of what repetitions found."""
    peaks = [found.arithmetic for found in bounds if found.arithmetic is not None]
    return Bounds(
        statistics.fmean(found.memory for found in bounds),
        statistics.fmean(peaks) if peaks else None,
    )


def _random_tokens(model: LoadedModel, count: int, seed: int) -> NDArray[np.uint32]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, model.config.vocab, count, dtype=np.uint32)


def _check(tests: Sequence[Case], repetitions: int, sequences: int, context: int) -> None:
    if repetitions < 1:
        raise InputError(f"cannot measure {repetitions} repetitions", hint="use 1 or more")
    if sequences < 1:
        raise InputError(f"cannot measure {sequences} sequences", hint="use 1 or more")
    if not tests:
        raise InputError("nothing to measure", hint="set `--prompt` or `--generate` above 0")
    for test in tests:
        if test.tokens < 0 or test.depth < 0 or test.depth + test.tokens > context:
            raise InputError(
                f"cannot measure {test.name}: the model's context is {context} tokens",
                hint=f"use 0 to {context}",
                context=context,
            )


def bench_page(results: Sequence[Bench]) -> Page:
    """Tokens per second, the fractions of both bounds, and the limit; a line per case.

    Columns whose cells would all be equal are left out.
    """
    heads = ("model", "format", "threads")
    names = [Path(b.model).name for b in results]
    if len(set(names)) < len({b.model for b in results}):
        names = [b.model for b in results]
    facts = [
        (name, b.format, str(b.threads or "all")) for name, b in zip(names, results, strict=True)
    ]
    shown = [i for i in range(len(heads)) if len({fact[i] for fact in facts}) > 1]
    table = Table(
        (*(heads[i] for i in shown), "test", "limit", "tokens/s", "±", "GB/s", "of read\nrate",
         "of\npeak"), text=len(shown) + 2, keys=len(shown) + 1,
    )  # fmt: skip
    for result, fact in zip(results, facts, strict=True):
        for rate in result.rates:
            table.add_row(*(fact[i] for i in shown), *_cells(rate))
    return [table, "", *_notes(results)]


def _cells(rate: Rate) -> tuple[str, ...]:
    gb, peak = rate.gb_per_second, rate.of_peak
    return (
        rate.name, rate.limit, f"{rate.mean:,.1f}", f"{rate.deviation:,.1f}",
        "" if gb is None else f"{gb:.1f}", f"{100 * rate.of_read_rate:.0f} %",
        "" if peak is None else f"{100 * peak:.0f} %",
    )  # fmt: skip


MEANINGS = {
    "memory": "half of the read rate or more",
    "arithmetic": "half of the peak or more",
    "threads": "near a bound that all cores would raise",
    "cache": "the weights fit in the processor's cache",
    "overhead": "less than half of both: small tensors, attention, or other programs at work",
    "not memory": "less than half of the read rate, no peak known",
}


def _notes(results: Sequence[Bench]) -> Page:
    """The machine, its bounds with each number of threads, and the meaning of the limits."""
    first = results[0]
    lines: Page = [f"acts {first.acts}; {first.machine}, {first.isa}"]
    for threads in dict.fromkeys(b.threads for b in results):
        same = [b for b in results if b.threads == threads]
        peaks = [peak for b in same for peak in b.peak_rates]
        read = statistics.fmean(rate for b in same for rate in b.read_rates)
        count = f"{threads} thread{'s' if threads > 1 else ''}" if threads else "all cores"
        most = f", {statistics.fmean(peaks):,.0f} billion int8 multiply-adds/s" if peaks else ""
        lines.append(f"bounds with {count}: {read:.1f} GB/s read{most}")
    limits = {rate.limit for b in results for rate in b.rates}
    return [*lines, *(f"{name}: {text}" for name, text in MEANINGS.items() if name in limits)]

"""Measure speed as ``llama-bench`` does: a prompt, then tokens one by one, several times.

Between repetitions the memory's read rate is measured. Generation reads every weight once per
token, so that rate is its ceiling, measured under the same conditions.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.plan.sizes import sizes_of
from fewbit.run.limits import BATCH, Activations
from fewbit.run.model import LoadedModel
from fewbit.tables import Page, Shown, Table


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
    them once for many tokens.
    """

    name: str
    tokens: int
    samples: tuple[float, ...]
    bytes_per_token: int | None

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
    """The rates of a model, and the memory's read rate at each repetition, GB/s."""

    rates: tuple[Rate, ...]
    acts: str
    read_rates: tuple[float, ...]
    machine: str
    isa: str
    fewbit: str

    @property
    def read_rate(self) -> float:
        """The mean of the machine's read rates, GB/s."""
        return statistics.fmean(self.read_rates)

    def page(self) -> Page:
        """As `fewbit bench` prints it."""
        return bench_page(self)


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
    read_rates = []
    for repetition in range(repetitions + 1):
        if progress:
            progress(repetition, repetitions + 1, "warm-up" if repetition == 0 else "")
        for test in tests:
            rate = caches[test].measure(seed=repetition)
            if repetition:
                samples[test].append(rate)
        if repetition:
            read_rates.append(model.memory_rate(threads))
    read = sizes_of(model.plan, model.formats).bytes_per_token
    rates = tuple(
        Rate(
            test.name,
            test.tokens,
            tuple(samples[test]),
            read // test.sequences if test.kind == "tg" else None,
        )
        for test in tests
    )
    machine = platform.processor() or platform.machine()
    return Bench(rates, acts, tuple(read_rates), machine, _core.isa(), _core.__version__)


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


def bench_page(result: Bench) -> Page:
    """Tokens per second, and GB/s of weights beside the machine's read rate."""
    table = Table(("test", "tokens/s", "±", "GB/s", "of read rate"))
    for rate in result.rates:
        gb = rate.gb_per_second
        cells = ("", "") if gb is None else (f"{gb:.1f}", f"{100 * gb / result.read_rate:.0f} %")
        table.add_row(rate.name, f"{rate.mean:,.1f}", f"{rate.deviation:,.1f}", *cells)
    machine = f"this machine ({result.machine}, {result.isa}) reads {result.read_rate:.1f} GB/s"
    return [table, "", f"acts {result.acts}; {machine}"]

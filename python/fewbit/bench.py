"""Speed as ``llama-bench`` measures it: a prompt, then tokens one by one, several times over.

Between the repetitions the machine's memory is read as fast as it can be: generation reads every
weight once per token, so the one rate is the other's ceiling, measured under the same conditions.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError
from fewbit.evaluate import BATCH, Progress
from fewbit.sizes import sizes

if TYPE_CHECKING:
    from fewbit.api import Model


@dataclass(frozen=True)
class Rate:
    """Repeated measurements of one kind: `samples` are tokens per second.

    `bytes_per_token` are the weights that each token had to read: in a prompt, which reads them
    once for many tokens, None.
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
class Bench:
    """The rates of a model, and what the machine's memory gave beside each repetition, GB/s."""

    rates: tuple[Rate, ...]
    acts: str
    read_rates: tuple[float, ...]

    @property
    def read_rate(self) -> float:
        """The mean of the machine's read rates, GB/s."""
        return statistics.fmean(self.read_rates)


def bench(
    model: Model,
    *,
    prompt: int = 512,
    generate: int = 128,
    repetitions: int = 5,
    acts: str = "int8",
    threads: int = 0,
    progress: Progress | None = None,
) -> Bench:
    """Tokens per second of a prompt of `prompt` tokens and of `generate` tokens after it.

    0 leaves one of the two out. Each is run once unmeasured, then `repetitions` times.

    Raises:
        InputError: a length is beyond the model's context, or nothing is left to measure.

    """
    lengths = {"pp": prompt, "tg": generate}
    _check(lengths, repetitions, model.config.context)
    tests = {f"{kind}{count}": count for kind, count in lengths.items() if count}
    samples: dict[str, list[float]] = {name: [] for name in tests}
    read_rates = []
    for repetition in range(repetitions + 1):
        if progress:
            progress(repetition, repetitions + 1, "warm-up" if repetition == 0 else "")
        for name, count in tests.items():
            one_by_one = name.startswith("tg")
            rate = measure(model, count, 1 if one_by_one else BATCH, acts, seed=repetition)
            if repetition:
                samples[name].append(rate)
        if repetition:
            read_rates.append(model.memory_rate(threads))
    read = sizes(model).bytes_per_token
    rates = tuple(
        Rate(name, count, tuple(samples[name]), read if name.startswith("tg") else None)
        for name, count in tests.items()
    )
    return Bench(rates, acts, tuple(read_rates))


def measure(model: Model, count: int, batch: int, acts: str, seed: int = 0) -> float:
    """Tokens per second of `count` random tokens that go in `batch` at a time, from an empty cache.

    Each batch asks for the logits of its last token.
    """
    tokens = _random_tokens(model, count, seed)
    cache = model.cache(1, count)
    start = time.perf_counter()
    for at in range(0, count, batch):
        part = tokens[at : at + batch]
        model.forward(cache, part, outputs=np.array([len(part) - 1], np.uint32), acts=acts)
    return count / (time.perf_counter() - start)


def _random_tokens(model: Model, count: int, seed: int) -> NDArray[np.uint32]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, model.config.vocab, count, dtype=np.uint32)


def _check(lengths: dict[str, int], repetitions: int, context: int) -> None:
    if repetitions < 1:
        raise InputError(f"cannot measure {repetitions} repetitions", hint="use 1 or more")
    if not any(lengths.values()):
        raise InputError("nothing to measure", hint="set `--prompt` or `--generate` above 0")
    for kind, count in lengths.items():
        if not 0 <= count <= context:
            raise InputError(
                f"cannot measure {kind}{count}: the model's context is {context} tokens",
                hint=f"use 0 to {context}",
                context=context,
            )

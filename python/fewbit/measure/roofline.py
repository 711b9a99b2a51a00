"""The roofline of a format: how fast its kernel multiplies, and how fast memory delivers it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewbit import _core
from fewbit.errors import InputError
from fewbit.formats.table import find_format

_DISTINCT = 32
"""Rows that are encoded; the matrix repeats them."""
_ROWS_OF_TABLE = 16


@dataclass(frozen=True)
class Roofline:
    """Weights per second in one format, multiplied with one token's activations.

    `arithmetic` was timed on a matrix that fits into the processor's caches: what unpacking and
    multiplying allow. `memory` is the read rate of the memory, measured in the same run, divided by
    the bytes of a weight. A large model is no faster than the lower of both.
    """

    format: str
    bits_per_weight: float
    arithmetic: float
    memory: float

    @property
    def reached(self) -> float:
        """The lower of both bounds."""
        return min(self.arithmetic, self.memory)

    @property
    def limit(self) -> str:
        """The name of the lower bound."""
        return "memory" if self.memory <= self.arithmetic else "arithmetic"


def rooflines(
    formats: Sequence[str],
    rounds: int = 15,
    threads: int = 0,
    shape: tuple[int, int] = (2048, 4096),
) -> list[Roofline]:
    """Measure the roofline of each of `formats`, in turns.

    Matrices of `shape` have random weights; activations are rounded to int8 as in generation. Each
    format is timed `rounds` times after one product that is not counted; the best time stands.

    Raises:
        FormatError: a format is unknown.
        ShapeError: a row is not a multiple of a format's block.
        InputError: a size is below 1, or `threads` is not a number of threads.

    """
    if min(*shape, rounds) < 1:
        raise InputError("rows, columns and rounds are at least 1", hint="leave them out")
    rows, columns = shape
    kinds = [find_format(name) for name in formats]
    executors = [_product(kind.name, rows, columns, threads) for kind in kinds]
    rate = 1e9 * _core.read_rate(threads)
    best = [float("inf")] * len(kinds)
    for turn in range(rounds + 1):
        for index, executor in enumerate(executors):
            _timed(executor)  # brings the matrix back into the caches
            seconds = _timed(executor)
            best[index] = min(best[index], seconds) if turn else best[index]
    found = []
    for kind, seconds in zip(kinds, best, strict=True):
        size = 8 * kind.row_bytes(columns) / columns
        found.append(Roofline(kind.name, size, rows * columns / seconds, 8 * rate / size))
    return found


def _product(format_: str, rows: int, columns: int, threads: int) -> _core.Executor:
    x = np.random.default_rng(0).normal(0, 0.02, (_DISTINCT, columns)).astype(np.float32)
    even = np.ones(columns, np.float32)  # IQ1 and IQ2 need an importance of each column
    encoded = _core.encode(x.view(np.uint8), "F32", columns, format_, even)
    ones = np.ones((_ROWS_OF_TABLE, columns), np.float32).view(np.uint8)
    weights = _core.Weights()
    weights.add("x", "F32", _ROWS_OF_TABLE, columns, ones)
    weights.add("w", format_, rows, columns, np.resize(encoded, (rows, encoded.shape[1])))
    plan = [
        {"op": "embed", "inputs": [], "weights": ["x"], "width": columns},
        {"op": "linear", "inputs": [0], "weights": ["w"], "width": rows},
    ]
    return _core.Executor(json.dumps(plan), weights, threads)


def _timed(executor: _core.Executor) -> float:
    cache = executor.cache(1, 1)
    ids = np.zeros(1, np.uint32)
    start = time.perf_counter()
    executor.forward(cache, ids, ids, ids, "int8")
    return time.perf_counter() - start

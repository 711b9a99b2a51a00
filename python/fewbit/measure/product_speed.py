"""Time products of a matrix with one token's activations, beside the rate at which memory reads."""

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
class ProductSpeed:
    """The best of several products of a [rows, columns] matrix with one row of activations.

    `bytes` are those of the matrix as a file stores it, `read_rate` is the memory's rate in bytes
    per second, measured in the same run.
    """

    format: str
    rows: int
    columns: int
    bytes: int
    seconds: float
    read_rate: float

    @property
    def weights_per_second(self) -> float:
        """Weights multiplied in a second."""
        return self.rows * self.columns / self.seconds

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file per weight."""
        return 8 * self.bytes / (self.rows * self.columns)

    @property
    def bound(self) -> float:
        """Weights per second if reading them took all the time: the roofline of this format."""
        return 8 * self.read_rate / self.bits_per_weight

    @property
    def fraction(self) -> float:
        """Speed as a fraction of `bound`; above 1 if the processor's cache holds the matrix."""
        return self.weights_per_second / self.bound


def product_speeds(
    formats: Sequence[str],
    rows: int = 16_384,
    columns: int = 8192,
    rounds: int = 5,
    threads: int = 0,
) -> list[ProductSpeed]:
    """Time a product of one token in each of `formats`, in turns, and the memory's read rate.

    The matrix has random weights; activations are rounded to int8 as in generation. Each format is
    timed `rounds` times after one product that is not counted; the best time stands.

    Raises:
        FormatError: a format is unknown.
        ShapeError: `columns` is not a multiple of a format's block.
        InputError: a size is below 1, or `threads` is not a number of threads.

    """
    if min(rows, columns, rounds) < 1:
        raise InputError("rows, columns and rounds are at least 1", hint="leave them out")
    kinds = [find_format(name) for name in formats]
    executors = [_product(kind.name, rows, columns, threads) for kind in kinds]
    best = [float("inf")] * len(kinds)
    rate = 0.0
    for turn in range(rounds + 1):
        rate = max(rate, 1e9 * _core.read_rate(threads))
        for index, executor in enumerate(executors):
            seconds = _timed(executor)
            best[index] = min(best[index], seconds) if turn else best[index]
    return [
        ProductSpeed(kind.name, rows, columns, rows * kind.row_bytes(columns), seconds, rate)
        for kind, seconds in zip(kinds, best, strict=True)
    ]


def _product(format_: str, rows: int, columns: int, threads: int) -> _core.Executor:
    x = np.random.default_rng(0).normal(0, 0.02, (_DISTINCT, columns)).astype(np.float32)
    encoded = _core.encode(x.view(np.uint8), "F32", columns, format_)
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

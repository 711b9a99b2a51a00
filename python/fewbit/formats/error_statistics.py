"""Quantization error: the difference between an array and its quantized values, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core

_CHUNK = 1 << 16
"""Elements that are compared at once, so that their float64 copies stay in the CPU's caches."""


@dataclass(frozen=True)
class ErrorStatistics:
    """Difference between an array x and its quantized values y, over all elements.

    `max_abs` is max |x - y| and `rmse` the root of the mean of (x - y)^2, both in the units of x.
    `mean_relative` is the mean of |x - y| / |x| over the x that are not 0. `snr` is
    10 log10(sum x^2 / sum (x - y)^2) in decibels, infinite where x equals y.
    """

    max_abs: float
    rmse: float
    mean_relative: float
    snr: float


def compare_rows(
    original: NDArray[Any], data: NDArray[np.uint8], format_: str, threads: int = 0
) -> ErrorStatistics:
    """Compare floats [rows, columns] with quantized rows, uint8 [rows, row bytes], in `format_`."""
    columns = original.shape[1]
    step = max(_CHUNK // columns, 1)
    largest = noise = signal = relative = 0.0
    nonzero = 0
    for start in range(0, len(data), step):
        stop = start + step
        x = original[start:stop].astype(np.float64).ravel()
        off = np.abs(x - _core.decode(data[start:stop], format_, columns, threads).ravel())
        largest = max(largest, float(off.max()))
        noise += float(np.sum(off**2))
        signal += float(np.sum(x**2))
        count = int(np.count_nonzero(x))
        if count < x.size:  # zeros have no relative error
            x, off = x[x != 0], off[x != 0]
        relative += float(np.sum(off / np.abs(x)))
        nonzero += count
    return ErrorStatistics(
        max_abs=largest,
        rmse=(noise / original.size) ** 0.5,
        mean_relative=relative / nonzero if nonzero else 0.0,
        snr=math.inf if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise)),
    )

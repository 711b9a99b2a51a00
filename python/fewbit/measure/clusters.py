"""Compute errors of means by windows: a window of text is one observation, its tokens are not.

Tokens of one window depend on each other, so an error that counts tokens is too small.
`reference/clusters.py` defines the errors. Windows of one token give llama.cpp's errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit.measure.results import Estimate

Values: TypeAlias = NDArray[np.float64]
Sizes: TypeAlias = NDArray[np.int64]
"""Scored tokens of each window, in the order of the values."""


def equal_windows(tokens: int, count: int) -> Sizes:
    """`count` windows with as many tokens each."""
    return np.full(count, tokens // count, np.int64)


def single_tokens(tokens: int) -> Sizes:
    """A window for each token: llama.cpp's errors, which take tokens as independent."""
    return np.ones(tokens, np.int64)


def mean_of_windows(values: Values, sizes: Sizes) -> Estimate:
    """The mean of all values; its error is that of `sizes.size` windows, nan of one window."""
    average = _mean(values)
    error = math.sqrt(covariance_of_means(values, values, sizes))
    return Estimate(average, error, len(sizes))


def covariance_of_means(x: Values, y: Values, sizes: Sizes) -> float:
    """The covariance of the means of two values of the same tokens, nan of one window."""
    count = len(sizes)
    if count < 2:
        return math.nan
    product = float(_deviations(x, sizes) @ _deviations(y, sizes))
    return count / (count - 1) * product / len(x) ** 2


def joined(parts: Sequence[Values]) -> tuple[Values, Sizes]:
    """The values of windows one after another, and how many each window has."""
    return np.concatenate(parts), np.array([len(values) for values in parts], np.int64)


def _deviations(values: Values, sizes: Sizes) -> Values:
    """Each window's sum of departures from the mean of all."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    with np.errstate(invalid="ignore"):
        found: Values = np.add.reduceat(values - _mean(values), starts)
    return found


def _mean(values: Values) -> float:
    with np.errstate(invalid="ignore"):
        return float(values.mean())

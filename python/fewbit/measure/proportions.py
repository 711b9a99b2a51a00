"""Intervals of a proportion."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054
"""The 97.5th percentile of the normal distribution: 95 % lie within this many deviations."""


@dataclass(frozen=True)
class Proportion:
    """A fraction with its 95 % Wilson interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, trials: int, z: float = Z95) -> Proportion:
    """The Wilson score interval of `successes` in `trials` (Wilson 1927).

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). `successes` may be a mean over
    repeats, hence not whole.

    >>> found = wilson(0, 10)
    >>> found.low, round(found.high, 4)
    (0.0, 0.2775)

    """
    if trials == 0:
        return Proportion(math.nan, 0.0, 1.0)
    p, extra = successes / trials, z * z / trials
    center = (p + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(p * (1 - p) / trials + extra / (4 * trials))
    low = 0.0 if successes == 0 else max(center - half, 0.0)
    high = 1.0 if successes == trials else min(center + half, 1.0)
    return Proportion(p, low, high)

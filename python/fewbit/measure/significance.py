"""Compute p values and quantiles: Student's t, McNemar's exact test, Holm's correction, looks.

`reference/significance.py` defines all of them; here the distributions come from the incomplete
beta function, which also takes many degrees of freedom and many tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

LEVEL = 0.05
"""A p value at or below this is called a difference."""

FIRST_LOOK = 8
"""Windows before a run first asks whether it may stop: fewer give no usable t test."""


def t_two_sided(t: float, freedom: int) -> float:
    """P(|T| >= |t|) of Student's distribution; nan if `t` is, or without a degree of freedom."""
    if math.isnan(t) or freedom < 1:
        return math.nan
    return 0.0 if math.isinf(t) else incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """The t below which Student's distribution has `probability`, which is 0.5 to below 1."""
    if freedom < 1:
        return math.nan
    wanted, low, high = 2 * (1 - probability), 0.0, 1.0
    while t_two_sided(high, freedom) > wanted:
        high *= 2
    while (middle := (low + high) / 2) not in (low, high):
        if t_two_sided(middle, freedom) > wanted:
            low = middle
        else:
            high = middle
    return high


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p of what only one or only the other gets right."""
    count, fewer = only_first + only_second, min(only_first, only_second)
    if count == 2 * fewer:
        return 1.0
    return min(1.0, 2 * incomplete_beta(count - fewer, fewer + 1, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's method; nan stays nan."""
    known = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__
    )
    adjusted, least = [math.nan] * len(p_values), 0.0
    for place, i in enumerate(known):
        least = max(least, min(1.0, (len(known) - place) * p_values[i]))
        adjusted[i] = least
    return adjusted


def at_look(p: float, look: int) -> float:
    """A p value that holds if a run may stop at look 1, 2, 3...: look k spends 1 / (k (k + 1))."""
    return min(1.0, p * look * (look + 1))


def looks(windows: int) -> list[int]:
    """After how many of at most `windows` windows a run looks: 8, then half as many again."""
    found = [min(FIRST_LOOK, windows)]
    while found[-1] < windows:
        found.append(min(math.ceil(found[-1] * 1.5), windows))
    return found


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), 0 <= x <= 1.

    The continued fraction of the NIST Digital Library of Mathematical Functions, 8.17.22,
    evaluated by Lentz's method.
    """
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    return math.exp(log) / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)), the fraction's denominator, until a factor is 1."""
    tiny = 1e-300
    value, upper, lower = 1.0, 1.0, 0.0
    for step in range(1, 100_000):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / (1 + d * lower or tiny)
        upper = 1 + d / upper or tiny
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return value

"""Tests of significance: Student's t, McNemar's exact test, Holm's correction, repeated looks.

Each p value is the probability of a result at least as far from "no difference", if there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def t_two_sided(t: float, freedom: int) -> float:
    """Return P(|T| >= |t|) of Student's distribution with a whole number of degrees of freedom.

    By the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4. With one degree it is Cauchy's
    distribution, whose quartiles are -1 and 1:

    >>> t_two_sided(1.0, 1), round(t_two_sided(2.228138852, 10), 9)
    (0.5, 0.05)
    """
    angle = math.atan2(abs(t), math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (cosine, 0.0) if freedom % 2 else (1.0, 0.0)
    for step in range(freedom % 2 + 1, freedom, 2):
        total += term
        term *= cosine * cosine * step / (step + 1)
    if freedom % 2:
        return 1 - 2 / math.pi * (angle + sine * total)
    return 1 - sine * total


def t_quantile(probability: float, freedom: int) -> float:
    """Return the t below which Student's distribution has this probability, 0.5 or more.

    >>> [round(t_quantile(0.975, n), 3) for n in (1, 2, 10, 47)]
    [12.706, 4.303, 2.228, 2.012]
    """
    low, high = 0.0, 1.0
    while t_two_sided(high, freedom) > 2 * (1 - probability):
        high *= 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if t_two_sided(middle, freedom) > 2 * (1 - probability):
            low = middle
        else:
            high = middle


def mcnemar(only_first: int, only_second: int) -> float:
    """Return McNemar's exact p: how surprising it is that one of two models is right more often.

    Tokens that both get right or both get wrong say nothing; of the others each model would have
    half if they were equally good (McNemar, Psychometrika 12, 1947, with the binomial in place of
    chi squared). It takes tokens as independent.

    >>> mcnemar(9, 1) == 2 * (1 + 10) / 2**10
    True
    >>> mcnemar(3, 3), mcnemar(0, 0)
    (1.0, 1.0)
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    below = sum(math.comb(count, k) for k in range(fewer + 1))
    return min(1.0, float(Fraction(2 * below, 2**count)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values that may each be held against one level, however many there are.

    The smallest of m is multiplied by m, the next by m - 1, and so on, none below the one before
    (Holm, Scandinavian Journal of Statistics 6, 1979). The chance of any wrong claim stays below
    the level, whatever the dependence between the tests.

    >>> holm([0.01, 0.04, 0.03, 0.5])
    [0.04, 0.09, 0.09, 0.5]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = least
    return adjusted


def looks(windows: int, first: int = 8) -> list[int]:
    """Return after how many windows a run looks at its results: 8, then half as many again.

    >>> looks(48)
    [8, 12, 18, 27, 41, 48]
    """
    found = [min(first, windows)]
    while found[-1] < windows:
        found.append(min(math.ceil(found[-1] * 1.5), windows))
    return found


def spent(look: int) -> Fraction:
    """Return the part of the level that look 1, 2, 3... may spend: 1 / (k (k + 1)).

    All parts together are 1, so whoever looks as often as he likes and stops at the first
    significant result is wrong no more often than the level says. (A union bound over looks in
    geometric distances: Darling and Robbins, PNAS 58, 1967; Howard, Ramdas, McAuliffe and Sekhon,
    arXiv 1810.08240 call it stitching; Lan and DeMets, Biometrika 70, 1983, spending.)

    >>> [str(spent(k)) for k in (1, 2, 3)], sum(spent(k) for k in range(1, 1000)) < 1
    (['1/2', '1/6', '1/12'], True)
    """
    return Fraction(1, look * (look + 1))


def at_look(p: float, look: int) -> float:
    """Return a p value that holds at look k: p k (k + 1), at most 1.

    >>> at_look(0.125, 2), at_look(0.5, 1)
    (0.75, 1.0)
    """
    return min(1.0, float(p / spent(look)))

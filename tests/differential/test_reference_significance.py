"""fewbit's errors by windows and p values against the oracle's, and SciPy's if it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewbit.measure import clusters, significance
from reference import clusters as defined
from reference import significance as tests_defined
from tests.compare import within_bound

BOUND = 1e-12
"""Sums of a few hundred doubles near 1 and smooth functions of them."""

SIZES = ([1] * 30, [7, 1, 12, 3], [20, 20], [5] * 40)


def windows_of(values: np.ndarray, sizes: list[int]) -> list[list[float]]:
    return [part.tolist() for part in np.split(values, np.cumsum(sizes)[:-1])]


@pytest.mark.parametrize("sizes", SIZES)
def test_means_and_errors(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(1, 1, sum(sizes)), rng.normal(2, 1, sum(sizes))
    found = clusters.mean_of_windows(x, np.array(sizes))
    within_bound((found.value, found.error), defined.mean_and_error(windows_of(x, sizes)), BOUND)
    within_bound(found.interval, defined.interval(windows_of(x, sizes)), 100 * BOUND)
    covariance = clusters.covariance_of_means(x, y, np.array(sizes))
    expected = defined.covariance_of_means(windows_of(x, sizes), windows_of(y, sizes))
    within_bound(covariance, expected, BOUND)


def test_one_window_has_no_error() -> None:
    found = clusters.mean_of_windows(np.array([1.0, 3.0]), np.array([2]))
    assert found.value == 2
    assert math.isnan(found.error)
    assert all(map(math.isnan, found.interval))
    assert math.isnan(defined.mean_and_error([[1.0, 3.0]])[1])


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 47, 600])
@pytest.mark.parametrize("t", [0.0, 0.3, -2.0, 5.5, 40.0])
def test_student(t: float, freedom: int) -> None:
    expected = tests_defined.t_two_sided(t, freedom)
    within_bound(significance.t_two_sided(t, freedom), expected, 1e-12)


def test_far_tails_of_student_keep_their_digits() -> None:
    """The oracle's difference from 1 is 0 there; the density's power law is not."""
    ratio = significance.t_two_sided(1e8, 3) / significance.t_two_sided(1e9, 3)
    within_bound(ratio, 1000, 1e-6)
    assert significance.t_two_sided(math.inf, 3) == 0
    assert math.isnan(significance.t_two_sided(math.nan, 3))
    assert math.isnan(significance.t_two_sided(1.0, 0))


@pytest.mark.parametrize("freedom", [1, 2, 5, 47, 1000])
@pytest.mark.parametrize("probability", [0.6, 0.975, 0.9999])
def test_quantiles_of_student(probability: float, freedom: int) -> None:
    expected = tests_defined.t_quantile(probability, freedom)
    within_bound(significance.t_quantile(probability, freedom), expected, 1e-8 * expected)


@pytest.mark.parametrize("pair", [(0, 0), (5, 5), (9, 1), (1, 9), (0, 30), (400, 320), (1000, 900)])
def test_mcnemar(pair: tuple[int, int]) -> None:
    expected = tests_defined.mcnemar(*pair)
    within_bound(significance.mcnemar(*pair), expected, 1e-11 * expected)


def test_holm() -> None:
    p = np.random.default_rng(2).random(12) ** 3
    assert significance.holm(p.tolist()) == tests_defined.holm(p.tolist())
    found = significance.holm([0.04, math.nan, 0.01])
    assert (found[0], found[2]) == (0.04, 0.02), "what has no p value is no test"
    assert math.isnan(found[1])


@pytest.mark.parametrize("windows", [1, 8, 9, 48, 1000])
def test_looks(windows: int) -> None:
    assert significance.looks(windows) == tests_defined.looks(windows)
    for look in (1, 2, 7):
        expected = tests_defined.at_look(0.001, look)
        within_bound(significance.at_look(0.001, look), expected, 1e-15)


def test_scipy_agrees() -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs scipy")
    for freedom in (1, 4, 47, 5000):
        for t in (0.1, 2.0, 7.0, 60.0):
            expected = 2 * float(stats.t.sf(t, freedom))
            within_bound(significance.t_two_sided(t, freedom), expected, 1e-10 * expected)
        expected = float(stats.t.ppf(0.975, freedom))
        within_bound(significance.t_quantile(0.975, freedom), expected, 1e-9 * expected)
    for wins, losses in ((3, 14), (100, 140), (5000, 5300)):
        expected = float(stats.binomtest(wins, wins + losses).pvalue)
        within_bound(significance.mcnemar(wins, losses), expected, 1e-9 * expected)

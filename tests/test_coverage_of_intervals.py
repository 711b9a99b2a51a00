"""95 % intervals cover the truth in about 95 % of simulated texts, and p values are no smaller."""

from __future__ import annotations

import numpy as np
import pytest

from fewbit.measure.clusters import mean_of_windows, single_tokens
from fewbit.measure.significance import at_look, looks, t_two_sided

TRIALS = 1000
SIGMA = 3 * (0.05 * 0.95 / TRIALS) ** 0.5
"""Three standard deviations of a fraction of 5 % of all trials: 0.0207."""


def texts(seed: int, windows: int, tokens: int, skewed: bool) -> np.ndarray:
    """Values [trials, windows, tokens] of mean 1; those of a window share half of their variance.

    Within a window they are autoregressive besides, as a text's are.
    """
    rng = np.random.default_rng(seed)
    window, token = (
        rng.normal(size=(TRIALS, windows, 1)),
        rng.normal(size=(TRIALS, windows, tokens)),
    )
    for place in range(1, tokens):
        token[:, :, place] = 0.6 * token[:, :, place - 1] + 0.8 * token[:, :, place]
    values = (window + token) / 2**0.5
    return np.exp(0.8 * values - 0.32) if skewed else 1 + values


def covered(values: np.ndarray, by_tokens: bool) -> float:
    count, tokens = values.shape[1:]
    sizes = single_tokens(count * tokens) if by_tokens else np.full(count, tokens)
    intervals = (mean_of_windows(trial.ravel(), sizes).interval for trial in values)
    return sum(low <= 1 <= high for low, high in intervals) / len(values)


@pytest.mark.parametrize("windows", [4, 12, 48])
def test_normal_values(windows: int) -> None:
    assert abs(covered(texts(1, windows, 32, skewed=False), by_tokens=False) - 0.95) < SIGMA


@pytest.mark.parametrize("windows", [12, 48])
def test_skewed_values_as_divergences_are(windows: int) -> None:
    """A skewed mean is covered a little less often: 2 points less at 12 windows are allowed."""
    assert abs(covered(texts(2, windows, 32, skewed=True), by_tokens=False) - 0.95) < SIGMA + 0.02


def test_counting_tokens_covers_far_less() -> None:
    assert covered(texts(1, 48, 32, skewed=False), by_tokens=True) < 0.6


def p_value(values: np.ndarray) -> float:
    found = mean_of_windows(values.ravel(), np.full(len(values), values.shape[1]))
    return t_two_sided(found.value / found.error, len(values) - 1)


def test_whoever_looks_often_is_wrong_no_more_often() -> None:
    """Two equal models: with looks corrected 5 % at most are called different, else more."""
    differences = texts(3, 60, 8, skewed=False)[:500] - 1
    stops = looks(60)
    plain = corrected = 0
    for trial in differences:
        p = [p_value(trial[:windows]) for windows in stops]
        plain += min(p) <= 0.05
        corrected += min(at_look(v, look) for look, v in enumerate(p, 1)) <= 0.05
    assert corrected / len(differences) <= 0.05 + SIGMA
    assert plain / len(differences) > 0.1, "without a correction this test could not fail"

"""Errors of means over windows of text: tokens of one window depend on each other, windows less.

A text is cut into windows. Tokens of one window share its subject and its names, so 256 of them say
less than 256 independent ones. The errors here treat a window, not a token, as one observation: the
cluster-robust variance of a ratio (Cochran, Sampling Techniques, 1977, chapter 9A; Liang and Zeger,
Biometrika 73, 1986), with the factor W / (W - 1) of W windows. Windows of one token give the
textbook's error, which is llama.cpp's.

A window is a list of values, one for each scored token; windows may differ in length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reference.significance import t_quantile, t_two_sided

Windows = Sequence[Sequence[float]]


def mean_and_error(windows: Windows) -> tuple[float, float]:
    """Return the mean over all tokens and its standard error; the error of one window is nan.

    Each window's sum departs from its share of the mean by e = sum - tokens * mean; the error is
    sqrt(W / (W - 1) * sum of e^2) / all tokens.

    Two windows whose tokens all agree are two observations, however long they are:

    >>> mean_and_error([[1.0] * 50, [3.0] * 50])
    (2.0, 1.0)

    Windows of one token give sqrt(variance / (n - 1)):

    >>> [round(v, 9) for v in mean_and_error([[0.0], [2.0]] * 6)]
    [1.0, 0.301511345]
    """
    mean = math.fsum(v for window in windows for v in window) / sum(map(len, windows))
    return mean, math.sqrt(_product(windows, windows))


def covariance_of_means(x: Windows, y: Windows) -> float:
    """Return the covariance of the means of two quantities of the same tokens.

    >>> windows = [[1.0, 2.0], [4.0], [0.0, 0.0]]
    >>> round(covariance_of_means(windows, windows) - mean_and_error(windows)[1] ** 2, 15)
    0.0
    """
    return _product(x, y)


def _product(x: Windows, y: Windows) -> float:
    count, tokens = len(x), sum(map(len, x))
    if count < 2:
        return math.nan
    products = [a * b for a, b in zip(_deviations(x), _deviations(y), strict=True)]
    return count / (count - 1) * math.fsum(products) / tokens**2


def _deviations(windows: Windows) -> list[float]:
    """Return sum - tokens * mean of each window.

    >>> _deviations([[1.0, 1.0], [4.0]])
    [-2.0, 2.0]
    """
    mean = math.fsum(v for window in windows for v in window) / sum(map(len, windows))
    return [math.fsum(v - mean for v in window) for window in windows]


def perplexity(nlls: Windows) -> tuple[float, float]:
    """Return the perplexity exp(mean of -log p) and its standard error, to first order.

    >>> perplexity([[0.0], [0.0, 0.0]])
    (1.0, 0.0)
    """
    mean, error = mean_and_error(nlls)
    return math.exp(mean), math.exp(mean) * error


def log_ratio(model: Windows, base: Windows) -> tuple[float, float]:
    """Return ln(PPL(model) / PPL(base)), the mean of differences, and its standard error.

    >>> log_ratio([[1.5, 2.5], [3.5]], [[1.0, 2.0], [3.0]])
    (0.5, 0.0)
    """
    return mean_and_error(_differences(model, base))


def difference(model: Windows, base: Windows) -> tuple[float, float]:
    """Return PPL(model) - PPL(base) and its standard error, to first order.

    >>> [round(v, 3) for v in difference([[1.5], [2.5]], [[1.0], [2.0]])]
    [2.907, 1.454]
    """
    (a, error), (b, base_error) = perplexity(model), perplexity(base)
    squared = error**2 + base_error**2 - 2 * a * b * covariance_of_means(model, base)
    return a - b, math.sqrt(max(squared, 0.0))


def rms_and_error(windows: Windows) -> tuple[float, float]:
    """Return the root mean square and its standard error, 0.5 / rms * that of the mean square.

    >>> rms_and_error([[3.0, -3.0], [3.0]])
    (3.0, 0.0)
    """
    mean, error = mean_and_error([[v * v for v in window] for window in windows])
    rms = math.sqrt(mean)
    return rms, 0.5 / rms * error if rms else error


def interval(windows: Windows, level: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the mean: Student's t with W - 1 degrees of freedom.

    >>> [round(v, 3) for v in interval([[1.0], [3.0]])]
    [-10.706, 14.706]
    """
    mean, error = mean_and_error(windows)
    reach = t_quantile((1 + level) / 2, len(windows) - 1) * error
    return mean - reach, mean + reach


def paired(first: Windows, second: Windows) -> tuple[float, float, float]:
    """Return the mean difference of two models on the same tokens, its error, and p of its being 0.

    What makes a window hard is hard for both models and cancels:

    >>> hard = [[5.0, 6.0], [1.0, 2.0], [9.0, 7.0]]
    >>> worse = [[v + 0.5 for v in window] for window in hard]
    >>> paired(worse, hard)
    (0.5, 0.0, 0.0)

    Models that are the same have no difference, and p is 1:

    >>> paired(hard, hard)
    (0.0, 0.0, 1.0)
    """
    differences = _differences(first, second)
    mean, error = mean_and_error(differences)
    if error == 0:
        return mean, error, 1.0 if mean == 0 else 0.0
    return mean, error, t_two_sided(mean / error, len(differences) - 1)


def _differences(first: Windows, second: Windows) -> list[list[float]]:
    return [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(first, second, strict=True)]

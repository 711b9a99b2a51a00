"""Quality of a quantized model: perplexity, KL divergence and top-token agreement, with errors.

The statistics are those of llama.cpp's ``llama-perplexity``, over the scored tokens of a text, and
so are the errors, which take tokens as independent; `clusters.py` has the errors that fewbit
prints. `base` and `model` are rows of natural log-probabilities of the original and the quantized
model; `nll` is -log p of the token that follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Row = Sequence[float]


def log_probabilities(logits: Row) -> list[float]:
    """Return log softmax(logits).

    >>> [round(math.exp(v), 3) for v in log_probabilities([0.0, math.log(3.0)])]
    [0.25, 0.75]
    """
    peak = max(logits)
    lse = peak + math.log(math.fsum(math.exp(v - peak) for v in logits))
    return [v - lse for v in logits]


def nll(logits: Row, target: int) -> float:
    """Return -log of the probability that the logits give to the target token.

    >>> nll([0.0, 0.0], 1) == math.log(2)
    True
    """
    return -log_probabilities(logits)[target]


def perplexity(nlls: Row) -> tuple[float, float]:
    """Return the perplexity exp(mean of -log p) and its standard error.

    A single token with probability 0.9229 has a perplexity of 1.08, with 0.03 one of 33.33:

    >>> [round(perplexity([-math.log(p)])[0], 2) for p in (0.9229, 0.03)]
    [1.08, 33.33]

    The error is the standard error of the mean times the perplexity:

    >>> [round(v, 9) for v in perplexity([math.log(2), math.log(8)])]
    [4.0, 2.772588722]
    """
    mean, variance = _moments(nlls)
    error = math.sqrt(variance / (len(nlls) - 1)) if len(nlls) > 1 else 0.0
    return math.exp(mean), math.exp(mean) * error


def kl_divergence(base: Row, model: Row, floor: float = -math.inf) -> float:
    """Return sum p (log p - log q) of two rows of log-probabilities, in nats.

    Terms with log p <= `floor` are skipped; llama.cpp uses a floor of -16.

    The examples are normal distributions in steps of 1/64. Two with a standard deviation of 1 whose
    means differ by 1.5 have 1.5^2 / 2; standard deviations of 1 and 1 / 0.75 have ln(1 / 0.75) +
    0.75^2 / 2 - 1/2.

    >>> steps = [i / 64 for i in range(-640, 641)]
    >>> unit = log_probabilities([-x * x / 2 for x in steps])
    >>> moved = log_probabilities([-((x - 1.5) ** 2) / 2 for x in steps])
    >>> wide = log_probabilities([-((0.75 * x) ** 2) / 2 for x in steps])
    >>> f"{kl_divergence(unit, moved):.3f}", f"{kl_divergence(unit, wide):.3f}"
    ('1.125', '0.069')
    """
    pairs = zip(base, model, strict=True)
    return math.fsum(math.exp(p) * (p - q) for p, q in pairs if p > floor)


def same_top(base: Row, model: Row) -> bool:
    """Return whether both rows have their largest element (the first of equals) at the same token.

    >>> same_top([1.0, 2.0, 2.0], [0.0, 3.0, 1.0])
    True
    """
    return base.index(max(base)) == model.index(max(model))


def probability_change(base: Row, model: Row, target: int) -> float:
    """Return q(target) - p(target) of two rows of log-probabilities, between -1 and 1.

    llama.cpp prints it in percent, as "Δp".

    >>> probability_change([math.log(0.5)] * 2, [math.log(0.75), math.log(0.25)], 0)
    0.25
    """
    return math.exp(model[target]) - math.exp(base[target])


def mean_and_error(values: Row) -> tuple[float, float]:
    """Return the mean and its standard error sqrt(variance / (n - 1)); the error is 0 for n <= 10.

    >>> [round(v, 9) for v in mean_and_error([0.0, 2.0] * 6)], mean_and_error([0.0, 2.0])
    ([1.0, 0.301511345], (1.0, 0.0))
    """
    mean, variance = _moments(values)
    return mean, math.sqrt(variance / (len(values) - 1)) if len(values) > 10 else 0.0


def _moments(values: Row) -> tuple[float, float]:
    """Return the mean and the variance E[(v - mean)^2]."""
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((v - mean) ** 2 for v in values) / len(values)


def covariance_of_means(x: Row, y: Row) -> float:
    """Return (E[x y] - E[x] E[y]) / (n - 1), the covariance of two means; 0 for n <= 10.

    >>> covariance_of_means([0.0, 2.0] * 6, [0.0, 1.0] * 6) == 0.5 / 11
    True
    """
    n = len(x)
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    both = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    return both / (n - 1) if n > 10 else 0.0


def log_ratio(model: Row, base: Row) -> tuple[float, float]:
    """Return ln(PPL(model) / PPL(base)) from two lists of nll, and its standard error.

    The error is sqrt(e1^2 + e2^2 - 2 cov): the covariance removes the part that both models share.

    >>> log_ratio([1.5, 2.5] * 6, [1.0, 2.0] * 6)
    (0.5, 0.0)
    """
    (mean, error), (base_mean, base_error) = mean_and_error(model), mean_and_error(base)
    squared = error**2 + base_error**2 - 2 * covariance_of_means(model, base)
    return mean - base_mean, math.sqrt(max(squared, 0.0))


def ratio(model: Row, base: Row) -> tuple[float, float]:
    """Return PPL(model) / PPL(base) and its standard error.

    >>> [round(v, 9) for v in ratio([1.5, 2.5] * 6, [1.0, 2.0] * 6)]
    [1.648721271, 0.0]
    """
    log, error = log_ratio(model, base)
    return math.exp(log), math.exp(log) * error


def difference(model: Row, base: Row) -> tuple[float, float]:
    """Return PPL(model) - PPL(base) and its standard error.

    >>> [round(v, 3) for v in difference([1.5, 2.5] * 6, [1.0, 2.0] * 6)]
    [2.907, 0.438]
    """
    (mean, error), (base_mean, base_error) = mean_and_error(model), mean_and_error(base)
    a, b = math.exp(mean), math.exp(base_mean)
    squared = (a * error) ** 2 + (b * base_error) ** 2
    return a - b, math.sqrt(max(squared - 2 * a * b * covariance_of_means(model, base), 0.0))


def correlation(model: Row, base: Row) -> float:
    """Return the correlation of two lists of nll: llama.cpp's Cor(ln(PPL(Q)), ln(PPL(base))).

    >>> round(correlation([1.0, 3.0] * 6, [2.0, 4.0] * 6), 12)
    1.0
    """
    errors = mean_and_error(model)[1] * mean_and_error(base)[1]
    return covariance_of_means(model, base) / errors if errors else math.nan


def fraction_and_error(count: int, n: int) -> tuple[float, float]:
    """Return p = count / n and its standard error sqrt(p (1 - p) / (n - 1)).

    >>> [round(v, 9) for v in fraction_and_error(50, 101)]
    [0.495049505, 0.049997549]
    """
    p = count / n
    return p, math.sqrt(p * (1 - p) / (n - 1)) if n > 1 else 0.0


def rms_and_error(values: Row) -> tuple[float, float]:
    """Return the root mean square and its standard error, 0.5 / rms * that of the mean square.

    >>> rms_and_error([3.0, -3.0] * 6)
    (3.0, 0.0)
    """
    mean, error = mean_and_error([v * v for v in values])
    rms = math.sqrt(mean)
    return rms, 0.5 / rms * error if rms else 0.0


def percentile(values: Row, fraction: float) -> float:
    """Return the value below which a fraction of all values lie, linearly interpolated.

    >>> percentile([3.0, 1.0, 2.0], 0.5), percentile([0.0, 10.0], 0.9), percentile([5.0], 0.999)
    (2.0, 9.0, 5.0)
    """
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    low = min(int(place), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])

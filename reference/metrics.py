"""What quantization costs: perplexity, KL divergence and agreement, with their standard errors.

The statistics are those of llama.cpp's ``llama-perplexity``, over the scored tokens of a text:
`base` and `model` are natural log-probabilities, `nll` is -log p of the token that came.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Row = Sequence[float]


def log_probabilities(logits: Row) -> list[float]:
    """log softmax.

    >>> [round(math.exp(v), 3) for v in log_probabilities([0.0, math.log(3.0)])]
    [0.25, 0.75]
    """
    peak = max(logits)
    lse = peak + math.log(math.fsum(math.exp(v - peak) for v in logits))
    return [v - lse for v in logits]


def nll(logits: Row, target: int) -> float:
    """-log of the probability that the logits give to the target.

    >>> nll([0.0, 0.0], 1) == math.log(2)
    True
    """
    return -log_probabilities(logits)[target]


def perplexity(nlls: Row) -> tuple[float, float]:
    """exp of the mean of -log p, and its standard error.

    One token of probability 0.9229 is a perplexity of 1.08, of 0.03 one of 33.33:

    >>> [round(perplexity([-math.log(p)])[0], 2) for p in (0.9229, 0.03)]
    [1.08, 33.33]

    The error is that of the mean, times the perplexity:

    >>> [round(v, 9) for v in perplexity([math.log(2), math.log(8)])]
    [4.0, 2.772588722]
    """
    mean, variance = _moments(nlls)
    error = math.sqrt(variance / (len(nlls) - 1)) if len(nlls) > 1 else 0.0
    return math.exp(mean), math.exp(mean) * error


def kl_divergence(base: Row, model: Row, floor: float = -math.inf) -> float:
    """sum p (log p - log q) over log-probabilities; llama.cpp skips log p below `floor` -16.

    Two unit normals 1.5 apart, in steps of 1/64: 1.5^2 / 2. One widened to 1/0.75:
    ln(1/0.75) + 0.75^2 / 2 - 1/2.

    >>> steps = [i / 64 for i in range(-640, 641)]
    >>> unit = log_probabilities([-x * x / 2 for x in steps])
    >>> apart = log_probabilities([-((x - 1.5) ** 2) / 2 for x in steps])
    >>> wide = log_probabilities([-((0.75 * x) ** 2) / 2 for x in steps])
    >>> f"{kl_divergence(unit, apart):.3f}", f"{kl_divergence(unit, wide):.3f}"
    ('1.125', '0.069')
    """
    pairs = zip(base, model, strict=True)
    return math.fsum(math.exp(p) * (p - q) for p, q in pairs if p > floor)


def same_top(base: Row, model: Row) -> bool:
    """Whether both have their largest element, the first of equals, at one place.

    >>> same_top([1.0, 2.0, 2.0], [0.0, 3.0, 1.0])
    True
    """
    return base.index(max(base)) == model.index(max(model))


def probability_change(base: Row, model: Row, target: int) -> float:
    """q(target) - p(target) of two rows of log-probabilities: llama.cpp's delta p, as a share.

    >>> probability_change([math.log(0.5)] * 2, [math.log(0.75), math.log(0.25)], 0)
    0.25
    """
    return math.exp(model[target]) - math.exp(base[target])


def mean_and_error(values: Row) -> tuple[float, float]:
    """The mean and its standard error sqrt((E[v^2] - E[v]^2) / (n - 1)); 0 up to 10 values.

    >>> [round(v, 9) for v in mean_and_error([0.0, 2.0] * 6)], mean_and_error([0.0, 2.0])
    ([1.0, 0.301511345], (1.0, 0.0))
    """
    mean, variance = _moments(values)
    return mean, math.sqrt(variance / (len(values) - 1)) if len(values) > 10 else 0.0


def _moments(values: Row) -> tuple[float, float]:
    """The mean and the variance E[(v - mean)^2]."""
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((v - mean) ** 2 for v in values) / len(values)


def covariance_of_means(x: Row, y: Row) -> float:
    """(E[x y] - E[x] E[y]) / (n - 1); 0 up to 10 values.

    >>> covariance_of_means([0.0, 2.0] * 6, [0.0, 1.0] * 6) == 0.5 / 11
    True
    """
    n = len(x)
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    both = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    return both / (n - 1) if n > 10 else 0.0


def log_ratio(model: Row, base: Row) -> tuple[float, float]:
    """ln(PPL(model) / PPL(base)) from two lists of nll, and its error.

    The error is sqrt(e1^2 + e2^2 - 2 cov): tokens that both find hard do not count twice.

    >>> log_ratio([1.5, 2.5] * 6, [1.0, 2.0] * 6)
    (0.5, 0.0)
    """
    (mean, error), (base_mean, base_error) = mean_and_error(model), mean_and_error(base)
    squared = error**2 + base_error**2 - 2 * covariance_of_means(model, base)
    return mean - base_mean, math.sqrt(max(squared, 0.0))


def ratio(model: Row, base: Row) -> tuple[float, float]:
    """PPL(model) / PPL(base) and its error.

    >>> [round(v, 9) for v in ratio([1.5, 2.5] * 6, [1.0, 2.0] * 6)]
    [1.648721271, 0.0]
    """
    log, error = log_ratio(model, base)
    return math.exp(log), math.exp(log) * error


def difference(model: Row, base: Row) -> tuple[float, float]:
    """PPL(model) - PPL(base) and its error.

    >>> [round(v, 3) for v in difference([1.5, 2.5] * 6, [1.0, 2.0] * 6)]
    [2.907, 0.438]
    """
    (mean, error), (base_mean, base_error) = mean_and_error(model), mean_and_error(base)
    a, b = math.exp(mean), math.exp(base_mean)
    squared = (a * error) ** 2 + (b * base_error) ** 2
    return a - b, math.sqrt(max(squared - 2 * a * b * covariance_of_means(model, base), 0.0))


def correlation(model: Row, base: Row) -> float:
    """The correlation of two lists of nll: llama.cpp's Cor(ln PPL(Q), ln PPL(base)).

    >>> round(correlation([1.0, 3.0] * 6, [2.0, 4.0] * 6), 12)
    1.0
    """
    errors = mean_and_error(model)[1] * mean_and_error(base)[1]
    return covariance_of_means(model, base) / errors if errors else math.nan


def share_and_error(count: int, n: int) -> tuple[float, float]:
    """count / n and sqrt(p (1 - p) / (n - 1)): same top tokens.

    >>> [round(v, 9) for v in share_and_error(50, 101)]
    [0.495049505, 0.049997549]
    """
    p = count / n
    return p, math.sqrt(p * (1 - p) / (n - 1)) if n > 1 else 0.0


def rms_and_error(values: Row) -> tuple[float, float]:
    """The root of the mean square and its error, 0.5 / rms times that of the mean square.

    >>> rms_and_error([3.0, -3.0] * 6)
    (3.0, 0.0)
    """
    mean, error = mean_and_error([v * v for v in values])
    rms = math.sqrt(mean)
    return rms, 0.5 / rms * error if rms else 0.0


def percentile(values: Row, share: float) -> float:
    """The value below which a share of all lie, linear between neighbours in the sorted list.

    >>> percentile([3.0, 1.0, 2.0], 0.5), percentile([0.0, 10.0], 0.9), percentile([5.0], 0.999)
    (2.0, 9.0, 5.0)
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = min(int(place), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])

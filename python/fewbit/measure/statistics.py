"""Compute means with standard errors, and the statistics of a divergence, from token values.

The statistics are those that llama.cpp's ``llama-perplexity`` prints, percentiles interpolate
linearly. The errors differ: llama.cpp takes tokens as independent, fewbit takes windows so, as
`reference/clusters.py` says.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit.measure.clusters import Sizes, covariance_of_means, equal_windows, mean_of_windows
from fewbit.measure.results import Divergence, Estimate, Perplexity, Sample

Values: TypeAlias = NDArray[np.float64]

FEWEST = 11
"""llama.cpp gives no error for fewer values."""

KLD_PERCENTILES = (100.0, 99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0, 0.1, 0.0)
DP_PERCENTILES = (100.0, 99.9, 99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0, 0.1, 0.0)


def mean(values: Values, fewest: int = FEWEST) -> Estimate:
    """The mean, and llama.cpp's error of independent tokens: 0 for fewer than `fewest` values."""
    with np.errstate(invalid="ignore"):
        average, variance = float(values.mean()), float(values.var())
    enough = len(values) >= fewest
    error = math.sqrt(variance / (len(values) - 1)) if enough else 0.0
    return Estimate(average, error, len(values))


def perplexity(nll: Values, acts: str, sample: Sample, sizes: Sizes | None = None) -> Perplexity:
    """The perplexity of tokens with these negative log-likelihoods (nats).

    `sizes` are the scored tokens of each window; without them all windows have as many.
    """
    average = mean_of_windows(nll, _sizes(nll, sample, sizes))
    return Perplexity(average.exp(), average, acts, sample)


def divergence(
    tokens: dict[str, Values],
    same_top: NDArray[np.bool_],
    acts: str,
    base_acts: str,
    sample: Sample,
    sizes: Sizes | None = None,
) -> Divergence:
    """The statistics of one value per token of `nll_base`, `nll`, `kld` and `dp`.

    `sizes` are as `perplexity` takes them; ``clusters.single_tokens`` gives llama.cpp's errors.
    """
    nll, nll_base, kld, dp = (tokens[name] for name in ("nll", "nll_base", "kld", "dp"))
    windows = _sizes(nll, sample, sizes)
    ln, ln_base = mean_of_windows(nll, windows), mean_of_windows(nll_base, windows)
    ppl, ppl_base = ln.exp(), ln_base.exp()
    ratio_error = mean_of_windows(nll - nll_base, windows).error
    ln_ratio = Estimate(ln.value - ln_base.value, ratio_error, len(windows))
    ppl_covariance = ppl.value * ppl_base.value * covariance_of_means(nll, nll_base, windows)
    difference = Estimate(
        ppl.value - ppl_base.value,
        _root(ppl.error**2 + ppl_base.error**2 - 2 * ppl_covariance),
        len(windows),
    )
    return Divergence(
        ppl=ppl,
        ppl_base=ppl_base,
        correlation=_correlation(nll, nll_base),
        ln_ratio=ln_ratio,
        ratio=ln_ratio.exp(),
        difference=difference,
        kld=mean_of_windows(kld, windows),
        kld_percentiles=_percentiles(kld, KLD_PERCENTILES),
        dp=mean_of_windows(dp, windows),
        dp_percentiles=_percentiles(dp, DP_PERCENTILES),
        rms_dp=_root_mean_square(dp, windows),
        same_top=mean_of_windows(same_top.astype(np.float64), windows),
        acts=acts,
        base_acts=base_acts,
        sample=sample,
    )


def _sizes(values: Values, sample: Sample, sizes: Sizes | None) -> Sizes:
    return equal_windows(len(values), sample.chunks) if sizes is None else sizes


def _correlation(x: Values, y: Values) -> float:
    """The correlation of two values over tokens; nan of constants."""
    with np.errstate(invalid="ignore"):
        x, y = x - x.mean(), y - y.mean()
        scale = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
        return float(x @ y) / scale if scale else math.nan


def _percentiles(values: Values, percents: tuple[float, ...]) -> dict[float, float]:
    with np.errstate(invalid="ignore"):
        found = np.percentile(values, percents)
    return {percent: float(value) for percent, value in zip(percents, found, strict=True)}


def _root_mean_square(values: Values, sizes: Sizes) -> Estimate:
    squares = mean_of_windows(values * values, sizes)
    root = _root(squares.value)
    error = 0.5 / root * squares.error if root else squares.error
    return Estimate(root, error, len(sizes))


def _root(value: float) -> float:
    """The square root; rounding may have left the square just below 0."""
    return math.nan if math.isnan(value) else math.sqrt(max(value, 0.0))

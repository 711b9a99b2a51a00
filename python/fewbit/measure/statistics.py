"""Compute means with standard errors, and the statistics of a divergence, from token values.

The statistics are those that llama.cpp's ``llama-perplexity`` prints, under the same definitions:
the error of a mean is sqrt((E[v^2] - E[v]^2) / (n - 1)), percentiles interpolate linearly.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit.measure.results import Divergence, Estimate, Perplexity, Sample

Values: TypeAlias = NDArray[np.float64]

FEWEST = 11
"""llama.cpp gives no error for fewer values."""

KLD_PERCENTILES = (100.0, 99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0, 0.1, 0.0)
DP_PERCENTILES = (100.0, 99.9, 99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0, 0.1, 0.0)


def mean(values: Values, fewest: int = FEWEST) -> Estimate:
    """The mean and its standard error, which is 0 for fewer than `fewest` values."""
    with np.errstate(invalid="ignore"):
        average, variance = float(values.mean()), float(values.var())
    enough = len(values) >= fewest
    return Estimate(average, math.sqrt(variance / (len(values) - 1)) if enough else 0.0)


def perplexity(nll: Values, acts: str, sample: Sample) -> Perplexity:
    """The perplexity of tokens with these negative log-likelihoods (nats)."""
    average = mean(nll, fewest=2)
    return Perplexity(average.exp(), average, acts, sample)


def divergence(
    tokens: dict[str, Values],
    same_top: NDArray[np.bool_],
    acts: str,
    base_acts: str,
    sample: Sample,
) -> Divergence:
    """The statistics of one value per token of `nll_base`, `nll`, `kld` and `dp`."""
    nll, nll_base, kld, dp = (tokens[name] for name in ("nll", "nll_base", "kld", "dp"))
    count = len(nll)
    ln, ln_base = mean(nll), mean(nll_base)
    ppl, ppl_base = ln.exp(), ln_base.exp()
    covariance = _covariance(nll, nll_base)
    ln_ratio = Estimate(
        ln.value - ln_base.value, _root(ln.error**2 + ln_base.error**2 - 2 * covariance)
    )
    ppl_covariance = ppl.value * ppl_base.value * covariance
    difference = Estimate(
        ppl.value - ppl_base.value, _root(ppl.error**2 + ppl_base.error**2 - 2 * ppl_covariance)
    )
    errors = ln.error * ln_base.error
    top = float(same_top.mean())
    return Divergence(
        ppl=ppl,
        ppl_base=ppl_base,
        correlation=covariance / errors if errors else math.nan,
        ln_ratio=ln_ratio,
        ratio=ln_ratio.exp(),
        difference=difference,
        kld=mean(kld),
        kld_percentiles=_percentiles(kld, KLD_PERCENTILES),
        dp=mean(dp),
        dp_percentiles=_percentiles(dp, DP_PERCENTILES),
        rms_dp=_root_mean_square(dp),
        same_top=Estimate(top, math.sqrt(top * (1 - top) / (count - 1)) if count > 1 else 0.0),
        acts=acts,
        base_acts=base_acts,
        sample=sample,
    )


def _covariance(x: Values, y: Values) -> float:
    """The covariance of the two means."""
    if len(x) < FEWEST:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(((x - x.mean()) * (y - y.mean())).mean()) / (len(x) - 1)


def _percentiles(values: Values, percents: tuple[float, ...]) -> dict[float, float]:
    with np.errstate(invalid="ignore"):
        found = np.percentile(values, percents)
    return {percent: float(value) for percent, value in zip(percents, found, strict=True)}


def _root_mean_square(values: Values) -> Estimate:
    squares = mean(values * values)
    root = _root(squares.value)
    return Estimate(root, 0.5 / root * squares.error if root else 0.0)


def _root(value: float) -> float:
    """The square root; rounding may have left the square just below 0."""
    return math.nan if math.isnan(value) else math.sqrt(max(value, 0.0))

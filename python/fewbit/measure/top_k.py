"""Measure a divergence from a base that keeps the likeliest tokens and the mass of all others.

With p the base, q the model, T the tokens kept, R the rest, P and Q the masses of R, a row's
divergence is that of the tokens kept, plus P ln(P / Q), plus what p and q differ within the rest:

    KLD = sum over T of p ln(p / q)  +  P ln(P / Q)  +  P * (mean over R, by p, of ln(r)),
    r = (p / P) / (q / Q)

- Lower bound: the last term is a divergence, so it is not below 0 (the log-sum inequality).
- Upper bound: sum over R of p ln(p / q) is at most (sum over R of p ln p, which is stored)
  - P * (the least ln q of the row).
- Estimate, between both: the mean over the stored samples of the rest of 1 / r - 1 + ln r, whose
  expectation is that of ln r because that of 1 / r is 1. Each is at least 0, and of the size of the
  divergence itself, so a row has an error of about P * KLD * sqrt(2 / samples).

The base is normalised anew: P and the probabilities kept are divided by their sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.files.top_k_base import TopRows
from fewbit.run.predictions import Ids, Logits, Measures

Values = NDArray[np.float64]

LEAST = 1e-13
"""1 minus the probabilities of the tokens kept has an error of this size: no rest is below it."""


def divergence(base: TopRows, logits: Logits, targets: Ids) -> Measures:
    """Measures of each row, with `kld_low` and `kld_high`, which hold the divergence between them.

    Raises:
        InputError: a target is not in the vocabulary.

    """
    top = logits.argmax(1)
    largest = logits[np.arange(len(logits)), top].astype(np.float64)
    # Of the likeliest token the core gives ln(sum of exp(logit - largest)) without a difference.
    normalizer = largest + _core.nll(logits, top.astype(np.uint32))
    nll = _core.nll(logits, targets)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        low, within, high = _terms(base, logits, normalizer)
        p, q = np.exp(base.ln_target), np.exp(-nll)
    finite = ~np.isnan(low)
    return {
        "nll_base": -base.ln_target, "nll": nll, "kld": low + within, "dp": q - p,
        "same_top": (top == base.ids[:, 0]) & finite, "kld_low": low, "kld_high": high,
    }  # fmt: skip


def _terms(base: TopRows, logits: Logits, normalizer: Values) -> tuple[Values, Values, Values]:
    """The lower bound, the estimate of the divergence within the rest, and the upper bound."""
    ln_q = np.take_along_axis(logits, base.ids, 1).astype(np.float64) - normalizer[:, None]
    p = np.exp(base.ln_top)
    total = p.sum(1) + np.exp(base.ln_rest)
    ln_total = np.log(total)
    top = _sum(p / total[:, None], base.ln_top - ln_total[:, None] - ln_q)
    mass, ln_mass = np.exp(base.ln_rest) / total, base.ln_rest - ln_total
    ln_mass_q = np.log(np.maximum(1 - np.exp(ln_q).sum(1), LEAST))
    empty = mass == 0
    low = top + np.where(empty, 0.0, mass * (ln_mass - ln_mass_q))
    within = np.where(empty, 0.0, mass * _within(base, logits, normalizer, ln_mass_q - ln_mass))
    negentropy = (base.negentropy - np.exp(base.ln_rest) * ln_total) / total
    least = logits.min(1).astype(np.float64) - normalizer
    high = top + np.where(empty, 0.0, negentropy - mass * least)
    return low, within, np.maximum(high, low + within)


def _within(base: TopRows, logits: Logits, normalizer: Values, ln_masses: Values) -> Values:
    """The mean of 1 / r - 1 + ln r over the samples of each row; see the module."""
    if not base.samples.shape[1]:
        return np.zeros(len(logits))
    ln_q = np.take_along_axis(logits, base.samples, 1).astype(np.float64) - normalizer[:, None]
    ln_p = base.ln_samples  # both of p and P are as stored: the sum of all cancels
    stored = ln_masses[:, None]
    total = np.log(np.exp(base.ln_top).sum(1) + np.exp(base.ln_rest))[:, None]
    ln_inverse = ln_q - (ln_p - total) - stored
    found: Values = (np.expm1(ln_inverse) - ln_inverse).mean(1)
    return found


def _sum(p: Values, difference: Values) -> Values:
    found: Values = np.where(p > 0, p * difference, 0.0).sum(1)
    return found

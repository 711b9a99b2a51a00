"""fewbit's statistics of predictions against the oracle's, from the same values per token."""

import numpy as np
import pytest

from fewbit import _core
from fewbit.measure import statistics as measures
from fewbit.measure.clusters import single_tokens
from fewbit.measure.results import Sample
from reference import clusters, metrics
from tests.compare import same_bits, within_bound

SAMPLE = Sample(ctx=34, chunks=25, tokens=400, seconds=1.0)
BOUND = 1e-11
"""Sums of 400 values below 10 in binary64 are right to 400 * 2^-53 * 10 < 5e-13.

The standard errors are roots of differences of these sums, which lose one more digit.
"""


@pytest.fixture(scope="module")
def tokens():
    """Statistics of 400 random predictions over 7 tokens."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=(400, 7)) * 2
    model = base + rng.normal(size=base.shape) * 0.3
    rows = [
        (metrics.log_probabilities(p), metrics.log_probabilities(q), int(t))
        for p, q, t in zip(base.tolist(), model.tolist(), rng.integers(0, 7, 400), strict=True)
    ]
    return {
        "nll_base": [-p[t] for p, _, t in rows],
        "nll": [-q[t] for _, q, t in rows],
        "kld": [metrics.kl_divergence(p, q) for p, q, _ in rows],
        "dp": [metrics.probability_change(p, q, t) for p, q, t in rows],
        "same_top": [metrics.same_top(p, q) for p, q, _ in rows],
    }


def windows(values, sizes):
    """The values as lists, one for each window."""
    return [part.tolist() for part in np.split(np.float64(values), np.cumsum(sizes)[:-1])]


def test_perplexity(tokens):
    got = measures.perplexity(np.array(tokens["nll"]), "f32", SAMPLE)
    value, error = clusters.perplexity(windows(tokens["nll"], [16] * 25))
    within_bound([got.ppl.value, got.ppl.error], [value, error], BOUND * value)


@pytest.mark.parametrize("sizes", [[16] * 25, [1] * 400, [100, 1, 250, 49]])
def test_divergence(tokens, sizes):
    values = {name: np.array(v) for name, v in tokens.items() if name != "same_top"}
    got = measures.divergence(
        values, np.array(tokens["same_top"]), "int8", "f32", SAMPLE, np.array(sizes)
    )
    parts = {name: windows(v, sizes) for name, v in tokens.items()}
    pair = parts["nll"], parts["nll_base"]
    expected = {
        "ppl": clusters.perplexity(pair[0]),
        "ppl_base": clusters.perplexity(pair[1]),
        "ln_ratio": clusters.log_ratio(*pair),
        "difference": clusters.difference(*pair),
        "kld": clusters.mean_and_error(parts["kld"]),
        "dp": clusters.mean_and_error(parts["dp"]),
        "rms_dp": clusters.rms_and_error(parts["dp"]),
        "same_top": clusters.mean_and_error(parts["same_top"]),
    }
    for name, pair_of in expected.items():
        estimate = getattr(got, name)
        within_bound([estimate.value, estimate.error], pair_of, 10 * BOUND, name)
    correlation = metrics.correlation(tokens["nll"], tokens["nll_base"])
    within_bound(got.correlation, correlation, BOUND, "correlation")
    for name, percentiles in (("kld", got.kld_percentiles), ("dp", got.dp_percentiles)):
        for percent, value in percentiles.items():
            share = metrics.percentile(tokens[name], percent / 100)
            within_bound(value, share, BOUND, f"{name} {percent} %")


def test_windows_of_one_token_give_llama_cpp_s_errors(tokens):
    values = {name: np.array(v) for name, v in tokens.items() if name != "same_top"}
    got = measures.divergence(
        values, np.array(tokens["same_top"]), "int8", "f32", SAMPLE, single_tokens(400)
    )
    pair = tokens["nll"], tokens["nll_base"]
    expected = {
        "ppl": metrics.perplexity(pair[0]),
        "ln_ratio": metrics.log_ratio(*pair),
        "ratio": metrics.ratio(*pair),
        "difference": metrics.difference(*pair),
        "kld": metrics.mean_and_error(tokens["kld"]),
        "rms_dp": metrics.rms_and_error(tokens["dp"]),
        "same_top": metrics.fraction_and_error(sum(tokens["same_top"]), 400),
    }
    for name, pair_of in expected.items():
        estimate = getattr(got, name)
        within_bound([estimate.value, estimate.error], pair_of, 10 * BOUND, name)


def test_extremes_are_elements(tokens):
    values = {name: np.array(v) for name, v in tokens.items() if name != "same_top"}
    got = measures.divergence(values, np.array(tokens["same_top"]), "int8", "f32", SAMPLE)
    same_bits(got.kld_percentiles[100.0], max(tokens["kld"]))
    same_bits(got.kld_percentiles[0.0], min(tokens["kld"]))


def test_each_token():
    """Rust's statistics of single tokens; each adds up 200 terms in binary64."""
    rng = np.random.default_rng(4)
    base = np.float32(rng.normal(size=(30, 200)) * 4)
    logits = base + np.float32(rng.normal(size=base.shape))
    logits[3] = base[3]
    targets = rng.integers(0, 200, 30).astype(np.uint32)
    got = _core.divergence(base, logits, targets)
    p, q = ([metrics.log_probabilities(row.tolist()) for row in x] for x in (base, logits))
    rows = list(zip(p, q, targets.tolist(), strict=True))
    expected = {
        "nll_base": [metrics.nll(row.tolist(), t) for row, t in zip(base, targets, strict=True)],
        "nll": [metrics.nll(row.tolist(), t) for row, t in zip(logits, targets, strict=True)],
        "kld": [metrics.kl_divergence(a, b) for a, b, _ in rows],
        "dp": [metrics.probability_change(a, b, t) for a, b, t in rows],
    }
    for name, values in expected.items():
        within_bound(got[name], values, BOUND, name)
    same_bits(got["same_top"], [metrics.same_top(a, b) for a, b, _ in rows])
    assert not all(got["same_top"])
    within_bound(_core.nll(logits, targets), expected["nll"], BOUND)

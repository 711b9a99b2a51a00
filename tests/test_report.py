"""Result pages hold the numbers, JSON holds all of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fewbit.measure import comparison as compare
from fewbit.measure import evaluate
from fewbit.reports import write as report
from fewbit.reports.distributions import distribution
from fewbit.tables import Page
from tests.bigram import ALPHABET, Bigram

TEXT = "".join(np.random.default_rng(6).choice(list(ALPHABET[:14]), 120))


def shown(capsys: pytest.CaptureFixture[str], page: Page) -> str:
    report.show(*page)
    return capsys.readouterr().out


def test_json_has_fields_and_properties(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate.perplexity(Bigram(), TEXT, ctx=20)
    report.write_json([found])
    (read,) = json.loads(capsys.readouterr().out)
    assert read["ppl"] == {
        "value": found.ppl.value,
        "error": found.ppl.error,
        "windows": 6,
        "interval": list(found.ppl.interval),
    }
    assert read["sample"]["tokens"] == 54
    assert read["sample"]["tokens_per_second"] == found.sample.tokens_per_second
    assert read["acts"] == "int8"


def test_json_has_null_where_a_number_is_not_finite() -> None:
    assert report.plain({0.1: math.nan, 100.0: (math.inf, 1.5)}) == {
        "0.1": None,
        "100": [None, 1.5],
    }


def test_a_divergence_shows_every_statistic(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate.divergence(Bigram(2), Bigram(1), TEXT, ctx=20)
    text = shown(capsys, found.page())
    labels = [line[:27].strip() for line in text.splitlines() if "±" in line or " KLD" in line]
    assert labels[:8] == [
        "mean PPL(model)",
        "mean PPL(base)",
        "ln(PPL(model) / PPL(base))",
        "PPL(model) / PPL(base)",
        "PPL(model) - PPL(base)",
        "mean KLD",
        "maximum KLD",
        "99.9 % KLD",
    ]
    assert f"{found.kld.value:.6f} ± {found.kld.error:.6f}" in text
    assert f"{100 * found.same_top.value:.3f} ± {100 * found.same_top.error:.3f} %" in text
    assert "6 windows of 20 tokens, 54 tokens scored" in text


def test_means_that_are_not_finite_come_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    model = Bigram()
    model.table[:] = np.nan
    text = shown(capsys, evaluate.perplexity(model, TEXT, ctx=20).page())
    assert "warning: the logits of 54 tokens are not finite, nor are the means" in text
    assert "nan" in text


@pytest.mark.parametrize("details", [False, True])
def test_a_comparison_has_a_line_per_format(
    capsys: pytest.CaptureFixture[str], details: bool
) -> None:
    rows = compare.compare(Bigram(), ["Q8_0", "Q4_0"], TEXT, ctx=20)
    text = shown(capsys, rows.page(details))
    *lines, verdict = [line for line in text.splitlines() if line.strip().startswith("Q4_0")]
    assert len(lines) == (2 if details else 1)
    assert verdict.split()[:3] == ["Q4_0", "worse", "Q8_0"]
    digits = "{:.6f}" if details else "{:.5f}"
    for line, found in zip(lines, (rows[2].weights, rows[2].fast), strict=False):
        assert digits.format(found.kld.value) in line
    assert "…" not in text, "nothing is cut"


def test_a_distribution_counts_every_value() -> None:
    values = np.random.default_rng(0).normal(1, 2, (100, 320)).astype(np.float32)
    values[3, 7] = 99
    found = distribution("w", "F32", (100, 320), values)
    assert sum(found.counts) == 32000
    assert (found.max, found.min) == (99, float(values.min()))
    doubles = values.astype(np.float64)
    assert (found.mean, found.deviation) == (doubles.mean(), doubles.std())
    assert found.percentiles[50.0] == np.median(doubles)
    assert found.outliers[10] == 1 / 32000
    far = np.abs(values - found.mean) > 3 * found.deviation
    assert found.outliers[3] == far.mean()
    inside = (values > found.low) & (values <= found.low + (found.high - found.low) / 21 * 1)
    assert found.counts[0] == inside.sum() + (values <= found.low).sum()
    lines = str(found).splitlines()
    assert lines[0] == "w  [100 x 320]  F32"
    assert max(line.count("#") for line in lines) == 50


def test_a_constant_tensor_has_a_distribution() -> None:
    found = distribution("w", "F32", (4,), np.full(4, 0.5, np.float32))
    assert (found.deviation, sum(found.counts)) == (0, 4)
    assert "0.5" in str(found)

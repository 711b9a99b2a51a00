"""Two models on the same tokens: differences, p values and verdicts as the oracle has them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewbit.measure.paired import Paired, all_pairs, is_decided, paired
from fewbit.measure.results import Estimate
from fewbit.measure.token_values import NAMES, TokenValues
from reference import clusters, significance
from tests.compare import within_bound

SCORED = 9
BOUND = 1e-12
"""Sums of a few hundred doubles below 1; p values are smooth functions of them."""


def measured(seed: int, shift: float = 0.0, windows: int = 12) -> TokenValues:
    """Values of a model; all seeds share what makes a window hard, `shift` is added to its KLD."""
    hard = np.random.default_rng(0).gamma(1, 0.1, (windows, SCORED))
    rng = np.random.default_rng(seed)
    found = TokenValues(SCORED)
    for window in hard:
        batch = {name: window + rng.normal(0, 0.005, SCORED) for name in NAMES}
        batch["kld"] = batch["kld"] + shift
        batch["same_top"] = rng.random(SCORED) < 0.8 - shift
        found.append([{k: v[:4] for k, v in batch.items()}, {k: v[4:] for k, v in batch.items()}])
    return found


def windows_of(values: TokenValues, name: str) -> list[list[float]]:
    return values.tokens(name).reshape(len(values), SCORED).tolist()


def test_a_pair_is_the_oracle_s() -> None:
    a, b = measured(1), measured(2, 0.002)
    found = paired("a", "b", a, b)
    for name, estimate, p in (("kld", found.kld, found.p_kld), ("nll", found.nll, found.p_nll)):
        expected = clusters.paired(windows_of(a, name), windows_of(b, name))
        within_bound((estimate.value, estimate.error, p), expected, BOUND, name)
    top, other = a.tokens("same_top").tolist(), b.tokens("same_top").tolist()
    only = sum(x and not y for x, y in zip(top, other, strict=True))
    other_only = sum(y and not x for x, y in zip(top, other, strict=True))
    assert (found.only_this, found.only_other) == (only, other_only)
    within_bound(found.p_same_top, significance.mcnemar(only, other_only), BOUND)


def test_p_values_are_corrected_for_all_pairs() -> None:
    values = {"a": measured(1), "b": measured(2, 0.003), "c": measured(3, 0.0032)}
    found = all_pairs(values)
    assert len(found) == 6, "three pairs in both directions"
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    corrected = significance.holm([found[pair].p_kld for pair in pairs])
    within_bound([found[pair].p for pair in pairs], corrected, 0)
    assert [found[pair].verdict for pair in pairs] == ["better", "better", "tie"]
    assert found["b", "a"].verdict == "worse"
    assert found["b", "a"].kld.value == -found["a", "b"].kld.value
    assert found["b", "a"].only_this == found["a", "b"].only_other


def test_against_one_row_there_are_fewer_pairs() -> None:
    values = {"a": measured(1), "b": measured(2, 0.003), "c": measured(3, 0.0032)}
    found = all_pairs(values, against="b")
    assert set(found) == {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")}
    expected = significance.holm([found["a", "b"].p_kld, found["b", "c"].p_kld])
    within_bound([found["a", "b"].p, found["b", "c"].p], expected, 0)


def test_looks_cost_their_part_of_the_level() -> None:
    values = {"a": measured(1), "b": measured(2, 0.001)}
    once, third = all_pairs(values)["a", "b"].p, all_pairs(values, look=3)["a", "b"].p
    within_bound(third, min(1.0, significance.at_look(once, 3)), BOUND)


def test_models_that_are_the_same_tie() -> None:
    found = paired("a", "b", measured(1), measured(1))
    assert (found.kld, found.nll) == (Estimate(0, 0), Estimate(0, 0))
    assert (found.p, found.p_same_top, found.verdict) == (1.0, 1.0, "tie")


def test_one_window_tells_nothing() -> None:
    found = all_pairs({"a": measured(1, windows=1), "b": measured(2, 0.1, windows=1)})["a", "b"]
    assert math.isnan(found.p)
    assert found.verdict == "unknown"


def test_an_order_is_decided_when_neighbours_are() -> None:
    far = {"a": measured(1), "b": measured(2, 0.1), "c": measured(3, 0.2)}
    assert is_decided(far, 1)
    assert not is_decided(far | {"d": measured(4, 0.1)}, 1), "b and d cannot be told apart"
    assert is_decided(far | {"same": measured(1)}, 1), "more text would not tell them apart either"


def test_verdicts_have_the_sign_of_the_difference() -> None:
    def pair(value: float, p: float) -> str:
        estimate = Estimate(value, 0.1, 5)
        return Paired("a", "b", estimate, estimate, 0, 0, p, p, 1.0, p).verdict

    assert [pair(-1, 0.05), pair(1, 0.05), pair(1, 0.051)] == ["better", "worse", "tie"]


@pytest.mark.parametrize("seeds", [200])
def test_equal_models_are_called_different_in_5_percent(seeds: int) -> None:
    """The verdict's own error rate: at most 5 % of 200, and three standard deviations more."""
    wrong = sum(
        all_pairs({"a": measured(2 * i + 1), "b": measured(2 * i + 2)})["a", "b"].verdict != "tie"
        for i in range(seeds)
    )
    assert wrong / seeds <= 0.05 + 3 * (0.05 * 0.95 / seeds) ** 0.5

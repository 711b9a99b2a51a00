"""Whole models against transformers, and the proof that these comparisons can fail."""

from collections.abc import Callable

import numpy as np
import pytest

from reference import run
from tests.compare import within_bound
from tests.golden.loading import NAMES, NOISE, Golden, load
from tests.golden.mutations import Plan, mutations, with_reversed

SMALL = ["mistral-swa", "qwen3-alt"]
"""The models on which the oracle is quick enough for some hundred runs."""

Forward = Callable[[Plan, dict, list[int], list[int]], np.ndarray]


def reference(plan: Plan, weights: dict, ids: list[int], outputs: list[int]) -> np.ndarray:
    return np.float32(run.forward(plan, weights, ids, outputs=outputs))


@pytest.mark.parametrize("name", NAMES)
def test_logits(name):
    g = load(name)
    got = reference(g.plan, g.weights, g.ids, list(range(len(g.ids))))
    within_bound(got, g.logits, NOISE, name)


@pytest.mark.parametrize("name", NAMES)
def test_greedy(name):
    """With the key/value cache; the two best logits are at least 0.05 apart at each step."""
    g, cache = load(name), run.Cache()
    tokens, found = g.ids, []
    for _ in g.greedy:
        last = len(tokens) - 1
        (logits,) = run.forward(g.plan, g.weights, tokens, cache=cache, outputs=[last])
        tokens = [logits.index(max(logits))]
        found += tokens
    assert found == g.greedy


@pytest.mark.parametrize("name", SMALL)
def test_mutations(name):
    assert survivors(load(name), reference) == []


def survivors(g: Golden, forward: Forward) -> list[str]:
    """The wrong plans that give the golden logits all the same."""
    outputs, ids = [3, 7, 11], g.ids[:12]
    expected = g.logits[outputs]
    weights = with_reversed(g.weights)
    within_bound(forward(g.plan, weights, ids, outputs), expected, NOISE)
    return [
        label
        for label, plan in mutations(g.plan)
        if agrees(forward, plan, weights, ids, outputs, expected)
    ]


def agrees(forward, plan, weights, ids, outputs, expected) -> bool:
    try:
        within_bound(forward(plan, weights, ids, outputs), expected, NOISE)
    except (AssertionError, ValueError, IndexError):
        return False  # another result, or a plan that is refused
    return True

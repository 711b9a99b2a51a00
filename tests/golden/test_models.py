"""Whole models against transformers, and the proof that these comparisons can fail."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from fewbit._core import Executor, Weights
from reference import run
from reference.weights import Weight
from tests.compare import within_bound
from tests.golden.loading import NAMES, NOISE, OWN, Golden, asset, load
from tests.golden.mutations import REVERSED, Plan, mutations, with_reversed

SMALL = ["mistral-swa", "qwen3-alt"]
"""The models on which the oracle is quick enough for some hundred runs."""

Forward = Callable[[Plan, list[int], list[int]], np.ndarray]
"""Plan, token ids, wanted rows -> their logits, from an empty cache that just holds the tokens."""


def reference(g: Golden, weights: dict[str, Weight]) -> Forward:
    return lambda plan, ids, outputs: np.float32(run.forward(plan, weights, ids, outputs=outputs))


def cpu(g: Golden, weights: dict[str, Weight]) -> Forward:
    held = packed(g, weights)

    def forward(plan: Plan, ids: list[int], outputs: list[int]) -> np.ndarray:
        executor = Executor(json.dumps(plan), held, 2)
        sequences, cache = np.zeros(len(ids), np.uint32), executor.cache(1, len(ids))
        return executor.forward(cache, np.uint32(ids), sequences, np.uint32(outputs), "f32")

    return forward


def packed(g: Golden, weights: dict[str, Weight]) -> Weights:
    held = Weights()
    experts = {op["weights"][0]: op["experts"] for op in g.plan if op["op"] == "expert_linear"}
    for name, w in weights.items():
        data = np.frombuffer(w.data, np.uint8).reshape(w.rows, -1)
        matrices = experts.get(name.removesuffix(REVERSED), 1)
        held.add(name, w.format, w.rows, w.columns, data, matrices)
    return held


EXECUTORS = {"reference": reference, "cpu": cpu}


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", NAMES)
def test_logits(name, executor):
    g = load(name)
    got = EXECUTORS[executor](g, g.weights)(g.plan, g.ids, list(range(len(g.ids))))
    within_bound(got, g.logits, NOISE, name)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_reference(name):
    g, cache = load(name), run.Cache()

    def step(tokens: list[int]) -> list[float]:
        return run.forward(g.plan, g.weights, tokens, cache=cache, outputs=[len(tokens) - 1])[0]

    assert greedy(g, step) == g.greedy


@pytest.mark.parametrize("name", NAMES)
def test_greedy_cpu(name):
    g = load(name)
    executor = Executor(json.dumps(g.plan), packed(g, g.weights), 2)
    cache = executor.cache(1, len(g.ids) + len(g.greedy))

    def step(tokens: list[int]) -> list[float]:
        sequences, last = np.zeros(len(tokens), np.uint32), np.uint32([len(tokens) - 1])
        return executor.forward(cache, np.uint32(tokens), sequences, last, "f32")[0].tolist()

    assert greedy(g, step) == g.greedy


def greedy(g: Golden, step: Callable[[list[int]], list[float]]) -> list[int]:
    """The likeliest token, again and again; the two best are at least 0.05 apart each time."""
    tokens, found = g.ids, []
    for _ in g.greedy:
        logits = step(tokens)
        tokens = [logits.index(max(logits))]
        found += tokens
    return found


@pytest.mark.parametrize(
    ("name", "executor"), [*((n, "cpu") for n in NAMES), *((n, "reference") for n in SMALL)]
)
def test_mutations(name, executor):
    g = load(name)
    forward = EXECUTORS[executor](g, with_reversed(g.weights))
    assert survivors(g, forward, cases(name, g)) == []


Case = tuple[list[int], list[int], np.ndarray]
"""Token ids, wanted rows, the logits of those."""


def cases(name: str, g: Golden) -> list[Case]:
    """What a wrong plan has to fail: 12 tokens, or as many as there are where that is quick."""
    if name in OWN:
        return [(g.ids[:12], [3, 7, 11], g.logits[[3, 7, 11]])]
    found = [(g.ids, [3, 7, 11, 23], g.logits[[3, 7, 11, 23]])]
    if any(op["op"] == "long_rope" for op in g.plan):  # a short text has other frequencies
        short = np.load(asset(name, "logits_short12.npy"))
        found.append((g.ids[:12], [3, 7, 11], short[[3, 7, 11]]))
    return found


def survivors(g: Golden, forward: Forward, cases: list[Case]) -> list[str]:
    """The wrong plans that give the golden logits all the same."""
    for ids, outputs, expected in cases:
        within_bound(forward(g.plan, ids, outputs), expected, NOISE)
    return [
        label
        for label, plan in mutations(g.plan)
        if all(agrees(forward, plan, *case) for case in cases)
    ]


def agrees(forward, plan, ids, outputs, expected) -> bool:
    try:
        within_bound(forward(plan, ids, outputs), expected, NOISE)
    except (AssertionError, ValueError, IndexError):
        return False  # another result, or a plan that is refused
    return True

"""Hidden states against transformers: each layer's input, its halves, the router, the last norm.

A plan that is cut behind an op gives that op's rows, so the executors are held to each value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.compare import within_bound
from tests.golden.loading import NAMES, NOISE, Golden, asset, load
from tests.golden.test_models import EXECUTORS

PARTS = {
    "attn_out": "attn_output.weight",
    "linear_attn_out": "ssm_out.weight",
    "mlp_out": "ffn_down.weight",
    "router_logits": "ffn_gate_inp.weight",
}


def values(g: Golden, names: list[str]) -> Iterator[tuple[str, int]]:
    """Which op of the plan gives each value; the experts' sum has no op of its own everywhere."""
    first = {}
    for index, op in enumerate(g.plan):
        for weight in op["weights"]:
            first.setdefault(weight, index)
    layers = max(int(name[3:]) for name in names if name.startswith("hs_"))
    for name in names:
        layer, _, part = name.removeprefix("layer").partition(".")
        if name == f"hs_{layers}":
            yield name, first["output_norm.weight"]
        elif name.startswith("hs_"):
            norm = g.plan[first[f"blk.{name[3:]}.attn_norm.weight"]]
            yield name, norm["inputs"][0]
        elif part == "out":
            (take,) = (op for op in g.plan if op["op"] == "take")
            yield name, take["inputs"][0]
        elif (weight := f"blk.{layer}.{PARTS[part]}") in first:
            yield name, first[weight]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", NAMES)
def test_hidden_states(name: str, executor: str) -> None:
    g = load(name)
    expected = np.load(asset(name, "hidden.npz"))
    forward = EXECUTORS[executor](g, g.weights)
    found = list(values(g, list(expected)))
    assert len(found) > 2
    for value, index in found:
        got = forward(g.plan[: index + 1], g.ids, list(range(len(g.ids))))
        within_bound(got, expected[value], NOISE * max(1.0, np.abs(expected[value]).max()), value)

"""The oracle's gradients against finite differences of its own ops, computed without rounding."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from reference import backward, cache, experts, gates, linear, ops, recurrent, run
from tests.golden.loading import NAMES, load

N = 4
"""Tokens of a window."""
STEP = 1e-4
"""Half the distance of a central difference: its error is about STEP^2 times a third derivative,
1e-8 here, and that of rounding 2^-52 / STEP, 2e-12."""
BOUND = 1e-6
"""Relative to the largest gradient of an op: third derivatives are below 100 times the first."""


class Exact:
    """Rows of binary64, in the place of a `reference.weights.Weight`."""

    def __init__(self, values: list[list[float]]) -> None:
        self.values, self.rows, self.columns = values, len(values), len(values[0])

    @property
    def by_column(self) -> list[tuple[float, ...]]:
        return list(zip(*self.values, strict=True))

    def row(self, index: int) -> list[float]:
        return list(self.values[index])


@pytest.fixture(autouse=True)
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All ops in binary64: nothing is rounded to f32."""
    for module in (ops, gates, experts, recurrent, linear, cache):
        if hasattr(module, "f32"):
            monkeypatch.setattr(module, "f32", float)
        if hasattr(module, "f32s"):
            monkeypatch.setattr(module, "f32s", list)
        if hasattr(module, "fmas"):
            monkeypatch.setattr(
                module, "fmas", lambda a, b, c: [x * y + z for x, y, z in zip(a, b, c, strict=True)]
            )
    monkeypatch.setattr(experts, "split", _split)
    monkeypatch.setattr("reference.gradients_recurrent.split", _split)


def _split(weight: Exact, count: int) -> list[Exact]:
    size = weight.rows // count
    return [Exact(weight.values[i * size : (i + 1) * size]) for i in range(count)]


FREQS = [0.7, 0.3]
ATTEND = {"layer": 0, "heads": 4, "kv_heads": 2, "scale": 0.6}
DELTA = {"layer": 0, "heads": 4, "key_heads": 2, "scale": 0.6}
ROPE = {"heads": 2, "factor": 1.3}
LONG = {**ROPE, "short": FREQS, "long": [0.2, 0.1], "pairing": "halves"}
OPS: list[tuple[str, dict[str, Any], list[int], int, list[tuple[int, int]]]] = [
    ("rms_norm", {"eps": 0.1, "heads": 2}, [8], 8, [(1, 4)]),
    ("layer_norm", {"eps": 0.1}, [8], 8, [(1, 8), (1, 8)]),
    ("l2_norm", {"eps": 0.1, "heads": 2}, [8], 8, []),
    ("linear", {}, [5], 3, [(3, 5), (1, 3)]),
    ("part", {"parts": 2, "start": 1}, [8], 4, []),
    ("rope", {**ROPE, "freqs": FREQS, "pairing": "neighbours"}, [10], 10, []),
    ("rope", {**ROPE, "freqs": FREQS, "pairing": "halves"}, [10], 10, []),
    ("long_rope", {**LONG, "original": 3}, [10], 10, []),
    ("long_rope", {**LONG, "original": 4}, [10], 10, []),
    ("attend", {**ATTEND, "window": 0}, [8, 4, 4], 8, []),
    ("attend", {**ATTEND, "window": 2}, [8, 4, 4], 8, [(1, 4)]),
    ("add", {}, [3, 3], 3, []),
    ("mul", {}, [6, 6], 6, []),
    ("mul", {}, [6, 2], 6, []),
    ("scale", {"factor": 1.7}, [3], 3, []),
    ("softcap", {"cap": 1.2}, [4], 4, []),
    *((name, {}, [6], 6, []) for name in ("gelu", "silu", "sigmoid")),
    *((name, {}, [6, 6], 6, []) for name in ("swiglu", "geglu")),
    ("clamped_swiglu", {"alpha": 1.7, "limit": 0.8}, [12, 12], 12, []),
    ("route", {"used": 2, "normalize": True}, [5], 4, []),
    ("route", {"used": 2, "normalize": False}, [5], 4, []),
    ("short_conv", {"layer": 0}, [3], 3, [(3, 3)]),
    ("log_decay", {}, [3], 3, [(1, 3), (1, 3)]),
    ("delta_rule", {**DELTA, "sharing": "runs"}, [6, 6, 8, 4, 4], 8, []),
    ("delta_rule", {**DELTA, "sharing": "turns"}, [6, 6, 8, 4, 4], 8, []),
    ("take", {}, [3], 3, []),
]
"""Name, attributes, columns of the inputs and of the result, shapes of the weights."""

Weights = dict[str, Exact]


def matrix(rng: random.Random, rows: int, columns: int) -> Exact:
    return Exact([[rng.uniform(-1.5, 1.5) for _ in range(columns)] for _ in range(rows)])


def table(name: str, width: int) -> dict[str, Any]:
    return {"op": "embed", "inputs": [], "weights": [name], "width": width}


@pytest.mark.parametrize(("name", "attributes", "inputs", "width", "shapes"), OPS)
def test_gradient(
    name: str, attributes: Mapping[str, Any], inputs: Sequence[int], width: int,
    shapes: Sequence[tuple[int, int]],
) -> None:  # fmt: skip
    rng = random.Random(3)
    weights = {f"x{i}": matrix(rng, N, columns) for i, columns in enumerate(inputs)}
    weights |= {f"w{i}": matrix(rng, *shape) for i, shape in enumerate(shapes)}
    op = {"op": name, "inputs": list(range(len(inputs))), "width": width, **attributes}
    op["weights"] = [f"w{i}" for i in range(len(shapes))]
    plan = [*(table(f"x{i}", columns) for i, columns in enumerate(inputs)), op]
    check(plan, weights, rng)


def test_gradients_of_experts() -> None:
    """A product with a row for all experts, one with a row for each, and their weighted sum."""
    rng = random.Random(5)
    experts = {"inputs": [0, 1], "width": 8, "experts": 3}
    plan = [
        table("x0", 4), table("x1", 3),
        {"op": "route", "inputs": [1], "weights": [], "width": 4, "used": 2, "normalize": True},
        {"op": "expert_linear", **experts, "inputs": [0, 2], "weights": ["w0", "b0"]},
        {"op": "expert_linear", **experts, "inputs": [3, 2], "width": 10, "weights": ["w1"]},
        {"op": "expert_sum", "inputs": [4, 2], "weights": [], "width": 5},
    ]  # fmt: skip
    shapes = {"x0": (N, 4), "x1": (N, 3), "w0": (12, 4), "b0": (3, 4), "w1": (15, 4)}
    check(plan, {name: matrix(rng, *shape) for name, shape in shapes.items()}, rng)


def check(plan: list[dict[str, Any]], weights: Weights, rng: random.Random) -> None:
    """Compare all gradients with differences of the loss sum(c * result)."""
    trace: list[Any] = []
    tokens = list(range(N))
    result = run.forward(plan, weights, tokens, trace=trace)  # type: ignore[arg-type]
    c = [[rng.uniform(-1, 1) for _ in row] for row in result]
    if plan[-1]["op"] == "route":
        c = [[0.0] * (len(row) // 2) + row[len(row) // 2 :] for row in c]  # indices have none

    def loss() -> float:
        rows = run.forward(plan, weights, tokens)  # type: ignore[arg-type]
        return math.fsum(
            a * b for x, y in zip(rows, c, strict=True) for a, b in zip(x, y, strict=True)
        )

    found, vectors = backward.backward(plan, weights, trace, c)  # type: ignore[arg-type]
    gradients = {f"x{i}": found[i] for i in range(len(plan)) if plan[i]["op"] == "embed"}
    gradients |= {name: [row] for name, row in vectors.items()}
    assert all(rows is not None for rows in gradients.values())
    scale = max(abs(v) for rows in gradients.values() for row in rows or [] for v in row)
    for name, rows in gradients.items():
        for row, expected in zip(weights[name].values, rows or [], strict=True):
            for i, value in enumerate(expected):
                assert abs(difference(row, i, loss) - value) <= BOUND * scale, (name, i)


def difference(row: list[float], i: int, loss: Any) -> float:
    """The central difference of the loss in one element."""
    kept, ends = row[i], []
    for step in (STEP, -STEP):
        row[i] = kept + step
        ends.append(loss())
    row[i] = kept
    return (ends[0] - ends[1]) / (2 * STEP)


def test_gradient_of_a_product() -> None:
    """The gradient of a matrix is the sum of g x^T."""
    rng = random.Random(7)
    weights = {"x0": matrix(rng, N, 3), "w0": matrix(rng, 2, 3)}
    plan = [table("x0", 3), {"op": "linear", "inputs": [0], "weights": ["w0"], "width": 2}]
    c = matrix(rng, N, 2).values

    def loss() -> float:
        rows = run.forward(plan, weights, list(range(N)))  # type: ignore[arg-type]
        return math.fsum(
            a * b for x, y in zip(rows, c, strict=True) for a, b in zip(x, y, strict=True)
        )

    found = backward.gradients.linear_weight(c, weights["x0"].values)
    for row, expected in zip(weights["w0"].values, found, strict=True):
        for i, value in enumerate(expected):
            assert abs(difference(row, i, loss) - value) <= BOUND


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_model(name: str) -> None:
    """Along a random direction of the embedding's output, the loss changes as its gradient says."""
    g, rng = load(name), random.Random(11)
    ids = g.ids[:5]
    width = g.plan[0]["width"]
    weights: dict[str, Any] = {
        key: Exact([list(r) for r in w.values]) for key, w in g.weights.items()
    }
    weights["rows"] = Exact([list(weights[g.plan[0]["weights"][0]].values[token]) for token in ids])
    plan = [{**g.plan[0], "weights": ["rows"]}, *g.plan[1:]]
    tokens = list(range(len(ids)))
    trace: list[Any] = []
    logits = run.forward(plan, weights, tokens, trace=trace)
    c = [[rng.uniform(-1, 1) for _ in row] for row in logits]
    found, _ = backward.backward(plan, weights, trace, c)
    way = [[rng.uniform(-1, 1) for _ in range(width)] for _ in ids]
    rows = found[0]
    assert rows is not None
    expected = math.fsum(
        a * b for x, y in zip(rows, way, strict=True) for a, b in zip(x, y, strict=True)
    )
    start, ends = weights["rows"].values, []
    for step in (1e-5, -1e-5):
        moved = zip(start, way, strict=True)
        weights["rows"] = Exact(
            [[a + step * b for a, b in zip(x, y, strict=True)] for x, y in moved]
        )
        logits = run.forward(plan, weights, tokens)
        ends.append(
            math.fsum(
                a * b for x, y in zip(logits, c, strict=True) for a, b in zip(x, y, strict=True)
            )
        )
    size = math.sqrt(math.fsum(v * v for row in rows for v in row))
    assert abs((ends[0] - ends[1]) / 2e-5 - expected) <= 1e-5 * size

"""Plans of one op, run by the CPU executor and by the oracle; inputs are rows of an F32 table."""

import json

import numpy as np

from fewbit._core import Executor, Weights
from reference import run
from reference.cache import Cache
from reference.formats import encode_row
from reference.weights import Weight

U = 2.0**-24
"""The largest relative error of one f32 rounding."""
CAPACITY = 80
"""The room of a cache, in tokens."""


def values(seed: int, *shape: int) -> np.ndarray:
    """Random normal numbers with a few outliers, like activations."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 10 ** rng.uniform(-2, 1, size=(*shape[:-1], 1))
    x[rng.random(shape) < 0.02] *= 30
    return np.float32(x)


def op(kind: str, inputs: list[int], weights: list[str], width: int, **attributes) -> dict:
    return {"op": kind, "inputs": inputs, "weights": weights, "width": width, **attributes}


def embed(name: str, table: np.ndarray) -> dict:
    return op("embed", [], [name], table.shape[1])


def stored(table: np.ndarray, name: str = "F32") -> Weight:
    rows = [encode_row(row.tolist(), name) for row in np.atleast_2d(table)]
    return Weight(name, len(rows), np.atleast_2d(table).shape[1], b"".join(rows))


def run_cpu(plan, weights, tokens, outputs=None, acts="f32", threads=1):
    """Run a plan on the CPU executor; return [outputs, width]. Experts' tensors are stacks."""
    stacks = {
        name: step["experts"]
        for step in plan
        if step["op"] == "expert_linear"
        for name in step["weights"][:1]
    }
    held = Weights()
    for name, w in weights.items():
        data = np.frombuffer(w.data, np.uint8).reshape(w.rows, -1)
        held.add(name, w.format, w.rows, w.columns, data, stacks.get(name, 1))
    executor = Executor(json.dumps(plan), held, threads)
    cache = executor.cache(1, CAPACITY)
    outputs = range(len(tokens)) if outputs is None else outputs
    return executor.forward(
        cache,
        np.uint32(tokens),
        np.zeros(len(tokens), np.uint32),
        np.uint32(list(outputs)),
        acts,
    )


def both(plan, weights, tokens, outputs=None, acts="f32"):
    """Run a plan on the CPU executor and in the oracle; return both results [outputs, width]."""
    tokens = list(tokens)
    got = run_cpu(plan, weights, tokens, outputs, acts)
    cache = Cache(CAPACITY)
    expected = run.forward(plan, weights, tokens, cache=cache, outputs=outputs, acts=acts)
    return got, np.float32(expected)

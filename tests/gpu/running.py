"""Helpers of the GPU tests: run a plan of a few ops on a card and in the oracle; error bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewbit import _core
from fewbit.formats.table import find_format
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.ops import vectors
from fewbit.run.gpu.weights import Weights
from reference import run
from reference.linear import magnitude, round_activations
from reference.weights import Weight

U = 2.0**-24
"""The largest relative error of one f32 rounding."""

DIVISION = 5
"""Error of a division, in U: Vulkan allows 2.5 units in the last place, each 2 U."""


def values(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers and a few large ones: the distribution of activations."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 10 ** rng.uniform(-2, 1, size=(*shape[:-1], 1))
    x[rng.random(shape) < 0.02] *= 30
    return np.float32(x)


def stored(table: np.ndarray, name: str = "F32") -> Weight:
    """A table encoded in a format, with equal importance for all columns."""
    rows = np.atleast_2d(np.float32(table))
    importance = np.ones(rows.shape[1], np.float32)
    data = _core.encode(rows.view(np.uint8), "F32", rows.shape[1], name, importance)
    return Weight(name, len(rows), rows.shape[1], data.tobytes())


def table(x: np.ndarray) -> Weight:
    """`x` padded with zero columns to a multiple of 4, which the card needs for tables."""
    return stored(np.pad(x, ((0, 0), (0, -x.shape[1] % 4))))


def op(kind: str, inputs: list[int], weights: list[str], width: int, **attributes: Any) -> dict:
    return {"op": kind, "inputs": inputs, "weights": weights, "width": width, **attributes}


def embed(name: str, x: np.ndarray) -> dict:
    """An `embed` op for the table of `x`, with the columns that `table` adds."""
    return op("embed", [], [name], -(-x.shape[1] // 4) * 4)


def upload(card: Device, weights: dict[str, Weight], plan: Sequence[dict] = ()) -> Weights:
    held = Weights(card, vectors(plan))
    for name, w in weights.items():
        data = np.frombuffer(w.data, np.uint8).reshape(w.rows, -1)
        held.add(name, w.format, w.rows, w.columns, data)
    return held


def run_gpu(
    card: Device, plan: Sequence[dict], weights: dict[str, Weight], tokens: Sequence[int],
    outputs: Sequence[int] | None = None, acts: str = "f32", batch: int = 512,
) -> np.ndarray:  # fmt: skip
    executor = Executor(plan, upload(card, weights, plan), batch)
    cache = executor.cache(1, len(tokens))
    wanted = range(len(tokens)) if outputs is None else outputs
    where = np.zeros(len(tokens), np.uint32)
    return executor.forward(cache, np.uint32(tokens), where, np.uint32(list(wanted)), acts)


def both(
    card: Device, plan: Sequence[dict], weights: dict[str, Weight], tokens: Sequence[int],
    outputs: Sequence[int] | None = None, acts: str = "f64",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The results of a plan on the card and in the oracle."""
    got = run_gpu(card, plan, weights, tokens, outputs, "int8" if acts == "int8" else "f32")
    expected = run.forward(plan, weights, tokens, outputs=outputs, acts=acts)
    return got, np.float32(expected)


def weight_sizes(w: Weight) -> np.ndarray:
    """|scale * level| + |minimum| of each weight: its rounding errors are relative to this."""
    if find_format(w.format).is_float:
        return np.abs(np.array(w.values))
    rows = []
    for row in zip(*w.groups, strict=True):
        sizes = [abs(g.scale * level) + abs(g.minimum or 0.0) for g in row for level in g.levels]
        rows.append(sizes[: w.columns])
    return np.array(rows)


def linear_bound(x: np.ndarray, w: Weight) -> np.ndarray:
    """n + 4 roundings of sum |x| (|scale level| + |minimum|): n in the sum, 4 in a weight."""
    return (w.columns + 4) * U * (np.abs(np.float64(x)) @ weight_sizes(w).T)


def ties(x: np.ndarray, size: int) -> np.ndarray:
    """For each activation the scale of its group if it is close to a rounding tie, else 0."""
    steps = np.zeros(x.shape)
    for row, out in zip(x, steps, strict=True):
        for index, (_, d) in enumerate(round_activations(row.tolist(), size)):
            group = slice(index * size, (index + 1) * size)
            scaled = np.float64(row[group]) * 127 / max(np.abs(row[group]).max(), 1e-30)
            doubt = np.abs(np.abs(scaled - np.trunc(scaled)) - 0.5) < 127 * 16 * U
            out[group] = np.where(doubt, d, 0)
    return steps


def rounded_bound(x: np.ndarray, w: Weight) -> np.ndarray:
    """Error bound of a product whose activations are rounded too, if the format of w needs that."""
    bound = 2 * linear_bound(x, w)
    if w.takes_int8:
        bound += (
            16 * U * (np.abs(np.float64(x)) @ weight_sizes(w).T)
            + ties(x, w.activation_group) @ np.abs(w.values).T
        )
    return bound


__all__ = ["DIVISION", "U", "both", "embed", "linear_bound", "magnitude", "op", "rounded_bound",
           "run_gpu", "stored", "table", "upload", "values", "weight_sizes"]  # fmt: skip

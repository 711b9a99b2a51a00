"""Mixture of experts: choose each token's experts, multiply by their matrices, add the results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from reference.f32 import f32s, fmas
from reference.linear import PRODUCTS
from reference.ops import linear
from reference.weights import Weight

Row = Sequence[float]


def route(logits: Row, *, used: int, normalize: bool) -> list[float]:
    """Return the indices of the `used` largest logits, largest first, followed by their weights.

    The weights are the softmax of all logits, or of the chosen logits if `normalize`. Of equal
    logits the first ranks higher. Source: arXiv 1701.06538.

    >>> route([0.0, 9.0, 0.0, 9.0], used=2, normalize=True)
    [1.0, 3.0, 0.5, 0.5]
    >>> route([0.0, 0.0, 0.0, 0.0], used=1, normalize=False)
    [0.0, 0.25]
    """
    chosen = sorted(range(len(logits)), key=lambda index: -logits[index])[:used]
    peak = logits[chosen[0]]
    counted = [logits[index] for index in chosen] if normalize else logits
    total = math.fsum(math.exp(v - peak) for v in counted)
    weights = f32s(math.exp(logits[index] - peak) / total for index in chosen)
    return [float(index) for index in chosen] + weights


def expert_linear(
    x: Row, routed: Row, weight: Weight, bias: Weight | None = None, *, experts: int,
    acts: str = "f64",
) -> list[float]:  # fmt: skip
    """Return `linear` with each chosen expert's matrix in turn, the results side by side.

    `weight` holds `experts` matrices one below the other, `bias` a row for each expert. `x` is
    either one row for all experts or a row for each chosen expert, side by side. `routed` comes
    from `route`. Raises ValueError for any other length of x.

    >>> w = Weight.of([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    >>> expert_linear([1.0, 2.0], [2.0, 0.0, 0.5, 0.5], w, experts=3)
    [9.0, 3.0]
    >>> expert_linear([1.0, 2.0, 0.0, 1.0], [2.0, 0.0, 0.5, 0.5], w, experts=3)
    [9.0, 1.0]
    """
    assert acts in PRODUCTS
    chosen = [int(index) for index in routed[: len(routed) // 2]]
    columns = weight.columns
    shared = len(x) == columns
    if not shared and len(x) != columns * len(chosen):
        raise ValueError(f"{len(x)} elements for {len(chosen)} experts of {columns} columns")
    matrices = split(weight, experts)
    result: list[float] = []
    for slot, expert in enumerate(chosen):
        row = x if shared else x[slot * columns : (slot + 1) * columns]
        own = None if bias is None else bias.row(expert)
        result += linear(row, matrices[expert], own, acts)
    return result


def expert_sum(x: Row, routed: Row) -> list[float]:
    """Return the weighted sum of the experts' rows; every bit is defined.

    One fused multiply-add per expert and element, acc = fma(row, weight, acc), in the order of
    `routed`.

    >>> expert_sum([1.0, 2.0, 10.0, 20.0], [3.0, 0.0, 0.5, 0.25])
    [3.0, 6.0]
    """
    used = len(routed) // 2
    size = len(x) // used
    acc = [0.0] * size
    for slot, weight in enumerate(routed[used:]):
        acc = fmas(x[slot * size : (slot + 1) * size], [weight] * size, acc)
    return acc


@lru_cache(maxsize=256)
def split(weight: Weight, count: int) -> list[Weight]:
    """Return the `count` matrices that `weight` holds one below the other.

    >>> [matrix.values for matrix in split(Weight.of([[1.0], [2.0]]), 2)]
    [[[1.0]], [[2.0]]]
    """
    if weight.rows % count:
        raise ValueError(f"{weight.rows} rows do not divide into {count} matrices")
    rows, size = weight.rows // count, len(weight.data) // count
    return [
        Weight(weight.format, rows, weight.columns, weight.data[i * size : (i + 1) * size])
        for i in range(count)
    ]

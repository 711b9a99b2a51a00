"""What limits a speed: the memory's read rate, the peak of multiply-adds, threads, or neither."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fewbit.formats.table import find_format
from fewbit.plan.plan import Plan
from fewbit.plan.shapes import weight_shapes
from fewbit.plan.sizes import fraction_read

NEAR = 0.5
"""A speed of at least this fraction of a bound is limited by it."""
BEYOND = 1.1
"""A speed above this multiple of the read rate reads its weights from the processor's cache."""
GAIN = 1.25
"""All cores together raise a bound by this factor before threads are the limit."""


@dataclass(frozen=True)
class Products:
    """Multiply-adds of weights that a token takes: `body` for each token, `head` for its logits.

    `int8` is the fraction of them whose weights are quantized, and whose activations int8 rounds.
    """

    body: int
    head: int
    int8: float


@dataclass(frozen=True)
class Bounds:
    """What a machine reaches at once: GB/s (10^9 bytes) read, 10^9 int8 multiply-adds per second.

    `arithmetic` is None on a graphics card, whose peak is not measured.
    """

    memory: float
    arithmetic: float | None


def products_of(plan: Plan, formats: Mapping[str, str]) -> Products:
    """Count the multiply-adds of `plan`; the ops after `take` run only for tokens with logits."""
    body = head = int8 = 0
    taken = False
    for op in plan.ops:
        taken |= op.kind == "take"
        if op.kind not in ("linear", "expert_linear"):
            continue
        count = int(math.prod(weight_shapes(plan, op)[0]) * (fraction_read(plan, op) or 0))
        head, body = (head + count, body) if taken else (head, body + count)
        int8 += count if not find_format(formats[op.weights[0]]).is_float else 0
    return Products(body, head, int8 / max(body + head, 1))


def main_format(plan: Plan, formats: Mapping[str, str]) -> str:
    """The format of most of a model's linear weights."""
    counts: dict[str, int] = {}
    for op in plan.ops:
        for name in op.weights if op.kind == "linear" else ():
            counts[formats[name]] = counts.get(formats[name], 0) + op.width
    return max(counts, key=lambda name: counts[name])


def limit(
    memory: float, arithmetic: float | None, measured: Bounds, all_cores: Bounds | None
) -> str:
    """Name the limit of a speed that takes these fractions of the `measured` bounds.

    "memory" and "arithmetic" are the nearer bound, at half of it or more. "threads": all cores
    would raise that bound by a quarter or more (`all_cores` is None if all ran). "overhead":
    neither bound is near, as with small tensors and long contexts. "not memory": the read rate is
    not near, and no peak is known. "cache": the weights fit in the processor's cache, so they are
    read faster than memory is.
    """
    if max(memory, arithmetic or 0.0) < NEAR:
        return "not memory" if arithmetic is None else "overhead"
    if memory > BEYOND and (arithmetic or 0.0) < NEAR:
        return "cache"
    if memory >= (arithmetic or 0.0) and memory <= BEYOND:
        gain = all_cores.memory / measured.memory if all_cores else 1.0
        return "threads" if gain >= GAIN else "memory"
    assert measured.arithmetic is not None
    more = all_cores.arithmetic if all_cores else None
    return "threads" if (more or 0.0) >= GAIN * measured.arithmetic else "arithmetic"

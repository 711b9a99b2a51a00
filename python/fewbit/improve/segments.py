"""Cut a plan into segments, one for each layer, that pass on one row of hidden state per token.

A segment runs by itself: its first op looks up the hidden state of a token in a table instead of
computing it. Results are the same bits as those of the entire plan.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fewbit.plan.plan import Op, Plan

HIDDEN = "hidden_states"
"""Name of the table of hidden states in the plan of a segment."""

PRODUCTS = ("linear", "expert_linear")
_LAYER = re.compile(r"blk\.\d+\.")


@dataclass(frozen=True)
class Segment:
    """Some consecutive ops as a plan of their own; `index` counts from 0.

    `groups` are the weights of products that have one input, in the plan's order. The first segment
    begins with the embedding of tokens, the others with the table `HIDDEN`; the last ends with the
    logits.
    """

    index: int
    plan: Plan
    groups: tuple[tuple[str, ...], ...]

    @property
    def takes_tokens(self) -> bool:
        """True if it begins with the embedding of tokens."""
        return HIDDEN not in self.plan.weights()

    @property
    def width(self) -> int:
        """Columns of its result."""
        return self.plan.ops[-1].width


def segments(plan: Plan) -> list[Segment]:
    """The segments of a plan: at most one layer's weights in each where the plan allows it."""
    ops = _without_take(plan.ops)
    bounds = [*_cuts(ops), len(ops) - 1]
    starts = [-1, *bounds[:-1]]
    return [
        _segment(plan, ops, index, start, end)
        for index, (start, end) in enumerate(zip(starts, bounds, strict=True))
    ]


def remainder(plan: Plan, index: int) -> Segment:
    """Segment `index` and all behind it as one, which ends with the logits."""
    ops = _without_take(plan.ops)
    return _segment(plan, ops, index, [-1, *_cuts(ops)][index], len(ops) - 1)


def _without_take(ops: Sequence[Op]) -> list[Op]:
    """The ops with every row in each, as if all tokens were taken."""
    at: list[int] = []
    kept: list[Op] = []
    for op in ops:
        inputs = tuple(at[value] for value in op.inputs)
        if op.kind == "take":
            at.append(inputs[0])
        else:
            at.append(len(kept))
            kept.append(replace(op, inputs=inputs))
    return kept


def _cuts(ops: Sequence[Op]) -> list[int]:
    """The last ops of all segments but the last: only their result is read behind them."""
    last_use = list(range(len(ops)))
    for index, op in enumerate(ops):
        for value in op.inputs:
            last_use[value] = index
    reach, single = -1, []
    for index in range(len(ops)):
        if reach <= index:  # nothing before is read behind this op
            single.append(index)
        reach = max(reach, last_use[index])
    cuts: list[int] = []
    layer: str | None = None
    for index, op in enumerate(ops):
        for name in op.weights[:1]:
            own = _layer(name)
            if layer is not None and own != layer:
                before = [cut for cut in single if cut < index and cut > (cuts or [-1])[-1]]
                cuts += before[-1:]
            layer = own
    return cuts


def _layer(name: str) -> str:
    found = _LAYER.match(name)
    return found[0] if found else ""


def _segment(plan: Plan, ops: Sequence[Op], index: int, before: int, end: int) -> Segment:
    """The ops behind `before` up to `end`; `before` -1 begins with the plan."""
    own = Plan(plan.config)
    if before >= 0:
        own.ops.append(Op("embed", (), (HIDDEN,), ops[before].width))
    shift = before + 1 - len(own.ops)
    for op in ops[before + 1 : end + 1]:
        inputs = tuple(0 if value == before else value - shift for value in op.inputs)
        own.ops.append(replace(op, inputs=inputs))
    groups: dict[tuple[bool, tuple[int, ...]], list[str]] = {}
    for op in own.ops:
        if op.kind in PRODUCTS:
            key = (op.kind == "linear", op.inputs)
            groups.setdefault(key, []).append(op.weights[0])
    return Segment(index, own, tuple(tuple(names) for names in groups.values()))

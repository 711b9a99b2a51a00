"""How large a model is: weights, bytes, bits per weight, and what one token has to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fewbit.formats import find_format
from fewbit.plan import Op, Plan

if TYPE_CHECKING:
    from fewbit.api import Model


@dataclass(frozen=True)
class Sizes:
    """`weights` numbers in `bytes` bytes; a generated token reads `bytes_per_token` of them."""

    weights: int
    bytes: int
    bytes_per_token: int

    @property
    def bits_per_weight(self) -> float:
        """Mean bits that one weight takes, scales included."""
        return 8 * self.bytes / self.weights


def sizes(model: Model) -> Sizes:
    """The sizes of the tensors that `model`'s plan uses, each counted once.

    Of an embedding table a token reads one row, unless the table is the output layer too.
    """
    weights = total = read = 0
    shares = _shares(model.plan)
    for name, shape in tensor_shapes(model.plan).items():
        *matrices, rows, columns = shape
        count = math.prod(matrices) * rows
        row_bytes = find_format(model.formats.get(name, "F32")).row_bytes(columns)
        weights += count * columns
        total += count * row_bytes
        read += int(count * row_bytes * shares[name]) if name in shares else row_bytes
    return Sizes(weights, total, read)


def _shares(plan: Plan) -> dict[str, float]:
    """The share of each tensor that a token reads; tables of which it reads a row are not named."""
    shares: dict[str, float] = {}
    for op in plan.ops:
        share = 1.0
        if op.kind == "expert_linear":
            share = plan.ops[op.inputs[1]].width / 2 / plan.config.experts
        if op.kind not in ("embed", "embed_position"):
            shares.update(dict.fromkeys(op.weights, share))
    return shares


def tensor_shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """(rows, columns) of each tensor, or (experts, rows, columns); vectors have one row."""
    shapes: dict[str, tuple[int, ...]] = {}
    for op in plan.ops:
        shapes.update(zip(op.weights, weight_shapes(plan, op), strict=True))
    return shapes


def weight_shapes(plan: Plan, op: Op) -> Sequence[tuple[int, ...]]:
    """The shapes of one op's weights."""
    config, attributes = plan.config, dict(op.attributes)
    match op.kind:
        case "embed":
            return [(config.vocab, op.width)]
        case "embed_position":
            return [(config.context, op.width)]
        case "linear":
            columns = plan.ops[op.inputs[0]].width
            return [(op.width, columns), (1, op.width)][: len(op.weights)]
        case "expert_linear":
            x, route = (plan.ops[i] for i in op.inputs)
            used, experts = route.width // 2, config.experts
            # What follows from an earlier product with experts has a row for each of them.
            columns = x.width // used if _from_experts(plan, op.inputs[0]) else x.width
            return [(experts, op.width // used, columns), (experts, op.width // used)][
                : len(op.weights)
            ]
        case "rms_norm":
            heads = attributes["heads"]
            assert isinstance(heads, int)
            return [(1, op.width // heads)]
        case "attend":
            return [(1, config.heads)] * len(op.weights)
        case "short_conv":
            assert config.delta is not None
            return [(op.width, config.delta.kernel)]
    return [(1, op.width)] * len(op.weights)


def _from_experts(plan: Plan, value: int) -> bool:
    op = plan.ops[value]
    gates = ("swiglu", "geglu", "clamped_swiglu")
    return op.kind == "expert_linear" or (op.kind in gates and _from_experts(plan, op.inputs[0]))

"""Shapes of the weights of a plan, derived from its ops."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fewbit.formats.table import find_format
from fewbit.plan.plan import Op, Plan


def tensor_shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor: (rows, columns) or (experts, rows, columns).

    A vector has one row.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for op in plan.ops:
        shapes.update(zip(op.weights, weight_shapes(plan, op), strict=True))
    return shapes


def weight_shapes(plan: Plan, op: Op) -> Sequence[tuple[int, ...]]:
    """Return the shapes of the weights of one op."""
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
            # The result of an earlier product with experts has a row for each of them.
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


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) of a tensor stored row by row: a vector is one row, experts lie below others.

    >>> matrix_shape((7,)), matrix_shape((3, 7)), matrix_shape((2, 3, 7))
    ((1, 7), (3, 7), (6, 7))
    """
    return math.prod(shape[:-1]), shape[-1]


def tensor_bytes(shape: Sequence[int], format_: str) -> int:
    """The bytes of a tensor of this shape in a format."""
    rows, columns = matrix_shape(shape)
    return rows * find_format(format_).row_bytes(columns)

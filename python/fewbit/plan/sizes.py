"""How large a model is: weights, bytes, bits per weight, and what one token has to read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fewbit.formats.table import find_format
from fewbit.plan.plan import Op, Plan

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
    """The sizes of the tensors that `model`'s plan uses, each counted once."""
    return sizes_of(model.plan, model.formats)


def sizes_of(plan: Plan, formats: Mapping[str, str]) -> Sizes:
    """The sizes of the tensors that `plan` uses, stored in `formats`, each counted once.

    Of an embedding table a token reads one row, unless the table is the output layer too.
    """
    weights = total = read = 0
    shares = _shares(plan)
    for name, shape in tensor_shapes(plan).items():
        row_bytes, count = row_size(formats.get(name, "F32"), shape)
        weights += count * shape[-1]
        total += count * row_bytes
        read += int(count * row_bytes * shares[name]) if name in shares else row_bytes
    return Sizes(weights, total, read)


def row_size(format_: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """The bytes of a row of a tensor, and how many rows it has."""
    return find_format(format_).row_bytes(shape[-1]), math.prod(shape[:-1])


def share_of(plan: Plan, op: Op) -> float | None:
    """The share of its weights that `op` reads for a token; None where it reads a row of them."""
    if op.kind in ("embed", "embed_position"):
        return None
    if op.kind == "expert_linear":
        return plan.ops[op.inputs[1]].width / 2 / plan.config.experts
    return 1.0


def _shares(plan: Plan) -> dict[str, float]:
    """The share of each tensor that a token reads; tables of which it reads a row are not named."""
    shares: dict[str, float] = {}
    for op in plan.ops:
        if (share := share_of(plan, op)) is not None:
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

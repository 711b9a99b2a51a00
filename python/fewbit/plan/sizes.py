"""How large a model is: weights, bytes, bits per weight, and what one token has to read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fewbit.formats.table import find_format
from fewbit.plan.plan import Op, Plan
from fewbit.plan.shapes import tensor_shapes


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


def sizes_of(plan: Plan, formats: Mapping[str, str]) -> Sizes:
    """The sizes of the tensors that `plan` uses, stored in `formats`, each counted once.

    Of an embedding table a token reads one row, unless the table is the output layer too.
    """
    weights = total = read = 0
    fractions = _fractions(plan)
    for name, shape in tensor_shapes(plan).items():
        row_bytes, count = row_size(formats.get(name, "F32"), shape)
        weights += count * shape[-1]
        total += count * row_bytes
        read += int(count * row_bytes * fractions[name]) if name in fractions else row_bytes
    return Sizes(weights, total, read)


def row_size(format_: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """The bytes of a row of a tensor, and how many rows it has."""
    return find_format(format_).row_bytes(shape[-1]), math.prod(shape[:-1])


def fraction_read(plan: Plan, op: Op) -> float | None:
    """The fraction of its weights that `op` reads for a token; None where it reads one row."""
    if op.kind in ("embed", "embed_position"):
        return None
    if op.kind == "expert_linear":
        return plan.ops[op.inputs[1]].width / 2 / plan.config.experts
    return 1.0


def _fractions(plan: Plan) -> dict[str, float]:
    """The fraction of each tensor that a token reads, without tables that it reads a row of."""
    fractions: dict[str, float] = {}
    for op in plan.ops:
        if (fraction := fraction_read(plan, op)) is not None:
            fractions.update(dict.fromkeys(op.weights, fraction))
    return fractions

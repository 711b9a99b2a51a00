"""Size of a model: weights, bytes, bits per weight, and bytes that one token reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fewbit.formats.table import find_format
from fewbit.plan.plan import Op, Plan
from fewbit.plan.shapes import tensor_shapes


@dataclass(frozen=True)
class Sizes:
    """Size of a model: `weights` numbers in `bytes` bytes.

    Generating a token reads `bytes_per_token` of them.
    """

    weights: int
    bytes: int
    bytes_per_token: int

    @property
    def bits_per_weight(self) -> float:
        """Mean number of bits per weight, scales included."""
        return 8 * self.bytes / self.weights


def sizes_of(plan: Plan, formats: Mapping[str, str]) -> Sizes:
    """Return the size of the tensors of `plan`, stored in `formats`; each is counted once.

    A token reads one row of the embedding table, or all of it if it is the output matrix too.
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
    """Return the number of bytes of a row of a tensor, and its number of rows."""
    return find_format(format_).row_bytes(shape[-1]), math.prod(shape[:-1])


def fraction_read(plan: Plan, op: Op) -> float | None:
    """Return the fraction of its weights that `op` reads for a token; None if it reads one row."""
    if op.kind in ("embed", "embed_position"):
        return None
    if op.kind == "expert_linear":
        return plan.ops[op.inputs[1]].width / 2 / plan.config.experts
    return 1.0


def _fractions(plan: Plan) -> dict[str, float]:
    """The fraction of each tensor that a token reads, except tables that it reads a row of."""
    fractions: dict[str, float] = {}
    for op in plan.ops:
        if (fraction := fraction_read(plan, op)) is not None:
            fractions.update(dict.fromkeys(op.weights, fraction))
    return fractions

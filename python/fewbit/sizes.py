"""How large a model is: weights, bytes, bits per weight, and what one token has to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fewbit.formats import find_format
from fewbit.plan import Plan

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
    shapes = tensor_shapes(model.plan)
    linear = {name for op in model.plan.ops if op.kind != "embed" for name in op.weights}
    for name, (rows, columns) in shapes.items():
        row_bytes = find_format(model.formats.get(name, "F32")).row_bytes(columns)
        weights += rows * columns
        total += rows * row_bytes
        read += rows * row_bytes if name in linear else row_bytes
    return Sizes(weights, total, read)


def tensor_shapes(plan: Plan) -> dict[str, tuple[int, int]]:
    """(rows, columns) of each tensor of a plan; vectors have one row."""
    shapes: dict[str, tuple[int, int]] = {}
    for op in plan.ops:
        if op.kind == "embed":
            shapes[op.weights[0]] = (plan.config.vocab, op.width)
        elif op.kind == "linear":
            shapes[op.weights[0]] = (op.width, plan.ops[op.inputs[0]].width)
            shapes.update(dict.fromkeys(op.weights[1:], (1, op.width)))
        elif op.kind == "rms_norm":
            heads = dict(op.attributes)["heads"]
            assert isinstance(heads, int)
            shapes[op.weights[0]] = (1, op.width // heads)
    return shapes

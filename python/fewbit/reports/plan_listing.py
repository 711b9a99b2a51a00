"""List a plan for people: the result, inputs, weights and bytes of each op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fewbit.models import build_plan
from fewbit.plan.plan import Attribute, Plan, attribute_texts
from fewbit.plan.shapes import weight_shapes
from fewbit.plan.sizes import Sizes, fraction_read, row_size, sizes_of
from fewbit.tables import Page, Shown, Table

if TYPE_CHECKING:
    from fewbit.files.checkpoint import Checkpoint


@dataclass(frozen=True)
class Weight:
    """A tensor that an op reads; `shape` is (rows, columns) or (experts, rows, columns)."""

    name: str
    shape: tuple[int, ...]
    format: str
    bytes: int
    bytes_per_token: int


@dataclass(frozen=True)
class Step:
    """One op: it computes value `value`, [n, width], from earlier values and weights."""

    value: int
    op: str
    inputs: tuple[int, ...]
    weights: tuple[Weight, ...]
    attributes: dict[str, Attribute]
    width: int

    @property
    def bytes(self) -> int:
        """Bytes of its weights."""
        return sum(weight.bytes for weight in self.weights)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that one token reads: one row of an embedding, the routed experts."""
        return sum(weight.bytes_per_token for weight in self.weights)


@dataclass(frozen=True)
class Listing(Shown):
    """A model's plan; `sizes` counts a tensor that several ops name once."""

    path: str
    architecture: str
    steps: tuple[Step, ...]
    sizes: Sizes

    def page(self) -> Page:
        """As `fewbit inspect --plan` prints it."""
        return plan_page(self)


def list_plan(checkpoint: Checkpoint) -> Listing:
    """The plan that runs `checkpoint`, with the formats that its tensors have; reads no weights."""
    plan = build_plan(checkpoint.config)
    formats = {name: tensor.format for name, tensor in checkpoint.tensors.items()}
    steps = tuple(_step(plan, index, formats) for index in range(len(plan.ops)))
    return Listing(
        str(checkpoint.path), checkpoint.config.architecture, steps, sizes_of(plan, formats)
    )


def _step(plan: Plan, index: int, formats: dict[str, str]) -> Step:
    op = plan.ops[index]
    fraction = fraction_read(plan, op)
    weights = []
    for name, shape in zip(op.weights, weight_shapes(plan, op), strict=True):
        size, rows = row_size(formats[name], shape)
        read = size if fraction is None else int(rows * size * fraction)
        weights.append(Weight(name, shape, formats[name], rows * size, read))
    return Step(index, op.kind, op.inputs, tuple(weights), dict(op.attributes), op.width)


def plan_page(listing: Listing) -> Page:
    """A plan: one line per op, then what all its weights take."""
    table = Table(("value", "op", "of", "shape", "bytes", "bytes/token"), text=4, folds=3)
    for step in listing.steps:
        parts = [
            *(f"%{value}" for value in step.inputs),
            *(f"{w.name} ({' x '.join(map(str, w.shape))} {w.format})" for w in step.weights),
            *attribute_texts(step.attributes),
        ]
        sizes = (f"{size:,}" if size else "" for size in (step.bytes, step.bytes_per_token))
        table.add_row(
            f"%{step.value}", step.op, ", ".join(parts), f"[n, {step.width}]", *sizes
        )  # fmt: skip
    s = listing.sizes
    head = f"{listing.path}: {listing.architecture}, {len(listing.steps)} ops, for n new tokens"
    total = (
        f"{s.weights:,} weights in {s.bytes:,} bytes; a token reads "
        f"{s.bytes_per_token:,}; a tensor that several ops name counts once"
    )
    return [head, "", table, "", total]

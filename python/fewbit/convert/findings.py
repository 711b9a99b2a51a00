"""Findings of `fewbit verify`: differences from the source, impossible values, as a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fewbit.formats.table import find_format
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class Place:
    """Where a byte is: `byte` of a block's `field`, `offset` in the file.

    `row` counts through the matrices of all experts, `block` within its row; `column` is the
    block's first. In a float format a block is one value.
    """

    row: int
    block: int
    column: int
    field: str
    byte: int
    offset: int


@dataclass(frozen=True)
class Difference(Place):
    """A byte that is not the one that the source is encoded as.

    `number` names the stored number that the byte is part of, as `codes[5]`; None where the bytes
    differ only in unused bits. The values are those of the block.
    """

    found: int
    expected: int
    number: str | None
    found_number: float | None
    expected_number: float | None
    found_values: tuple[float, ...]
    expected_values: tuple[float, ...]


@dataclass(frozen=True)
class Impossible(Place):
    """A value that no encoder writes, the first of its kind in a tensor, and in how many blocks.

    `found` are the bytes of the number in hexadecimal, separated by spaces.
    """

    reason: str
    found: str
    blocks: int


@dataclass(frozen=True)
class TensorFindings:
    """A tensor of the file: `checked` of its `rows`, of `blocks` blocks each.

    `difference` is the first difference from the source, None if there is no source or none
    differs; `zero` is True if all values that were checked are zero. `piece` is the file of a split
    model that the tensor is in, None if the model is one file.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    rows: int
    checked: int
    blocks: int
    differing_rows: int
    differing_blocks: int
    difference: Difference | None
    impossible: tuple[Impossible, ...]
    zero: bool
    piece: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing differs and nothing is impossible."""
        return self.difference is None and not self.impossible


@dataclass(frozen=True)
class Padding:
    """Bytes outside of all tensors that are not zero: how many behind one tensor, and the first.

    `piece` is the file of a split model, None if the model is one file.
    """

    after: str
    offset: int
    found: int
    bytes: int
    piece: str | None = None


@dataclass(frozen=True)
class Verification(Shown):
    """The findings in a file, tensor by tensor; `source` is None where no source was given."""

    file: str
    source: str | None
    tensors: tuple[TensorFindings, ...]
    padding: tuple[Padding, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs and nothing is impossible in the whole file."""
        return not self.padding and all(tensor.ok for tensor in self.tensors)

    def page(self) -> Page:
        """A table by format, the first finding of each kind in each tensor, notes, the verdict."""
        details = [line for tensor in self.tensors for line in _tensor_lines(tensor)]
        details += [_padding_line(padding) for padding in self.padding]
        notes = [f"note: {note}" for note in self.notes]
        notes += [f"note: all values of {t.name} are zero" for t in self.tensors if t.zero]
        return [_totals(self), "", *details, *notes, _verdict(self)]


def _padding_line(padding: Padding) -> str:
    return (
        f"after {padding.after}: {padding.bytes:,} bytes that belong to no tensor are not zero, "
        f"the first 0x{padding.found:02x} at byte {padding.offset:,} of {_file(padding.piece)}\n"
    )


def _totals(found: Verification) -> Table:
    """A line for each format."""
    compared = found.source is not None
    columns = ("format", "tensors", "rows", "checked", *(["differing"] if compared else []))
    lines = Table((*columns, "impossible"))
    for name in dict.fromkeys(tensor.format for tensor in found.tensors):
        of_format = [tensor for tensor in found.tensors if tensor.format == name]
        differing = f"{sum(t.difference is not None for t in of_format)}"
        lines.add_row(
            name, str(len(of_format)), f"{sum(t.rows for t in of_format):,}",
            f"{sum(t.checked for t in of_format):,}", *([differing] if compared else []),
            str(sum(bool(t.impossible) for t in of_format)),
        )  # fmt: skip
    return lines


def _tensor_lines(tensor: TensorFindings) -> Iterator[str]:
    shape = " x ".join(map(str, tensor.shape))
    head = f"{tensor.name}  {tensor.format}  {shape}"
    if (first := tensor.difference) is not None:
        unit = "values" if find_format(tensor.format).is_float else "blocks"
        rows = f"{tensor.differing_rows:,} of {tensor.checked:,} rows"
        blocks = f"{tensor.differing_blocks:,} of {tensor.checked * tensor.blocks:,} {unit}"
        yield f"{head}: {rows} and {blocks} differ; the first:\n{_difference(tensor, first)}\n"
    for value in tensor.impossible:
        where = f"{_place(tensor, value)}\n  found bytes {value.found}\n"
        yield f"{head}: {value.reason}, in {_counted(tensor, value)}:\n{where}"


def _counted(tensor: TensorFindings, value: Impossible) -> str:
    unit = "value" if find_format(tensor.format).is_float else "block"
    return f"{value.blocks:,} {unit}{'s; the first' if value.blocks > 1 else ''}"


def _difference(tensor: TensorFindings, first: Difference) -> str:
    lines = [_place(tensor, first), f"  found 0x{first.found:02x}, expected 0x{first.expected:02x}"]
    if first.number is not None:
        what = "the value" if first.number == "values" else first.number
        lines[-1] += f": {what} is {_short(first.found_number)}, "
        lines[-1] += f"expected {_short(first.expected_number)}"
    pairs = zip(first.found_values, first.expected_values, strict=True)
    unequal = [(at, *pair) for at, pair in enumerate(pairs) if pair[0] != pair[1]]
    if unequal and len(first.found_values) > 1:
        at, found, expected = unequal[0]
        lines.append(
            f"  {len(unequal)} of its {len(first.found_values)} values differ, the first in column "
            f"{first.column + at:,}: {_short(found)}, expected {_short(expected)}"
        )
    return "\n".join(lines)


def _place(tensor: TensorFindings, at: Place) -> str:
    """Where a byte is, in words."""
    size = find_format(tensor.format).block
    row = f"row {at.row:,}"
    if len(tensor.shape) == 3:
        expert, inside = divmod(at.row, tensor.shape[1])
        row += f" (row {inside:,} of expert {expert})"
    if size == 1:
        return f"  {row}, column {at.column:,}, byte {at.offset:,} of {_file(tensor.piece)}"
    columns = f"columns {at.column:,} to {at.column + size - 1:,}"
    field = " and ".join(at.field.split())
    return (
        f"  {row}, block {at.block:,} ({columns}), {field}: "
        f"byte {at.byte} of the block, byte {at.offset:,} of {_file(tensor.piece)}"
    )


def _file(piece: str | None) -> str:
    return "the file" if piece is None else f"`{piece}`"


def _short(number: float | None) -> str:
    """An integer, or a float with as many digits as tell float32 values apart."""
    return f"{number:.9g}" if isinstance(number, float) else str(number)


def _verdict(found: Verification) -> str:
    """One line on the entire file."""
    differing = sum(tensor.difference is not None for tensor in found.tensors)
    damaged = sum(bool(tensor.impossible) for tensor in found.tensors)
    checked, rows = (sum(getattr(t, key) for t in found.tensors) for key in ("checked", "rows"))
    what = f"{found.file}: {checked:,} of {rows:,} rows of {_tensors(len(found.tensors))}"
    bad = [f"{_tensors(differing)} differ{'s' * (differing == 1)} from {found.source}"] * (
        differing > 0
    )
    bad += [f"{_tensors(damaged)} with impossible values"] * (damaged > 0)
    bad += ["stray bytes between tensors"] * bool(found.padding)
    if bad:
        return f"{what}: {', '.join(bad)}"
    equal = "" if found.source is None else f"equal to {found.source} encoded again, "
    return f"{what}: {equal}no impossible values"


def _tensors(count: int) -> str:
    return f"{count} tensor{'s' * (count != 1)}"

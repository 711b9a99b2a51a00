"""What `fewbit verify` found, for people: a line for each format, then each finding."""

from __future__ import annotations

from collections.abc import Iterator

from fewbit.convert.findings import (
    Difference,
    Impossible,
    Place,
    TensorFindings,
    Verification,
)
from fewbit.formats.table import find_format
from fewbit.reports.tables import plain_table


def verification_lines(found: Verification) -> list[object]:
    """A table by format, the first finding of each kind in each tensor, notes and the verdict."""
    details = [line for tensor in found.tensors for line in _tensor_lines(tensor)]
    details += [
        f"after {pad.after}: {pad.bytes:,} bytes that belong to no tensor are not zero, "
        f"the first 0x{pad.found:02x} at byte {pad.offset:,} of the file\n"
        for pad in found.padding
    ]
    notes = [f"note: {note}" for note in found.notes]
    zeros = [tensor.name for tensor in found.tensors if tensor.zero]
    notes += [f"note: all values of {name} are zero" for name in zeros]
    return [_totals(found), "", *details, *notes, _verdict(found)]


def _totals(found: Verification) -> object:
    """A line for each format."""
    compared = found.source is not None
    columns = ("format", "tensors", "rows", "checked", *(["differing"] if compared else []))
    lines = plain_table(*columns, "impossible")
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
    if first.number is not None and first.number != "values":
        lines[-1] += f": {first.number} is {_short(first.found_number)}, expected "
        lines[-1] += _short(first.expected_number)
    pairs = zip(first.found_values, first.expected_values, strict=True)
    unequal = [(at, *pair) for at, pair in enumerate(pairs) if pair[0] != pair[1]]
    if unequal:
        at, found, expected = unequal[0]
        lines.append(
            f"  {len(unequal)} of its {len(first.found_values)} values differ, the first in column "
            f"{first.column + at}: {_short(found)}, expected {_short(expected)}"
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
        return f"  {row}, column {at.column:,}, byte {at.offset:,} of the file"
    columns = f"columns {at.column:,} to {at.column + size - 1:,}"
    field = " and ".join(at.field.split())
    return (
        f"  {row}, block {at.block:,} ({columns}), {field}: "
        f"byte {at.byte} of the block, byte {at.offset:,} of the file"
    )


def _short(number: float | None) -> str:
    return f"{number:.6g}" if isinstance(number, float) else str(number)


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

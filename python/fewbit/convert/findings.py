"""What `fewbit verify` finds in a file: differences from its source, and impossible values."""

from __future__ import annotations

from dataclasses import dataclass


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
    differs; `zero` is True if all values that were checked are zero.
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

    @property
    def ok(self) -> bool:
        """Whether nothing differs and nothing is impossible."""
        return self.difference is None and not self.impossible


@dataclass(frozen=True)
class Padding:
    """Bytes outside of all tensors that are not zero: how many behind one tensor, and the first."""

    after: str
    offset: int
    found: int
    bytes: int


@dataclass(frozen=True)
class Verification:
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

"""A weight matrix as stored: its bytes in a format, decoded by row, by column and by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from reference.formats import decode_row, encode_row, groups_of, is_float, row_bytes
from reference.legacy import Group


@dataclass(frozen=True)
class Weight:
    """A matrix [rows, columns] in a format of formats.py; a vector is a matrix of one row.

    Raises ValueError if `data` has the wrong length.

    >>> w = Weight.of([[1.0, 2.0], [3.0, 4.0]], "F16")
    >>> w.row(1), w.values, w.by_column
    ([3.0, 4.0], [[1.0, 2.0], [3.0, 4.0]], [(1.0, 3.0), (2.0, 4.0)])
    """

    format: str
    rows: int
    columns: int
    data: bytes

    def __post_init__(self) -> None:
        expected = self.rows * row_bytes(self.format, self.columns)
        if len(self.data) != expected:
            raise ValueError(
                f"{self.rows} x {self.columns} of {self.format} take {expected} bytes, "
                f"found {len(self.data)}"
            )

    @staticmethod
    def of(values: Sequence[Sequence[float]], name: str = "F32") -> Weight:
        """Encode rows of f32 values."""
        data = b"".join(encode_row(row, name) for row in values)
        return Weight(name, len(values), len(values[0]), data)

    def row(self, index: int) -> list[float]:
        """Return the f32 values of a row."""
        return decode_row(self._bytes(index), self.format, self.columns)

    @cached_property
    def values(self) -> list[list[float]]:
        """The f32 values of all rows, [rows][columns]."""
        return [self.row(index) for index in range(self.rows)]

    @cached_property
    def by_column(self) -> list[tuple[float, ...]]:
        """The f32 values transposed, [columns][rows]."""
        return list(zip(*self.values, strict=True))

    @cached_property
    def groups(self) -> list[tuple[Group, ...]]:
        """The groups of all rows, [groups][rows]; for formats that are not floats."""
        rows = [
            groups_of(self._bytes(index), self.format, self.columns) for index in range(self.rows)
        ]
        return list(zip(*rows, strict=True))

    @cached_property
    def takes_int8(self) -> bool:
        """Whether products round their activations to 8 bits.

        True for integer formats with groups of 16 columns or of a multiple of 32.
        """
        if is_float(self.format):
            return False
        name, _, group = self.format.partition("-g")
        size = int(group) if group else len(groups_of(self._bytes(0), name, self.columns)[0].levels)
        return size == 16 or size % 32 == 0

    @cached_property
    def activation_group(self) -> int:
        """Columns whose rounded activations share a scale: 256 with integer scales, else 32."""
        return 32 if self.groups[0][0].integer_scales is None else 256

    @cached_property
    def takes_bf16(self) -> bool:
        """Whether products round their activations to bfloat16.

        True for BF16 weights that are all 0 or at least 2^-54 in size (see `linear.product_bf16`).
        """
        return self.format == "BF16" and all(
            v == 0 or abs(v) >= 2.0**-54 for row in self.values for v in row
        )

    def _bytes(self, index: int) -> bytes:
        size = row_bytes(self.format, self.columns)
        return self.data[index * size : (index + 1) * size]

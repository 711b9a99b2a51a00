"""Number formats that tensors are stored in: the core's table, and the affine family."""

from __future__ import annotations

from dataclasses import dataclass

from fewbit import _core
from fewbit.errors import FormatError, ShapeError


@dataclass(frozen=True)
class Format:
    """A way to store numbers: `block` elements in `bytes` bytes.

    `gguf_id` is ggml's type number, None for formats that GGUF does not have. `scale_group` columns
    share a scale of the weights (None for floats), to which `has_minimum` adds an offset.
    `activation_group` columns share a scale of activations rounded to int8, None where the product
    takes floats. `larger_than_file`: the CPU's fast layout takes more bytes than the file.
    """

    name: str
    family: str
    block: int
    bytes: int
    gguf_id: int | None
    scale_group: int | None
    has_minimum: bool
    activation_group: int | None
    larger_than_file: bool

    @property
    def bits_per_weight(self) -> float:
        """Bits that one element of a whole block takes, scales included."""
        return 8 * self.bytes / self.block

    @property
    def is_float(self) -> bool:
        """Whether every element is stored by itself, as a float."""
        return self.family == "floats"

    def row_bytes(self, columns: int) -> int:
        """The bytes of one row; a block never crosses rows.

        Raises:
            ShapeError: a block does not divide the row.

        """
        if self.family == "affine":  # the last group of a row may be short: padded with zeros
            return -(-columns // self.block) * self.bytes
        if columns % self.block:
            raise ShapeError(
                f"cannot store rows of {columns} elements as {self.name}: "
                f"not a multiple of {self.block}",
                hint="Q8_0, Q4_0 and their kin need multiples of 32, F16 any row length",
                format=self.name,
                columns=columns,
            )
        return columns // self.block * self.bytes


def _format(info: _core.FormatInfo) -> Format:
    return Format(
        info.name,
        info.family,
        info.block,
        info.bytes,
        info.gguf_id,
        info.scale_group,
        info.has_minimum,
        info.activation_group,
        info.larger_than_file,
    )


FORMATS: dict[str, Format] = {info.name: _format(info) for info in _core.formats()}
BY_GGUF_ID: dict[int, Format] = {f.gguf_id: f for f in FORMATS.values() if f.gguf_id is not None}


def find_format(name: str) -> Format:
    """The format called `name`, in any letter case.

    Besides the table there is the affine family, any width 1-8 at any group size, written
    ``sym4-g32`` (symmetric, 4 bits, one f32 scale per 32) or ``asym8-g64`` (asymmetric: an f32
    scale and an 8-bit zero per 64); codes are packed without gaps, a group ends on a byte.

    Raises:
        FormatError: there is no such format.

    """
    if found := FORMATS.get(name.upper()):
        return found
    try:
        return _format(_core.find_format(name))
    except FormatError as error:
        raise FormatError(error.message, hint=error.hint, format=name) from None

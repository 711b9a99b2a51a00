"""Number formats that tensors are stored in: name, block size, bytes, and GGUF type number."""

from __future__ import annotations

from dataclasses import dataclass

from fewbit import _core
from fewbit.errors import FormatError, ShapeError, did_you_mean


@dataclass(frozen=True)
class Format:
    """A number format: `block` elements are stored in `bytes` bytes.

    `family` is "floats", "legacy", "k", "codebook", "grid", "ternary" or "affine". `gguf_id` is
    ggml's type number, None for formats that GGUF does not have. `scale_group` columns share a
    scale of the weights (None for floats), to which `has_minimum` adds an offset.
    `activation_group` columns share a scale of activations rounded to int8, None if the product
    takes floats. `larger_than_file` is True if the CPU's fast layout takes more bytes than a file.
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
        """Bits per element of a full block, scales included."""
        return 8 * self.bytes / self.block

    @property
    def is_float(self) -> bool:
        """True if every element is stored as a float of its own."""
        return self.family == "floats"

    def row_bytes(self, columns: int) -> int:
        """Number of bytes of a row of `columns` elements; blocks never cross rows.

        Raises:
            ShapeError: `columns` is not a multiple of `block`. Affine formats pad the last block.

        """
        if self.family == "affine":  # the last group of a row may be short; zero bits pad it
            return -(-columns // self.block) * self.bytes
        if columns % self.block:
            raise ShapeError(
                f"cannot store rows of {columns} elements as {self.name}: "
                f"not a multiple of {self.block}",
                hint="Q8_0, Q4_0, Q5_0 and IQ4_NL need multiples of 32; F16 and affine formats "
                "(asym4-g32) take any length",
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
"""The formats of GGUF by name; the core has the table."""
BY_GGUF_ID: dict[int, Format] = {f.gguf_id: f for f in FORMATS.values() if f.gguf_id is not None}
AFFINE_NAMES = "and sym1..8-gN, asym1..8-gN as in asym4-g32"
"""Names of the affine family, as hints list them."""


def find_format(name: str) -> Format:
    """Find a format by its name, in any letter case.

    Names are those in `FORMATS`, and those of the affine family: 1 to 8 bits at any group size up
    to 65,536, as ``sym4-g32`` (symmetric, 4 bits, one f32 scale per 32 elements) or ``asym8-g64``
    (asymmetric: an f32 scale and an 8-bit zero point per 64). Affine codes are packed without gaps
    and every group ends on a byte.

    Raises:
        FormatError: the format is unknown.

    """
    if found := FORMATS.get(name.upper()):
        return found
    try:
        return _format(_core.find_format(name))
    except FormatError:
        raise FormatError(
            f"unknown format `{name}`",
            hint=f"{did_you_mean(name, FORMATS)}known: {', '.join(FORMATS)}, {AFFINE_NAMES}",
            format=name,
        ) from None

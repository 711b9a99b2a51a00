"""The table of number formats that tensors are stored in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fewbit.errors import FormatError, ShapeError


@dataclass(frozen=True)
class Format:
    """A way to store numbers: `block` elements in `bytes` bytes.

    `gguf_id` is ggml's type number, None for formats that GGUF does not have.
    """

    name: str
    family: str
    block: int
    bytes: int
    gguf_id: int | None = None

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


_TABLE = (
    Format("F32", "floats", 1, 4, 0),
    Format("F16", "floats", 1, 2, 1),
    Format("BF16", "floats", 1, 2, 30),
    Format("Q1_0", "legacy", 128, 18, 41),
    Format("Q2_0", "legacy", 64, 18, 42),
    Format("Q4_0", "legacy", 32, 18, 2),
    Format("Q4_1", "legacy", 32, 20, 3),
    Format("Q5_0", "legacy", 32, 22, 6),
    Format("Q5_1", "legacy", 32, 24, 7),
    Format("Q8_0", "legacy", 32, 34, 8),
    Format("Q2_K", "k", 256, 84, 10),
    Format("Q3_K", "k", 256, 110, 11),
    Format("Q4_K", "k", 256, 144, 12),
    Format("Q5_K", "k", 256, 176, 13),
    Format("Q6_K", "k", 256, 210, 14),
    Format("IQ4_NL", "codebook", 32, 18, 20),
    Format("IQ4_XS", "codebook", 256, 136, 23),
    Format("MXFP4", "codebook", 32, 17, 39),
    Format("NVFP4", "codebook", 64, 36, 40),
    Format("IQ1_S", "grid", 256, 50, 19),
    Format("IQ1_M", "grid", 256, 56, 29),
    Format("IQ2_XXS", "grid", 256, 66, 16),
    Format("IQ2_XS", "grid", 256, 74, 17),
    Format("IQ2_S", "grid", 256, 82, 22),
    Format("IQ3_XXS", "grid", 256, 98, 18),
    Format("IQ3_S", "grid", 256, 110, 21),
    Format("TQ1_0", "ternary", 256, 54, 34),
    Format("TQ2_0", "ternary", 256, 66, 35),
)
FORMATS: dict[str, Format] = {f.name: f for f in _TABLE}
BY_GGUF_ID: dict[int, Format] = {f.gguf_id: f for f in _TABLE if f.gguf_id is not None}

_AFFINE = re.compile(r"(sym|asym)([1-8])-g([1-9][0-9]*)")
MAX_GROUP = 1 << 16


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
    if (match := _AFFINE.fullmatch(name.lower())) and int(match[3]) <= MAX_GROUP:
        kind, bits, group = match[1], int(match[2]), int(match[3])
        size = -(-bits * group // 8) + (4 if kind == "sym" else 5)
        return Format(match[0], "affine", group, size)
    raise FormatError(
        f"unknown format `{name}`",
        hint=f"known: {', '.join(FORMATS)}, and sym1..8-gN, asym1..8-gN as in asym4-g32",
        format=name,
    )

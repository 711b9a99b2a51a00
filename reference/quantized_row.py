"""A row of codes and scales that can be changed: what error feedback and descent work on.

`read_row` takes the bytes that an encoder wrote apart. A column's value is, in f32,

    value = scale * level + minimum

with one of the format's levels; a group of columns shares scale and minimum. How these may change
depends on `kind`: each format stores them in its own way.
"""

from __future__ import annotations

import bisect
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from reference.codebook import T
from reference.f32 import f32
from reference.formats import groups_of, row_bytes
from reference.k import UNPACK
from reference.legacy import from_f16

FP4 = (-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12)
"""Twice the values of a float of 1 + 2 + 1 bits."""

LEVELS = {
    "Q4_0": range(-8, 8), "Q4_1": range(16), "Q5_0": range(-16, 16), "Q5_1": range(32),
    "Q8_0": range(-127, 128), "Q2_K": range(4), "Q3_K": range(-4, 4), "Q4_K": range(16),
    "Q5_K": range(32), "Q6_K": range(-32, 32), "IQ4_NL": T, "IQ4_XS": T,
    "MXFP4": FP4, "NVFP4": FP4,
}  # fmt: skip
"""The levels that an encoder writes, in ascending order."""

INTEGERS = {
    "Q2_K": (0, 15, 15), "Q3_K": (-32, 31, 0), "Q4_K": (0, 63, 63), "Q5_K": (0, 63, 63),
    "Q6_K": (-128, 127, 0), "IQ4_XS": (-32, 31, 0),
}  # fmt: skip
"""Per format with integer scales: the lowest and the highest scale, the highest minimum."""

_AFFINE = re.compile(r"(sym|asym)([1-8])-g([1-9][0-9]*)")


@dataclass
class QuantizedRow:
    """The levels of a row's columns, and its scales by group; super-blocks have `d` and `dmin`."""

    kind: str
    """"f16", "f16 and minimum", "f32", "zero point", "integers", "power" or "float8"."""
    choices: Sequence[int]
    group: int
    levels: list[int]
    scales: list[float]
    minima: list[float]
    steps: list[int] = field(default_factory=list)
    """The integers of scales, or the bytes that stand for them."""
    lows: list[int] = field(default_factory=list)
    """The integers of minima, or zero points."""
    d: list[float] = field(default_factory=list)
    dmin: list[float] = field(default_factory=list)
    limits: tuple[int, int, int] = (0, 0, 0)

    def value(self, j: int) -> float:
        """Return the value of column j as a decoder computes it.

        >>> QuantizedRow("f16", range(-8, 8), 2, [3, -1], [0.5], [0.0]).value(0)
        1.5
        """
        k = j // self.group
        return f32(f32(self.scales[k] * self.levels[j]) + self.minima[k])

    def nearest(self, target: float, k: int) -> int:
        """Return the level of group k next to the target; of two as near the even integer.

        In a table of levels it is the upper one.

        >>> row = QuantizedRow("f16", range(-8, 8), 2, [3, -1], [0.5], [0.0])
        >>> row.nearest(0.75, 0), row.nearest(99.0, 0)
        (2, 7)
        """
        x = (target - self.minima[k]) / self.scales[k]
        if all(b - a == 1 for a, b in pairwise(self.choices)):
            return round(min(max(x, self.choices[0]), self.choices[-1]))
        middles = [(a + b) / 2 for a, b in pairwise(self.choices)]
        return self.choices[bisect.bisect_right(middles, x)]


def read_row(data: bytes, name: str, columns: int) -> QuantizedRow:
    """Take the bytes of a row apart.

    >>> read_row(bytes.fromhex("003c") + bytes([0x98] * 16), "Q4_0", 32).levels[::16]
    [0, 1]
    """
    groups = groups_of(data, name, columns)
    row = QuantizedRow(
        _kind(name),
        LEVELS.get(name, ()),
        len(groups[0].levels),
        [level for group in groups for level in group.levels],
        [group.scale for group in groups],
        [group.minimum or 0.0 for group in groups],
    )
    if match := _AFFINE.fullmatch(name):
        bits, size = int(match[2]), row_bytes(name, row.group)
        middle = (1 << bits - 1) - 1
        symmetric = range(-middle, middle + 1) if bits > 1 else (-1, 1)
        row.choices = range(1 << bits) if match[1] == "asym" else symmetric
        row.limits = (0, 0, (1 << bits) - 1)
        row.lows = [data[i + 4] for i in range(0, len(data), size)]
    elif name in INTEGERS:
        row.limits = INTEGERS[name]
        _read_integers(row, data, name, columns)
    elif name == "MXFP4":
        row.steps = list(data[::17])
    elif name == "NVFP4":
        row.steps = [data[i + k] for i in range(0, len(data), 36) for k in range(4)]
    return row


def _kind(name: str) -> str:
    if name in INTEGERS:
        return "integers"
    if match := _AFFINE.fullmatch(name):
        return {"sym": "f32", "asym": "zero point"}[match[1]]
    if name in ("Q4_1", "Q5_1"):
        return "f16 and minimum"
    return {"MXFP4": "power", "NVFP4": "float8"}.get(name, "f16")


def _read_integers(row: QuantizedRow, data: bytes, name: str, columns: int) -> None:
    """Fill in the integers of super-blocks of 256 columns."""
    size = row_bytes(name, 256)
    for block in range(0, columns // 256 * size, size):
        bytes_ = data[block : block + size]
        if name == "IQ4_XS":
            high = struct.unpack_from("<H", bytes_, 2)[0]
            row.d.append(from_f16(bytes_[:2]))
            row.dmin.append(0.0)
            nibbles = [bytes_[4 + k // 2] >> (4 * (k % 2)) & 15 for k in range(8)]
            row.steps += [low | (high >> 2 * k & 3) << 4 for k, low in enumerate(nibbles)]
            row.steps[-8:] = [step - 32 for step in row.steps[-8:]]
            row.lows += [0] * 8
            continue
        unpack, _, zero, _ = UNPACK[name]
        s = unpack(bytes_)
        row.d.append(s.d)
        row.dmin.append(s.dmin)
        row.steps += [scale - zero for scale in s.scales]
        row.lows += s.minima or [0] * len(s.scales)

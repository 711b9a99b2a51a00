"""Encode and decode rows of weights in any format, by name.

encode_row(x, "Q4_K")              the bytes of a row of f32 values
decode_row(data, "Q4_K", columns)  the f32 values of these bytes
groups_of(data, "Q4_K", columns)   the same values as integer levels with a scale and a minimum
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections.abc import Sequence
from itertools import repeat
from operator import add, mul

from reference import affine
from reference.blocks import BLOCKS
from reference.f32 import f32s
from reference.floats import BFLOAT16, FLOAT16, FloatFormat, decode, encode
from reference.legacy import Group, row_weights

Row = Sequence[float]
FLOAT_ROWS: dict[str, FloatFormat] = {"F16": FLOAT16, "BF16": BFLOAT16}
"""Formats that store each element as a float of 16 bits; F32 is handled separately."""

_AFFINE = re.compile(r"(sym|asym)([1-8])-g([1-9][0-9]*)")


def is_float(name: str) -> bool:
    """Return whether the format stores each element as a float of its own.

    >>> is_float("BF16"), is_float("Q8_0")
    (True, False)
    """
    return name == "F32" or name in FLOAT_ROWS


def row_bytes(name: str, columns: int) -> int:
    """Bytes of a row of `columns` elements.

    >>> row_bytes("Q4_K", 512), row_bytes("F16", 3), row_bytes("asym4-g32", 40)
    (288, 6, 42)
    """
    if is_float(name):
        return columns * (4 if name == "F32" else 2)
    if match := _AFFINE.fullmatch(name):
        kind, bits, group = match[1], int(match[2]), int(match[3])
        return math.ceil(columns / group) * affine.group_bytes(kind, bits, group)
    return count_blocks(name, columns) * BLOCKS[name].bytes


def count_blocks(name: str, columns: int) -> int:
    """Return the number of blocks in a row; ValueError unless blocks fill the row exactly.

    >>> count_blocks("Q8_0", 33)
    Traceback (most recent call last):
    ValueError: a row of 33 elements does not divide into Q8_0 blocks of 32
    """
    block = BLOCKS[name].block
    if columns % block:
        raise ValueError(
            f"a row of {columns} elements does not divide into {name} blocks of {block}"
        )
    return columns // block


def encode_row(x: Row, name: str, importance: Row | None = None) -> bytes:
    """Encode a row of f32 values; `importance` weighs the squared error of each column.

    Raises ValueError for a value that is not finite, and without importance for formats that need
    it.

    >>> encode_row([1.0, -2.0], "F16").hex(), encode_row([1.0, 0.25], "sym3-g2").hex()
    ('003c00c0', 'abaaaa3e26')
    >>> encode_row([1.0, math.nan], "F16")
    Traceback (most recent call last):
    ValueError: cannot store nan at column 1
    """
    for column, v in enumerate(x):
        if not math.isfinite(v):
            raise ValueError(f"cannot store {v} at column {column}")
    if name == "F32":
        return struct.pack(f"<{len(x)}f", *x)
    if f := FLOAT_ROWS.get(name):
        return b"".join(encode(v, f).to_bytes(2, "little") for v in x)
    if match := _AFFINE.fullmatch(name):
        kind, bits, group = match[1], int(match[2]), int(match[3])
        starts = range(0, len(x), group)
        return b"".join(affine.encode_group(x[s : s + group], kind, bits, group) for s in starts)
    return _encode_blocks(x, name, importance)


def _encode_blocks(x: Row, name: str, w: Row | None) -> bytes:
    f = BLOCKS[name]
    if w is None and f.needs_importance:
        raise ValueError(f"{name} needs importance weights")
    if w is not None and f.row_mean:
        w = row_weights(x, w)
    starts = range(0, count_blocks(name, len(x)) * f.block, f.block)
    return b"".join(
        f.encode(x[s : s + f.block], None if w is None else w[s : s + f.block]) for s in starts
    )


def groups_of(data: bytes, name: str, columns: int) -> list[Group]:
    """Decode a row to groups of integer levels: value = scale * level (+ minimum).

    >>> [group[:3] for group in groups_of(encode_row([1.0, 0.25], "sym3-g2"), "sym3-g2", 2)]
    [([3, 1], 0.3333333432674408, None)]
    """
    if match := _AFFINE.fullmatch(name):
        kind, bits, group = match[1], int(match[2]), int(match[3])
        size = affine.group_bytes(kind, bits, group)
        return [
            affine.group_of(data[j * size : (j + 1) * size], kind, bits, min(group, columns - s))
            for j, s in enumerate(range(0, columns, group))
        ]
    f = BLOCKS[name]
    starts = range(0, len(data), f.bytes)
    return [g for s in starts for g in f.groups(data[s : s + f.bytes])]


def decode_row(data: bytes, name: str, columns: int) -> list[float]:
    """Decode a row to f32 values: scale * level, rounded (+ minimum, rounded).

    Raises ValueError if `data` has the wrong length.

    >>> decode_row(bytes.fromhex("003c00c0"), "F16", 2)
    [1.0, -2.0]
    """
    if len(data) != row_bytes(name, columns):
        raise ValueError(f"{columns} elements of {name} are not {len(data)} bytes")
    if name == "F32":
        return list(struct.unpack(f"<{columns}f", data))
    if f := FLOAT_ROWS.get(name):
        return [decode(code, f) for code in struct.unpack(f"<{columns}H", data)]
    values: list[float] = []
    for g in groups_of(data, name, columns):
        scaled = array("f", map(mul, repeat(g.scale), g.levels))
        if g.minimum is None:
            values += scaled
        else:
            values += f32s(map(add, scaled, repeat(g.minimum)))
    return values

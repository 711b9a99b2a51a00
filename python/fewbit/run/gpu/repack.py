"""Repacks quantized blocks into arrays of 32-bit words, the smallest unit that WGSL loads.

Blocks of 18 or 34 bytes are not aligned to words. Each block is therefore split into a header of 1,
2 or 4 bytes (its scale in most formats) and codes that fill words. Headers and codes go to separate
arrays; their bytes and their total size do not change. The shader of a format's family documents
the order of the words.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import ShapeError, UnsupportedError
from fewbit.formats.table import Format, find_format

Bytes = NDArray[np.uint8]

HEADERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "Q1_0", "Q2_0", "IQ4_NL"), (0, 2)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K", "IQ4_XS", "NVFP4"), (0, 4)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"), (0, 2)),
    "Q2_K": (80, 4),
    "Q3_K": (108, 2),
    "Q6_K": (208, 2),
    "TQ1_0": (52, 2),
    "TQ2_0": (64, 2),
    "MXFP4": (0, 1),
    "IQ1_M": (0, 0),
}
"""Offset and size in bytes of a block's header."""


@dataclass(frozen=True)
class Packed:
    """A matrix for the shader of its format: arrays by binding number, constants by name."""

    file: str
    arrays: dict[int, Bytes]
    constants: dict[str, float] = field(default_factory=dict)


def repack(format_: str, rows: int, columns: int, data: Bytes) -> Packed:
    """Repack `data`, uint8 [rows, row bytes], for the GPU.

    Raises:
        ShapeError: the number of columns is not a multiple of 4.
        UnsupportedError: the groups of an affine format are not a multiple of 4 columns.

    """
    found = check_matrix(format_, columns)
    if found.family == "affine":
        return _affine(found, rows, columns, data)
    shape: dict[str, float] = {"ROWS": rows, "COLUMNS": columns, "FORMAT": found.gguf_id or 0}
    if found.is_float:
        return Packed("floats", {0: data.reshape(-1)}, shape)
    start, size = HEADERS[found.name]
    blocks = data.reshape(-1, found.bytes)
    codes = blocks
    if size:
        codes = np.concatenate([blocks[:, :start], blocks[:, start + size :]], axis=1)
    arrays = {0: codes.reshape(-1), 1: blocks[:, start : start + size].reshape(-1)}
    if found.family == "grid":
        arrays[2] = grid(found.name)
    shape |= {
        "BLOCK": found.block, "WORDS": (found.bytes - size) // 4,
        "SCALE_GROUP": 16 if found.scale_group == 16 else 32,
        "HAS_MINIMUM": found.has_minimum,
    }  # fmt: skip
    return Packed(found.family, arrays, shape)


def check_matrix(format_: str, columns: int) -> Format:
    """The format, if `repack` supports it with this number of columns.

    Raises:
        ShapeError: the number of columns is not a multiple of 4.
        UnsupportedError: the groups of an affine format are not a multiple of 4 columns.

    """
    found = find_format(format_)
    if columns % 4:
        raise ShapeError(
            f"the GPU executor takes rows of a multiple of 4 elements, found {columns}",
            hint="use `--device cpu`",
            columns=columns,
        )
    if found.family == "affine" and found.block % 4:
        raise UnsupportedError(
            f"the GPU executor has no {found.name}: groups must be a multiple of 4",
            hint="use `--device cpu`",
            format=found.name,
        )
    return found


def _affine(found: Format, rows: int, columns: int, data: Bytes) -> Packed:
    symmetric = found.name.startswith("sym")
    header = 4 if symmetric else 5
    groups = data.reshape(-1, found.bytes)
    scales, zeros = groups[:, :4].reshape(-1), groups[:, 4:header].reshape(-1)
    padding = np.zeros(4, np.uint8)  # the shader may read the word after the last codes
    arrays = {
        0: np.concatenate([groups[:, header:].reshape(-1), padding]),
        1: np.concatenate([scales, zeros]),
    }
    constants: dict[str, float] = {
        "ROWS": rows,
        "COLUMNS": columns,
        "BLOCK": found.block,
        "BYTES": found.bytes - header,
        "BITS": int(found.name.removeprefix("a").removeprefix("sym").split("-")[0]),
        "SYMMETRIC": symmetric,
        "SCALE_GROUP": min(found.block, 32),
        "HAS_MINIMUM": not symmetric,
    }
    return Packed("affine", arrays, constants)


def grid(name: str) -> Bytes:
    """The grid points of an IQ format: a byte per magnitude, for IQ1 8 g + 16.

    They come from the decoder: it decodes blocks that hold every index in turn, with scale 1.
    """
    blocks, scale = _every_index(name)
    values = _core.decode(blocks, name, 256) * scale
    if name.startswith("IQ1"):
        values = values - 1 + 16
    return values.astype(np.uint8).reshape(-1)


def _every_index(name: str) -> tuple[Bytes, float]:
    """Blocks with indices 0, 1, 2, ..., no signs, d = 1 and scales 0; and 1 / their scale."""
    per_byte = 64 if name.startswith("IQ3") else 32
    bits = {"IQ2_XXS": 8, "IQ2_XS": 9, "IQ2_S": 10, "IQ3_XXS": 8, "IQ3_S": 9}.get(name, 11)
    index = np.arange(1 << bits, dtype=np.uint16).reshape(-1, per_byte)
    low, high = (index & 255).astype(np.uint8), (index >> 8).astype(np.uint8)
    blocks = np.zeros((len(index), find_format(name).bytes), np.uint8)
    if name == "IQ1_M":
        blocks[:, :32], blocks[:, 32:48] = low, high[:, ::2] | high[:, 1::2] << 4
        blocks[:, 53], blocks[:, 55] = 0xC0, 0x30  # d = 0x3c00, four bits in every second byte
        return blocks, 8.0
    blocks[:, 1] = 0x3C
    match name:
        case "IQ2_XXS":
            blocks[:, 2:].reshape(-1, 8, 8)[:, :, :4] = low.reshape(-1, 8, 4)
        case "IQ2_XS":
            blocks[:, 2:66] = index.view(np.uint8)
        case "IQ2_S":
            blocks[:, 2:34], blocks[:, 66:74] = low, _packed(high, 2)
        case "IQ3_XXS":
            blocks[:, 2:66] = low
        case "IQ3_S":
            blocks[:, 2:66], blocks[:, 66:74] = low, _packed(high, 1)
        case _:
            blocks[:, 2:34] = low
            threes = sum(high[:, k::4].astype(np.uint16) << 3 * k for k in range(4))
            blocks[:, 34:50] = np.ascontiguousarray(threes).view(np.uint8)
    return blocks, {"IQ3_XXS": 4.0, "IQ3_S": 1.0}.get(name, 8.0)


def _packed(codes: Bytes, bits: int) -> Bytes:
    per_byte = 8 // bits
    fields = [codes[:, k::per_byte] << bits * k for k in range(per_byte)]
    joined: Bytes = np.bitwise_or.reduce(fields)
    return joined

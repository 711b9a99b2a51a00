"""IQ1_S IQ1_M: super-blocks of 256 weights, an index for 8 values -1, 0, 1 plus a shift of 1/8.

    IQ1_S  50 bytes  d; 32 low bytes of indices;
                     8 times: the high 3 bits of 4 indices, a scale of 3, a shift of 1
    IQ1_M  56 bytes  32 low bytes of indices; 32 times: 3 high bits of an index, a shift;
                     4 times: 4 scales of 3 bits, 4 bits of d

    value = d * (2 scale + 1) * (g + 1/8), or g - 1/8 where the shift's bit is set

The index names a point of the grid IQ1 in grids.txt, and g is one of its 8 values. A scale belongs
to 32 elements, in IQ1_M to 16; a shift to 32, in IQ1_M to 8. d is f16. This file packs, unpacks and
decodes; iq1_encode.py encodes. Source: `dequantize_row_iq1_s` and `dequantize_row_iq1_m` in
llama.cpp's ggml-quants.c.
"""

from __future__ import annotations

from typing import NamedTuple

from reference.bits import pack, unpack
from reference.f32 import f32
from reference.grids import GRIDS
from reference.legacy import Group, IntegerScales, from_f16, to_f16


class Super(NamedTuple):
    """The content of a super-block: super-scale, scales 0..7, shifts, grid indices.

    Every 8 elements have an index and a shift: 0 adds 1/8, 1 subtracts it.
    """

    d: float
    scales: list[int]
    shifts: list[int]
    indices: list[int]


def pack_iq1_s(s: Super) -> bytes:
    """Pack the 50 bytes of IQ1_S, which stores every fourth shift.

    >>> pack_iq1_s(Super(1.0, [6] * 8, [1] * 32, [2047, 0, 0, 1] * 8))[-2:].hex()
    '07e0'
    """
    words = []
    for k, scale in enumerate(s.scales):
        high = pack([i >> 8 for i in s.indices[4 * k : 4 * k + 4]], 3)
        words.append(int.from_bytes(high, "little") | scale << 12 | s.shifts[4 * k] << 15)
    return to_f16(s.d) + bytes(i & 255 for i in s.indices) + pack(words, 16)


def unpack_iq1_s(data: bytes) -> Super:
    """Unpack IQ1_S: the inverse of `pack_iq1_s`."""
    words = unpack(data[34:], 16, 8)
    high = [word >> 3 * k & 7 for word in words for k in range(4)]
    indices = [a | b << 8 for a, b in zip(data[2:34], high, strict=True)]
    shifts = [word >> 15 for word in words for _ in range(4)]
    return Super(from_f16(data[:2]), [word >> 12 & 7 for word in words], shifts, indices)


def pack_iq1_m(s: Super) -> bytes:
    """Pack the 56 bytes of IQ1_M.

    >>> pack_iq1_m(Super(1.0, [6, 1, 0, 0] * 4, [1, 0] * 16, [2047, 0] * 16))[-10:].hex()
    '0f0f0e000e000ec00e30'
    """
    fours = [i >> 8 | shift << 3 for i, shift in zip(s.indices, s.shifts, strict=True)]
    words = []
    for k, d in enumerate(unpack(to_f16(s.d), 4, 4)):
        scales = pack(s.scales[4 * k : 4 * k + 4], 3)
        words.append(int.from_bytes(scales, "little") | d << 12)
    return bytes(i & 255 for i in s.indices) + pack(fours, 4) + pack(words, 16)


def unpack_iq1_m(data: bytes) -> Super:
    """Unpack IQ1_M: the inverse of `pack_iq1_m`."""
    fours, words = unpack(data[32:48], 4, 32), unpack(data[48:], 16, 4)
    d = from_f16(pack([word >> 12 for word in words], 4))
    scales = [word >> 3 * k & 7 for word in words for k in range(4)]
    indices = [a | (b & 7) << 8 for a, b in zip(data[:32], fours, strict=True)]
    return Super(d, scales, [b >> 3 for b in fours], indices)


def groups_iq1(data: bytes, name: str) -> list[Group]:
    """Return the groups of a super-block: levels 8 g + 1 or 8 g - 1, and 1/8 of the f32 scale.

    >>> data = pack_iq1_m(Super(0.5, [3] * 16, [0, 1] * 16, [1, 0] * 16))
    >>> g = groups_iq1(data, "IQ1_M")[0]
    >>> g.levels, g.scale
    ([9, -7, -7, -7, -7, -7, -7, -7, -9, -9, -9, -9, -9, -9, -9, -9], 0.4375)
    """
    s = unpack_iq1_s(data) if name == "IQ1_S" else unpack_iq1_m(data)
    levels = [
        8 * (step - 1) + (-1 if shift else 1)
        for i, shift in zip(s.indices, s.shifts, strict=True)
        for step in GRIDS["IQ1"][i]
    ]
    size = 256 // len(s.scales)
    return [
        Group(
            levels[size * k : size * (k + 1)],
            f32(s.d * (2 * scale + 1)) / 8,
            integer_scales=IntegerScales(s.d / 8, 2 * scale + 1) if size == 16 else None,
        )
        for k, scale in enumerate(s.scales)
    ]

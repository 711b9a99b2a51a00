"""Q1_0 Q2_0 TQ1_0 TQ2_0: weights as signs or as -1, 0, 1, times one scale.

    Q1_0    18 bytes   d f16; 16 of signs                 128 elements, value = d or -d
    Q2_0    18 bytes   d f16; 16 of 2-bit codes            64 elements, value = d * (q - 1)
    TQ1_0   54 bytes   48 of 5 trits; 4 of 4 trits; d     256 elements, value = d * (q - 1)
    TQ2_0   66 bytes   64 of 2-bit codes; d               256 elements, value = d * (q - 1)

d is the mean |x| in Q1_0 and the largest |x| in the others, so an encoder never writes the fourth
code of Q2_0. Importance is ignored.

TQ1_0 packs 5 base-3 digits q0..q4 into a byte, since 3^5 = 243 < 256. The number n with the digits
q0 q1 q2 q3 q4 is stored as n / 243 in units of 1/256, rounded up. To read a digit, multiply the
byte by 3: the carry out of 8 bits is the digit, the low 8 bits are what remains. Source:
`quantize_row_tq1_0_ref` and its siblings in llama.cpp's ggml-quants.c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat
from operator import mul

from reference.bits import pack, pack_planes, unpack, unpack_planes
from reference.f32 import clamp, f32, f32s, half_away, inverse, total
from reference.legacy import Group, from_f16, to_f16

Row = Sequence[float]

PIECES = ((0, 32, 5), (160, 16, 5), (240, 4, 4))
"""The three ranges of TQ1_0: first element, bytes, elements in a byte (`bytes` elements apart)."""


def encode_q1_0(x: Row, w: Row | None = None) -> bytes:
    """Encode a block of Q1_0: d = mean |x|, a bit is 1 for x >= 0.

    >>> encode_q1_0([1.0, -3.0] * 64)[:4].hex()
    '00405555'
    """
    return to_f16(f32(total(map(abs, x)) / len(x))) + pack([int(v >= 0) for v in x], 1)


def encode_q2_0(x: Row, w: Row | None = None) -> bytes:
    """Encode a block of Q2_0: d = largest |x|, q = round(x / d) + 1, ties away from zero.

    Every code is 0 where 1 / d overflows f32, i.e. for subnormal d.

    >>> encode_q2_0([1.0, -1.0, 0.5, -0.4] * 16)[:4].hex()
    '003c6262'
    """
    peak = max(map(abs, x))
    scaled = f32s(map(mul, x, repeat(inverse(peak))))
    codes = [clamp(half_away(v) + 1, 0, 3) if math.isfinite(v) else 0 for v in scaled]
    return to_f16(peak) + pack(codes, 2)


def encode_tq1_0(x: Row, w: Row | None = None) -> bytes:
    """Encode a super-block of TQ1_0: d = largest |x|, q = round(x / d) + 1.

    >>> encode_tq1_0([1.0] * 256)[-6:].hex(), encode_tq1_0([-1.0] * 256)[-6:].hex()
    ('fdfdfdfd003c', '00000000003c')
    """
    d, q = _trits(x)
    return b"".join(pack_trits(q[s : s + n * count], n) for s, n, count in PIECES) + d


def encode_tq2_0(x: Row, w: Row | None = None) -> bytes:
    """Encode a super-block of TQ2_0: d = largest |x|, q = round(x / d) + 1.

    Byte j of each half holds elements j, j + 32, j + 64 and j + 96 of that half.

    >>> encode_tq2_0([1.0] * 32 + [-1.0] * 224)[-66:][:2].hex()
    '0202'
    """
    d, q = _trits(x)
    return pack_planes(q, 2, 32) + d


def _trits(x: Row) -> tuple[bytes, list[int]]:
    """Return the bytes of d and round(x / d) + 1; 1 where 1 / d overflows f32."""
    peak = max(map(abs, x))
    scaled = f32s(map(mul, x, repeat(inverse(peak))))
    return to_f16(peak), [half_away(v) + 1 for v in scaled]


def pack_trits(q: Sequence[int], size: int) -> bytes:
    """Pack numbers 0..2 into `size` bytes, up to 5 in each.

    Byte j holds the elements j, j + size, j + 2 size, ...

    >>> pack_trits([2, 0, 1, 1, 2, 2, 2, 2], 2).hex()       # 0.2122 and 0.0122 in base 3
    'e136'
    """
    out = []
    for j in range(size):
        number = sum(v * 3 ** (4 - n) for n, v in enumerate(q[j::size]))
        out.append((number * 256 + 242) // 243)
    return bytes(out)


def unpack_trits(data: bytes, count: int) -> list[int]:
    """Return `count` numbers from each byte: the inverse of `pack_trits`."""
    return [(byte * 3**n & 255) * 3 >> 8 for n in range(count) for byte in data]


def groups_q1_0(data: bytes) -> list[Group]:
    """Return the levels -1 and 1 and the scale of a block.

    >>> groups_q1_0(encode_q1_0([1.0, -3.0] * 64))[0].levels[:3]
    [1, -1, 1]
    """
    return [Group([2 * bit - 1 for bit in unpack(data[2:], 1, 128)], from_f16(data[:2]))]


def groups_q2_0(data: bytes) -> list[Group]:
    """Return the levels -1..2 and the scale of a block.

    >>> groups_q2_0(bytes.fromhex("003ce4") + bytes(15))[0].levels[:5]
    [-1, 0, 1, 2, -1]
    """
    return [Group([q - 1 for q in unpack(data[2:], 2, 64)], from_f16(data[:2]))]


def groups_tq1_0(data: bytes) -> list[Group]:
    """Return the levels -1..1 and the scale of a super-block.

    >>> groups_tq1_0(encode_tq1_0([1.0, -1.0, 0.25, 0.0] * 64))[0].levels[-4:]
    [1, -1, 0, 0]
    """
    levels: list[int] = []
    for at, size, count in ((0, 32, 5), (32, 16, 5), (48, 4, 4)):
        levels += [q - 1 for q in unpack_trits(data[at : at + size], count)]
    return [Group(levels, from_f16(data[52:]))]


def groups_tq2_0(data: bytes) -> list[Group]:
    """Return the levels -1..2 and the scale of a super-block; an encoder never writes 2.

    >>> groups_tq2_0(encode_tq2_0([1.0, -1.0, 0.25, 0.0] * 64))[0].levels[:4]
    [1, -1, 0, 0]
    """
    return [Group([q - 1 for q in unpack_planes(data[:64], 2, 32)], from_f16(data[64:]))]

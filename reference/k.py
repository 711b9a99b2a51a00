"""Q2_K to Q6_K, llama.cpp's K formats: super-blocks of 256 weights, blocks with integer scales.

    Q2_K   84 bytes  16 scale nibbles (low) and minimum nibbles (high); 64 of codes; d; dmin
    Q3_K  110 bytes  32 of high bits; 64 of low codes; 12 of packed 6-bit scales; d
    Q4_K  144 bytes  d; dmin; 12 of packed 6-bit scales and minima; 128 of nibbles
    Q5_K  176 bytes  d; dmin; 12; 32 of fifth bits; 128 of nibbles
    Q6_K  210 bytes  128 of low nibbles; 64 of high 2 bits; 16 signed scales; d

    Q2_K Q4_K Q5_K   value = (d * scale) * q - (dmin * minimum)     blocks of 16, 32, 32
    Q3_K             value = d * (scale - 32) * (q - 4)             blocks of 16
    Q6_K             value = d * scale * (q - 32)                   blocks of 16

d and dmin are f16. This file packs, unpacks and decodes; k_encode.py encodes. Source: `block_q2_K`
and its siblings in llama.cpp's ggml-common.h, `dequantize_row_q2_K` in ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reference.bits import pack_planes, unpack_planes
from reference.f32 import f32
from reference.legacy import Group, IntegerScales, from_f16, to_f16

BLOCK = 256


class Super(NamedTuple):
    """The content of a super-block: f16 super-scales, and scales, minima and codes as stored."""

    d: float
    dmin: float
    scales: list[int]
    minima: list[int]
    codes: list[int]


def pack_q2_k(s: Super) -> bytes:
    """Pack the 84 bytes of Q2_K.

    >>> pack_q2_k(Super(1.0, 2.0, [1] * 16, [2] * 16, [3] * 256)).hex()[:40]
    '21212121212121212121212121212121ffffffff'
    """
    scales = bytes(a | b << 4 for a, b in zip(s.scales, s.minima, strict=True))
    return scales + pack_planes(s.codes, 2, 32) + to_f16(s.d) + to_f16(s.dmin)


def unpack_q2_k(data: bytes) -> Super:
    """Unpack Q2_K: the inverse of `pack_q2_k`."""
    scales, minima = [b & 15 for b in data[:16]], [b >> 4 for b in data[:16]]
    codes = unpack_planes(data[16:80], 2, 32)
    return Super(from_f16(data[80:82]), from_f16(data[82:]), scales, minima, codes)


def pack_q3_k(s: Super) -> bytes:
    """Pack the 110 bytes of Q3_K: scales 0..63, 32 means zero; codes 0..7, 4 means zero.

    >>> unpack_q3_k(pack_q3_k(Super(1.0, 0.0, [*range(48, 64)], [], [7, 2] * 128))).scales[:3]
    [48, 49, 50]
    """
    high = pack_planes([c >> 2 for c in s.codes], 1, 32)
    low = pack_planes([c & 3 for c in s.codes], 2, 32)
    scales = pack_planes([c & 15 for c in s.scales], 4, 8)
    scales += pack_planes([c >> 4 for c in s.scales], 2, 4)
    return high + low + scales + to_f16(s.d)


def unpack_q3_k(data: bytes) -> Super:
    """Unpack Q3_K: the inverse of `pack_q3_k`."""
    high, low = unpack_planes(data[:32], 1, 32), unpack_planes(data[32:96], 2, 32)
    scales = _join(unpack_planes(data[96:104], 4, 8), unpack_planes(data[104:108], 2, 4), 4)
    return Super(from_f16(data[108:]), 0.0, scales, [], _join(low, high, 2))


def pack_six(scales: Sequence[int], minima: Sequence[int]) -> bytes:
    """Pack 8 scales and 8 minima of 6 bits into 12 bytes, for Q4_K and Q5_K.

    Bytes 0..3 have scales 0..3 in their low 6 bits, bytes 4..7 minima 0..3. Scales and minima 4..7
    are split: the low 4 bits go to bytes 8..11, the high 2 to the free bits of bytes 0..7. Source:
    `get_scale_min_k4` of llama.cpp.

    >>> pack_six([1, 2, 3, 4, 5, 6, 7, 63], [8] * 8).hex()
    '010203c4080808088586878f'
    """
    first = [scales[k] | scales[k + 4] >> 4 << 6 for k in range(4)]
    second = [minima[k] | minima[k + 4] >> 4 << 6 for k in range(4)]
    third = [scales[k] & 15 | (minima[k] & 15) << 4 for k in range(4, 8)]
    return bytes(first + second + third)


def unpack_six(data: bytes) -> tuple[list[int], list[int]]:
    """Unpack the 12 bytes: the inverse of `pack_six`.

    >>> unpack_six(pack_six([1, 2, 3, 4, 5, 6, 7, 63], [8, 9, 10, 11, 12, 63, 62, 61]))
    ([1, 2, 3, 4, 5, 6, 7, 63], [8, 9, 10, 11, 12, 63, 62, 61])
    """
    scales = [b & 63 for b in data[:4]]
    minima = [b & 63 for b in data[4:8]]
    scales += [data[k + 8] & 15 | data[k] >> 6 << 4 for k in range(4)]
    minima += [data[k + 8] >> 4 | data[k + 4] >> 6 << 4 for k in range(4)]
    return scales, minima


def pack_q4_k(s: Super) -> bytes:
    """Pack the 144 bytes of Q4_K.

    >>> len(pack_q4_k(Super(1.0, 2.0, [1] * 8, [2] * 8, [3] * 256)))
    144
    """
    head = to_f16(s.d) + to_f16(s.dmin) + pack_six(s.scales, s.minima)
    return head + pack_planes(s.codes, 4, 32)


def unpack_q4_k(data: bytes) -> Super:
    """Unpack Q4_K: the inverse of `pack_q4_k`."""
    codes = unpack_planes(data[16:], 4, 32)
    return Super(from_f16(data[:2]), from_f16(data[2:4]), *unpack_six(data[4:16]), codes)


def pack_q5_k(s: Super) -> bytes:
    """Pack the 176 bytes of Q5_K.

    >>> unpack_q5_k(pack_q5_k(Super(1.0, 2.0, [1] * 8, [2] * 8, [31, 4] * 128))).codes[:3]
    [31, 4, 31]
    """
    head = to_f16(s.d) + to_f16(s.dmin) + pack_six(s.scales, s.minima)
    fifth = pack_planes([c >> 4 for c in s.codes], 1, 32)
    return head + fifth + pack_planes([c & 15 for c in s.codes], 4, 32)


def unpack_q5_k(data: bytes) -> Super:
    """Unpack Q5_K: the inverse of `pack_q5_k`."""
    codes = _join(unpack_planes(data[48:], 4, 32), unpack_planes(data[16:48], 1, 32), 4)
    return Super(from_f16(data[:2]), from_f16(data[2:4]), *unpack_six(data[4:16]), codes)


def pack_q6_k(s: Super) -> bytes:
    """Pack the 210 bytes of Q6_K: signed 8-bit scales; codes 0..63, 32 means zero.

    >>> unpack_q6_k(pack_q6_k(Super(1.0, 0.0, [-128, 127] * 8, [], [63, 4] * 128))).scales[:2]
    [-128, 127]
    """
    low = pack_planes([c & 15 for c in s.codes], 4, 64)
    high = pack_planes([c >> 4 for c in s.codes], 2, 32)
    return low + high + bytes(v & 255 for v in s.scales) + to_f16(s.d)


def unpack_q6_k(data: bytes) -> Super:
    """Unpack Q6_K: the inverse of `pack_q6_k`."""
    codes = _join(unpack_planes(data[:128], 4, 64), unpack_planes(data[128:192], 2, 32), 4)
    scales = [b - 256 if b > 127 else b for b in data[192:208]]
    return Super(from_f16(data[208:]), 0.0, scales, [], codes)


UNPACK = {
    "Q2_K": (unpack_q2_k, 16, 0, 0),
    "Q3_K": (unpack_q3_k, 16, 32, 4),
    "Q4_K": (unpack_q4_k, 32, 0, 0),
    "Q5_K": (unpack_q5_k, 32, 0, 0),
    "Q6_K": (unpack_q6_k, 16, 0, 32),
}
"""Per format: unpack function, elements of a block, the scale and the code that mean zero."""

INTEGER_SCALES = ("Q2_K", "Q3_K")
"""Formats whose products sum 256 columns as integers, scales included (linear.py)."""


def groups_k(data: bytes, name: str) -> list[Group]:
    """Return the blocks of a super-block: levels, f32 scale d * scale, minimum -(dmin * minimum).

    >>> data = pack_q4_k(Super(0.5, 2.0, [3] * 8, [2] * 8, [7] * 256))
    >>> g = groups_k(data, "Q4_K")[0]
    >>> g.levels[:2], g.scale, g.minimum
    ([7, 7], 1.5, -4.0)
    """
    unpack_super, block, zero_scale, zero_code = UNPACK[name]
    s = unpack_super(data)
    groups = []
    for k, scale in enumerate(s.scales):
        levels = [c - zero_code for c in s.codes[k * block : (k + 1) * block]]
        low = s.minima[k] if s.minima else 0
        groups.append(
            Group(
                levels,
                f32(s.d * (scale - zero_scale)),
                -f32(s.dmin * low) if s.minima else None,
                IntegerScales(s.d, scale - zero_scale, s.dmin, low)
                if name in INTEGER_SCALES
                else None,
            )
        )
    return groups


def _join(low: Sequence[int], high: Sequence[int], shift: int) -> list[int]:
    """Combine low and high bits of codes: low | high << shift."""
    return [a | b << shift for a, b in zip(low, high, strict=True)]

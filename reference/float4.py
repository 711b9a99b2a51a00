"""MXFP4 NVFP4: floats of four bits, E2M1, whose shared scale is a small float too.

    MXFP4   17 bytes  e; 16 of nibbles                     32 elements, value = 2^(e - 128) * K[q]
    NVFP4   36 bytes  4 scales u of 16 elements each;
                      32 of nibbles                        64 elements, value = u / 2 * K[q]

K is twice the value of E2M1, so that it is an integer. e is an exponent alone (E8M0), u an unsigned
float of 4 exponent and 3 significand bits. Byte j of a scale's nibbles holds its element j in its
low half and, half the elements further, another in its high half. Importance is ignored. Source:
llama.cpp ``ggml-quants.c``, ``ggml-impl.h``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat
from operator import mul, sub

from reference.bits import pack_planes, unpack_planes
from reference.f32 import f32, f32s
from reference.legacy import Group

Row = Sequence[float]

K = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice the values of E2M1, by code."""


def encode_mxfp4(x: Row, w: Row | None = None) -> bytes:
    """One block of MXFP4; w is ignored. The scale is 2^floor(log2 of the largest |x|) / 4.

    So the largest lies in 4..8 scales, and 6 is the largest code. The logarithm is an f32: just
    below a power of two it may be rounded up to it. A block below 2^-125 gets an exponent below
    0, of which the byte keeps the low bits.

    >>> encode_mxfp4([6.0, -1.0, 7.9] + [0.0] * 29)[:4].hex()
    '7f070a07'
    """
    peak = max(map(abs, x))
    e = math.floor(f32(math.log2(peak))) - 2 + 127 & 255 if peak else 0
    return bytes([e]) + pack_planes(_float_codes(x, 2.0 ** (e - 128)), 4, 16)


def encode_nvfp4(x: Row, w: Row | None = None) -> bytes:
    """One block of NVFP4, 64 elements with 4 scales of a sixth of the largest |x|; w is ignored.

    >>> encode_nvfp4([6.0, -1.0, 3.0] + [0.0] * 61)[:8].hex()
    '38000000070a0500'
    """
    scales = [to_ue4m3(f32(max(map(abs, x[s : s + 16])) / 6)) for s in range(0, 64, 16)]
    codes = [_float_codes(x[16 * k : 16 * k + 16], half_ue4m3(u)) for k, u in enumerate(scales)]
    return bytes(scales) + pack_planes([q for part in codes for q in part], 4, 8)


def to_ue4m3(x: float) -> int:
    """The code of x >= 0: to nearest, ties up, by the one bit that follows the significand.

    Up to 0x77 = 240; whatever would round to 256 or more is 0x7e = 448. Below 2^-6 codes count
    steps of 2^-9, at most 7 of them.

    >>> [hex(to_ue4m3(v)) for v in (1.0, 1.0625, 2**-10, 247.9, 248.0, 1e9)]
    ['0x38', '0x39', '0x1', '0x77', '0x7e', '0x7e']
    """
    if x < 2**-6:
        return min(7, int(f32(x * 512 + 0.5)))
    exponent = math.frexp(x)[1] - 1
    steps = int(math.ldexp(x, 4 - exponent)) + 1 >> 1  # 8..16 eighths
    code = (exponent + 6 << 3) + steps
    return code if code < 0x78 else 0x7E


def half_ue4m3(code: int) -> float:
    """Half the value of a code; 0x7f is 0, the highest bit is no sign and does not count.

    >>> [half_ue4m3(c) for c in (0x38, 1, 0x7E, 0x7F)]
    [0.5, 0.0009765625, 224.0, 0.0]
    """
    exponent, significand = code >> 3 & 15, code & 7
    if code == 0x7F:
        return 0.0
    return math.ldexp(significand + 8 if exponent else significand, max(exponent, 1) - 11)


def _float_codes(x: Row, half: float) -> list[int]:
    """For each element the first code whose value, K times `half`, is nearest."""
    values = f32s(map(mul, K, repeat(half)))
    result = []
    for v in x:
        off = [abs(d) for d in f32s(map(sub, values, repeat(v)))]
        result.append(off.index(min(off)))
    return result


def groups_mxfp4(data: bytes) -> list[Group]:
    """The values of K and half the scale of one block.

    >>> groups_mxfp4(bytes([127, 7, 10]) + bytes(14))[0].levels[:3]
    [12, -2, 0]
    """
    return [Group([K[q] for q in unpack_planes(data[1:], 4, 16)], 2.0 ** (data[0] - 128))]


def groups_nvfp4(data: bytes) -> list[Group]:
    """The values of K and half the scales of the 4 groups of 16.

    >>> [g.scale for g in groups_nvfp4(bytes([0x38, 0x40, 0, 1]) + bytes(32))]
    [0.5, 1.0, 0.0, 0.0009765625]
    """
    values = [K[q] for q in unpack_planes(data[4:], 4, 8)]
    return [Group(values[16 * k : 16 * k + 16], half_ue4m3(u)) for k, u in enumerate(data[:4])]

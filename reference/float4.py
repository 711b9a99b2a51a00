"""MXFP4 NVFP4: 4-bit floats (E2M1) whose groups share a scale that is an 8-bit float.

    MXFP4   17 bytes  e; 16 of nibbles                     32 elements, value = 2^(e - 128) * K[q]
    NVFP4   36 bytes  4 scales u of 16 elements each;
                      32 of nibbles                        64 elements, value = u / 2 * K[q]

K is twice the value of E2M1, which makes it an integer. e is an exponent alone (E8M0); u is an
unsigned float with 4 exponent and 3 significand bits (UE4M3). The nibbles of n elements with one
scale: byte j holds element j in its low half and element j + n / 2 in its high half. Importance is
ignored. Sources: the OCP Microscaling (MX) specification; `quantize_row_mxfp4_ref` and
`quantize_row_nvfp4_ref` in llama.cpp's ggml-quants.c, ggml-impl.h.
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
"""Twice the value of E2M1 for each code."""


def encode_mxfp4(x: Row, w: Row | None = None) -> bytes:
    """Encode a block of MXFP4: scale = 2^floor(log2(largest |x|)) / 4; `w` is ignored.

    So the largest |x| is 4 to 8 scales; E2M1 ends at 6. The logarithm is rounded to f32, which can
    round up just below a power of two. A block whose largest |x| is below 2^-125 gets a negative
    exponent, stored as its low byte.

    >>> encode_mxfp4([6.0, -1.0, 7.9] + [0.0] * 29)[:4].hex()
    '7f070a07'
    """
    peak = max(map(abs, x))
    e = math.floor(f32(math.log2(peak))) - 2 + 127 & 255 if peak else 0
    return bytes([e]) + pack_planes(_float_codes(x, 2.0 ** (e - 128)), 4, 16)


def encode_nvfp4(x: Row, w: Row | None = None) -> bytes:
    """Encode a block of NVFP4: 4 scales, each largest |x| of 16 elements / 6; `w` is ignored.

    >>> encode_nvfp4([6.0, -1.0, 3.0] + [0.0] * 61)[:8].hex()
    '38000000070a0500'
    """
    scales = [to_ue4m3(f32(max(map(abs, x[s : s + 16])) / 6)) for s in range(0, 64, 16)]
    codes = [_float_codes(x[16 * k : 16 * k + 16], half_ue4m3(u)) for k, u in enumerate(scales)]
    return bytes(scales) + pack_planes([q for group in codes for q in group], 4, 8)


def to_ue4m3(x: float) -> int:
    """Return the UE4M3 code of x >= 0, to nearest; ties go up.

    The highest code below 0x7e is 0x77 = 240; a value that rounds to 256 or more becomes 0x7e =
    448. Below 2^-6 the codes count steps of 2^-9, 7 at most.

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
    """Return half the value of a code; 0x7f is 0, and the highest bit is ignored.

    >>> [half_ue4m3(c) for c in (0x38, 1, 0x7E, 0x7F)]
    [0.5, 0.0009765625, 224.0, 0.0]
    """
    exponent, significand = code >> 3 & 15, code & 7
    if code == 0x7F:
        return 0.0
    return math.ldexp(significand + 8 if exponent else significand, max(exponent, 1) - 11)


def _float_codes(x: Row, half: float) -> list[int]:
    """Return for each element the code whose value K * `half` is nearest; the first of equals."""
    values = f32s(map(mul, K, repeat(half)))
    result = []
    for v in x:
        off = [abs(d) for d in f32s(map(sub, values, repeat(v)))]
        result.append(off.index(min(off)))
    return result


def groups_mxfp4(data: bytes) -> list[Group]:
    """Return the values of K and half the scale of a block.

    >>> groups_mxfp4(bytes([127, 7, 10]) + bytes(14))[0].levels[:3]
    [12, -2, 0]
    """
    return [Group([K[q] for q in unpack_planes(data[1:], 4, 16)], 2.0 ** (data[0] - 128))]


def groups_nvfp4(data: bytes) -> list[Group]:
    """Return the values of K and half the scales of the 4 groups of 16.

    >>> [g.scale for g in groups_nvfp4(bytes([0x38, 0x40, 0, 1]) + bytes(32))]
    [0.5, 1.0, 0.0, 0.0009765625]
    """
    values = [K[q] for q in unpack_planes(data[4:], 4, 8)]
    return [Group(values[16 * k : 16 * k + 16], half_ue4m3(u)) for k, u in enumerate(data[:4])]

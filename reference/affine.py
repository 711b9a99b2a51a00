"""Formats symB-gN and asymB-gN: groups of N weights as integers of B = 1 to 8 bits with one scale.

    symB-gN    scale f32; codes               value = scale * (code - M), M = 2^(B-1) - 1
    asymB-gN   scale f32; zero u8; codes      value = scale * code - scale * zero

Codes are packed without gaps, the first in the lowest bits; a group starts on a byte. The last
group of a row may have fewer elements: its missing codes are zero bits.

The file starts with `symmetric` and `asymmetric`, the two functions of the article "Quantization
from the ground up" on plain Python floats; the packed formats, computed in f32, follow.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from reference.bits import pack, packed_bytes, unpack
from reference.f32 import clamp, f32, nearest, total
from reference.legacy import Group


def symmetric(x: Sequence[float], bits: int) -> tuple[list[int], float]:
    """Return integers (-7..7 at 4 bits) and the scale that maps the largest |x| to 7.

    >>> x = [-0.89, 0.16, 0.08, -0.13, 0.16, -0.54]
    >>> symmetric(x, 4)
    ([-7, 1, 1, -1, 1, -4], 0.12714285714285714)
    >>> f"{mean_error(x, restore(*symmetric(x, 4))):.1%}"
    '18.0%'
    """
    scale = max(map(abs, x)) / (2 ** (bits - 1) - 1)
    return [round(v / scale) for v in x], scale


def asymmetric(x: Sequence[float], bits: int) -> tuple[list[int], float, int]:
    """Return integers (-8..7 at 4 bits), the scale that maps x's range to theirs, the zero point.

    >>> x = [-0.89, 0.16, 0.08, -0.13, 0.16, -0.54]
    >>> asymmetric(x, 4)
    ([-8, 7, 6, 3, 7, -3], 0.07, 5)
    >>> f"{mean_error(x, restore(*asymmetric(x, 4))):.1%}"
    '8.5%'

    One outlier degrades every element of its group, so groups are small:

    >>> x.append(10.0)
    >>> f"{mean_error(x, restore(*asymmetric(x, 4))):.1%}"
    '64.9%'
    >>> f"{mean_error(x, restore(*symmetric(x, 4))):.1%}"
    '80.1%'
    >>> f"{mean_error(x, in_blocks(x, 4, 6)):.1%}"
    '7.3%'
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = (max(x) - min(x)) / (high - low)
    zero = low - round(min(x) / scale)
    return [round(v / scale + zero) for v in x], scale, zero


def restore(levels: Sequence[int], scale: float, zero: int = 0) -> list[float]:
    """Return the dequantized values scale * (level - zero).

    >>> restore([-7, 1], 0.5), restore([-7, 1], 0.5, 5)
    ([-3.5, 0.5], [-6.0, -2.0])
    """
    return [scale * (level - zero) for level in levels]


def in_blocks(x: Sequence[float], bits: int, block: int) -> list[float]:
    """Quantize and restore x with `asymmetric`, one scale for each `block` elements.

    The last block may be shorter.

    >>> in_blocks([0.0, 1.5, 0.0, 150.0], 4, 2)
    [0.0, 1.5, 0.0, 150.0]
    """
    blocks = (x[start : start + block] for start in range(0, len(x), block))
    return [
        v
        for group in blocks
        for v in (restore(*asymmetric(group, bits)) if max(group) > min(group) else group)
    ]


def mean_error(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the mean relative error |x - y| / |x|; no x may be 0.

    >>> mean_error([1.0, 2.0], [1.5, 2.0])
    0.25
    """
    return sum(abs((a - b) / a) for a, b in zip(x, y, strict=True)) / len(x)


def bits_per_weight(bits: int, block: int, overhead: int) -> float:
    """Return the stored bits per weight if each block adds `overhead` bits to its codes.

    >>> bits_per_weight(4, 32, 16), bits_per_weight(4, 256, 32), bits_per_weight(4, 32, 40)
    (4.5, 4.125, 5.25)
    """
    return bits + overhead / block


def group_bytes(kind: str, bits: int, group: int) -> int:
    """Bytes of a stored group: 4 for the scale, 1 for the zero point of `asym`, and the codes.

    >>> group_bytes("sym", 4, 32), group_bytes("asym", 3, 32)
    (20, 17)
    """
    return (4 if kind == "sym" else 5) + packed_bytes(bits, group)


def encode_group(x: Sequence[float], kind: str, bits: int, group: int) -> bytes:
    """Quantize up to `group` elements of x to the bytes of one stored group.

    sym: M = 2^(b-1) - 1, scale = largest |x| / M, code = nearest(x / scale) + M. With 1 bit the
    values are +scale and -scale: scale = mean |x|, code = 1 for x >= 0.

    asym: low = min(0, x), high = max(0, x), M = 2^b - 1, scale = (high - low) / M, zero =
    nearest(-low / scale), code = nearest(x / scale) + zero, limited to 0..M.

    >>> encode_group([-7.0, 1.0, 0.0, 3.0], "sym", 4, 4).hex()
    '0000803f80a7'
    >>> encode_group([-5.0, 10.0, 0.2], "asym", 4, 4).hex()
    '0000803f05f005'
    >>> encode_group([0.0, 0.0], "sym", 4, 4).hex(), encode_group([1.0, -3.0], "sym", 1, 8).hex()
    ('000000007700', '0000004001')
    """
    zero = 0
    if kind == "sym":
        scale, codes = _symmetric_codes(x, bits)
    else:
        scale, zero, codes = _asymmetric_codes(x, bits)
    head = struct.pack("<f", scale) + (b"" if kind == "sym" else bytes([zero]))
    return head + pack([*codes, *[0] * (group - len(x))], bits)


def _symmetric_codes(x: Sequence[float], bits: int) -> tuple[float, list[int]]:
    if bits == 1:
        return f32(total(map(abs, x)) / len(x)), [int(v >= 0) for v in x]
    n = 2 ** (bits - 1) - 1
    scale = f32(max(map(abs, x)) / n)
    return scale, [clamp(_steps(v, scale), -n, n) + n for v in x]


def _asymmetric_codes(x: Sequence[float], bits: int) -> tuple[float, int, list[int]]:
    n = 2**bits - 1
    low, high = min(0.0, *x), max(0.0, *x)
    scale = f32(f32(high - low) / n)
    zero = clamp(_steps(-low, scale), 0, n)
    return scale, zero, [clamp(_steps(v, scale) + zero, 0, n) for v in x]


def _steps(v: float, scale: float) -> int:
    """Return the nearest multiple of the scale; 0 if the scale is 0."""
    return nearest(f32(v / scale)) if scale else 0


def group_of(data: bytes, kind: str, bits: int, count: int) -> Group:
    """Return the levels, scale and minimum of a stored group with `count` elements.

    >>> group_of(encode_group([-5.0, 10.0, 0.2], "asym", 4, 4), "asym", 4, 3)[:3]
    ([0, 15, 5], 1.0, -5.0)
    >>> group_of(encode_group([1.0, -3.0], "sym", 1, 8), "sym", 1, 2)[:3]
    ([1, -1], 2.0, None)
    """
    (scale,) = struct.unpack("<f", data[:4])
    if kind == "asym":
        return Group(unpack(data[5:], bits, count), scale, -f32(scale * data[4]))
    codes = unpack(data[4:], bits, count)
    n = 2 ** (bits - 1) - 1
    return Group([2 * c - 1 if bits == 1 else c - n for c in codes], scale)

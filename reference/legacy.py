"""Q4_0 Q4_1 Q5_0 Q5_1 Q8_0: blocks of 32 weights with one f16 scale; the _1 formats add a minimum.

    Q4_0  18 bytes   d f16; 16 bytes of nibbles                      value = d * (q - 8)
    Q4_1  20 bytes   d f16; m f16; 16 bytes of nibbles               value = d * q + m
    Q5_0  22 bytes   d f16; 4 bytes of fifth bits; 16 of nibbles     value = d * (q - 16)
    Q5_1  24 bytes   d f16; m f16; 4 bytes; 16 bytes                 value = d * q + m
    Q8_0  34 bytes   d f16; 32 signed bytes                          value = d * q

Byte j of the nibbles holds element j in its low half and element j + 16 in its high half. Bit j of
the fifth bits (a little-endian u32) belongs to element j.

Source: `quantize_row_q4_0_ref` and its siblings in llama.cpp's ggml-quants.c. tests/golden compares
the bytes with llama.cpp's x86-64 build.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import mul, sub
from typing import NamedTuple

from reference.bits import pack, pack_planes, unpack, unpack_planes
from reference.f32 import clamp, f32, f32s, half_away, inverse, products, total, truncate
from reference.floats import FLOAT16, decode, encode
from reference.search import affine_search, signed_peak, symmetric_search

BLOCK = 32
"""Elements of a block."""


class IntegerScales(NamedTuple):
    """The integer scale and minimum of a group, and the floats that 256 columns share.

    The group's scale is d * scale, its minimum -dmin * minimum. All 16 groups of a super-block have
    the same d and dmin, so a product sums 256 columns as integers (`linear.product_int8`).
    """

    d: float
    scale: int
    dmin: float = 0.0
    minimum: int = 0


class Group(NamedTuple):
    """Neighbouring weights with one scale: value = scale * level (+ minimum, if any).

    `integer_scales` is set for formats whose products sum 256 columns as integers.
    """

    levels: list[int]
    scale: float
    minimum: float | None = None
    integer_scales: IntegerScales | None = None


def to_f16(x: float) -> bytes:
    """Return x as the two bytes of an f16, rounded to nearest even.

    >>> to_f16(1.0).hex()
    '003c'
    """
    return encode(x, FLOAT16).to_bytes(2, "little")


def from_f16(data: bytes) -> float:
    """Return the value of an f16 given as two bytes.

    >>> from_f16(bytes.fromhex("003c"))
    1.0
    """
    return decode(int.from_bytes(data, "little"), FLOAT16)


def encode_q8_0(x: Sequence[float], w: Sequence[float] | None = None) -> bytes:
    """Encode a Q8_0 block: d = largest |x| / 127, q = x / d, ties away from zero.

    Importance `w` does not change the result.

    >>> encode_q8_0([127.0, -2.5] + [0.0] * 30)[:4].hex()
    '003c7ffd'
    """
    d = f32(max(map(abs, x)) / 127)
    scaled = f32s(map(mul, x, repeat(inverse(d))))
    return to_f16(d) + bytes(half_away(v) & 255 for v in scaled)


def encode_symmetric(x: Sequence[float], bits: int, w: Sequence[float] | None = None) -> bytes:
    """Encode a block of Q4_0 (4 bits) or Q5_0 (5 bits).

    Without importance the element with the largest |x| gets the lowest level: d = x / -8 (-16), and
    the codes are trunc(x / d + 8.5). They come from the f32 d; the stored d is rounded to f16. With
    importance `w`, see `search.symmetric_search`.

    >>> encode_symmetric([0.0] * 32, 4).hex()       # zeros have the scale -0.0
    '008088888888888888888888888888888888'
    """
    n = 1 << bits - 1
    if w is None:
        d = f32(signed_peak(x) / -n)
        scaled = f32s(map(mul, x, repeat(inverse(d))))
        codes = [min(2 * n - 1, truncate(f32(v + (n + 0.5)))) for v in scaled]
    else:
        d, codes = symmetric_search(x, n, w)
    return to_f16(d) + _pack_codes(codes, bits)


def encode_asymmetric(x: Sequence[float], bits: int, w: Sequence[float] | None = None) -> bytes:
    """Encode a block of Q4_1 (4 bits) or Q5_1 (5 bits).

    Without importance d = (max - min) / 15 (31), m = min and q = trunc((x - min) / d + 0.5). With
    importance `w`, see `search.affine_search`.

    >>> encode_asymmetric([float(i % 16) for i in range(32)], 4).hex()
    '003c000000112233445566778899aabbccddeeff'
    """
    n = (1 << bits) - 1
    if w is None:
        low = min(x)
        d = f32(f32(max(x) - low) / n)
        scaled = f32s(map(mul, f32s(map(sub, x, repeat(low))), repeat(inverse(d))))
        codes = [clamp(truncate(f32(v + 0.5)), 0, n) for v in scaled]
    else:
        d, negative, codes = affine_search(x, n, w, (-0.9, 0.05, 36))
        low = -negative
    return to_f16(d) + to_f16(low) + _pack_codes(codes, bits)


def importance_weights(x: Sequence[float], importance: Sequence[float], v: float) -> list[float]:
    """Return each element's weight in the squared error: importance * sqrt(v + x^2).

    v is a mean of squares, of the row or the block.

    >>> importance_weights([3.0, 0.0], [1.0, 2.0], 16.0)
    [5.0, 8.0]
    """
    roots = [f32(f32(v + f32(y * y)) ** 0.5) for y in x]
    return f32s(map(mul, importance, roots))


def row_weights(row: Sequence[float], importance: Sequence[float]) -> list[float]:
    """Return `importance_weights` with v = mean of x^2 over the row, for the legacy formats.

    >>> row_weights([3.0, 4.0], [1.0, 1.0])
    [4.636809349060059, 5.338539123535156]
    """
    return importance_weights(row, importance, f32(total(products(row, row)) / len(row)))


def groups_q8_0(data: bytes) -> list[Group]:
    """Return the levels -127..127 and the scale of a Q8_0 block.

    >>> groups_q8_0(encode_q8_0([127.0, -2.5] + [0.0] * 30))[0].levels[:3]
    [127, -3, 0]
    """
    return [Group([b - 256 if b > 127 else b for b in data[2:]], from_f16(data[:2]))]


def groups_symmetric(data: bytes, bits: int) -> list[Group]:
    """Return the levels -8..7 (-16..15) and the scale of a Q4_0 (Q5_0) block.

    >>> groups_symmetric(bytes.fromhex("003c") + bytes(range(16)), 4)[0].levels[:3]
    [-8, -7, -6]
    """
    n = 1 << bits - 1
    levels = [code - n for code in _unpack_codes(data[2:], bits)]
    return [Group(levels, from_f16(data[:2]))]


def groups_asymmetric(data: bytes, bits: int) -> list[Group]:
    """Return the levels 0..15 (0..31), scale and minimum of a Q4_1 (Q5_1) block.

    >>> groups_asymmetric(bytes.fromhex("003c00c0") + bytes(16), 4)[0].minimum
    -2.0
    """
    return [Group(_unpack_codes(data[4:], bits), from_f16(data[:2]), from_f16(data[2:4]))]


def _pack_codes(codes: Sequence[int], bits: int) -> bytes:
    fifth = pack([c >> 4 for c in codes], 1) if bits == 5 else b""
    return fifth + pack_planes([c & 15 for c in codes], 4, 16)


def _unpack_codes(data: bytes, bits: int) -> list[int]:
    codes = unpack_planes(data[-16:], 4, 16)
    if bits == 5:
        codes = [c | b << 4 for c, b in zip(codes, unpack(data[:4], 1, 32), strict=True)]
    return codes

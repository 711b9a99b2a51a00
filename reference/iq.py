"""IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S: super-blocks of 256 weights stored as indices into a grid.

    IQ2_XXS  66 bytes  d; 8 times: 4 indices of 8 bits, 4 signs of 7, a scale of 4
    IQ2_XS   74 bytes  d; 32 times: index of 9 bits, signs of 7; 16 scales of 4 bits
    IQ2_S    82 bytes  d; 32 low bytes of indices; 32 of signs; 8 of their high 2 bits; 8 of scales
    IQ3_XXS  98 bytes  d; 64 indices of 8 bits; 8 times: 4 signs of 7 bits, a scale of 4
    IQ3_S   110 bytes  d; 64 low bytes of indices; 8 of their ninth bits; 32 of signs; 4 of scales

    IQ2      value = d * (0.5 + scale) / 4 * m      8 elements an index, m one of 8 25 43
    IQ3_XXS  value = d * (0.5 + scale) / 2 * m      4 elements an index, m one of 4 12 20 .. 52 62
    IQ3_S    value = d * (1 + 2 scale) * m          4 elements an index, m odd, 1 to 15

The magnitudes m are signed. 8 elements have 8 sign bits, or 7 if the format makes the number of
negative elements even. A scale belongs to 32 elements, in IQ2_XS and IQ2_S to 16. d is f16.

This file packs, unpacks and decodes; grids.py has the grids, iq_encode.py the encoders. Source:
`dequantize_row_iq2_xxs` and its siblings in llama.cpp's ggml-quants.c.
"""

from __future__ import annotations

from typing import NamedTuple

from reference.bits import pack, unpack
from reference.f32 import f32
from reference.grids import GRIDS, MAGNITUDES, even_signs, signed
from reference.legacy import Group, IntegerScales, from_f16, to_f16


class Super(NamedTuple):
    """The content of a super-block: super-scale, scales 0..15, signs, grid indices.

    `signs` has a byte for every 8 elements; formats with 7 sign bits drop the last bit.
    """

    d: float
    scales: list[int]
    signs: list[int]
    indices: list[int]


def pack_iq2_xxs(s: Super) -> bytes:
    """Pack the 66 bytes of IQ2_XXS.

    >>> pack_iq2_xxs(Super(1.0, [5] * 8, [0x81, 0, 0, 0x81] * 8, [1, 2, 3, 255] * 8))[:10].hex()
    '003c010203ff01002050'
    """
    words = [_word(s.signs[4 * k : 4 * k + 4], scale) for k, scale in enumerate(s.scales)]
    fields = [bytes(s.indices[4 * k : 4 * k + 4]) + word for k, word in enumerate(words)]
    return to_f16(s.d) + b"".join(fields)


def unpack_iq2_xxs(data: bytes) -> Super:
    """Unpack IQ2_XXS: the inverse of `pack_iq2_xxs`."""
    fields = [data[k : k + 8] for k in range(2, 66, 8)]
    signs, scales = _unword(b"".join(field[4:] for field in fields))
    return Super(from_f16(data[:2]), scales, signs, [i for field in fields for i in field[:4]])


def pack_iq2_xs(s: Super) -> bytes:
    """Pack the 74 bytes of IQ2_XS.

    >>> pack_iq2_xs(Super(1.0, [5, 6] * 8, [0x81, 0] * 16, [511, 2] * 16))[:6].hex()
    '003cff030200'
    """
    pairs = [i | (signs & 127) << 9 for i, signs in zip(s.indices, s.signs, strict=True)]
    return to_f16(s.d) + pack(pairs, 16) + pack(s.scales, 4)


def unpack_iq2_xs(data: bytes) -> Super:
    """Unpack IQ2_XS: the inverse of `pack_iq2_xs`."""
    pairs = unpack(data[2:66], 16, 32)
    signs = [even_signs(pair >> 9) for pair in pairs]
    return Super(from_f16(data[:2]), unpack(data[66:], 4, 16), signs, [p & 511 for p in pairs])


def pack_iq2_s(s: Super) -> bytes:
    """Pack the 82 bytes of IQ2_S.

    >>> pack_iq2_s(Super(1.0, [5, 6] * 8, [0x81] * 32, [1023, 2] * 16))[-16:].hex()
    '33333333333333336565656565656565'
    """
    low, high = bytes(i & 255 for i in s.indices), pack([i >> 8 for i in s.indices], 2)
    return to_f16(s.d) + low + bytes(s.signs) + high + pack(s.scales, 4)


def unpack_iq2_s(data: bytes) -> Super:
    """Unpack IQ2_S: the inverse of `pack_iq2_s`."""
    high = unpack(data[66:74], 2, 32)
    indices = [a | b << 8 for a, b in zip(data[2:34], high, strict=True)]
    return Super(from_f16(data[:2]), unpack(data[74:], 4, 16), list(data[34:66]), indices)


def pack_iq3_xxs(s: Super) -> bytes:
    """Pack the 98 bytes of IQ3_XXS.

    >>> pack_iq3_xxs(Super(1.0, [5] * 8, [0x81, 0, 0, 0x81] * 8, [255] * 64))[-4:].hex()
    '01002050'
    """
    words = [_word(s.signs[4 * k : 4 * k + 4], scale) for k, scale in enumerate(s.scales)]
    return to_f16(s.d) + bytes(s.indices) + b"".join(words)


def unpack_iq3_xxs(data: bytes) -> Super:
    """Unpack IQ3_XXS: the inverse of `pack_iq3_xxs`."""
    signs, scales = _unword(data[66:])
    return Super(from_f16(data[:2]), scales, signs, list(data[2:66]))


def pack_iq3_s(s: Super) -> bytes:
    """Pack the 110 bytes of IQ3_S.

    >>> pack_iq3_s(Super(1.0, [5, 6] * 4, [0x81] * 32, [511, 2] * 32))[-44:-32].hex()
    '555555555555555581818181'
    """
    low, ninth = bytes(i & 255 for i in s.indices), pack([i >> 8 for i in s.indices], 1)
    return to_f16(s.d) + low + ninth + bytes(s.signs) + pack(s.scales, 4)


def unpack_iq3_s(data: bytes) -> Super:
    """Unpack IQ3_S: the inverse of `pack_iq3_s`."""
    ninth = unpack(data[66:74], 1, 64)
    indices = [a | b << 8 for a, b in zip(data[2:66], ninth, strict=True)]
    return Super(from_f16(data[:2]), unpack(data[106:], 4, 8), list(data[74:106]), indices)


def _word(signs: list[int], scale: int) -> bytes:
    """Pack 4 times 7 signs and a scale of 4 bits into 4 bytes."""
    word = int.from_bytes(pack([s & 127 for s in signs], 7), "little") | scale << 28
    return word.to_bytes(4, "little")


def _unword(data: bytes) -> tuple[list[int], list[int]]:
    """Return the signs, 8 bits each, and the scales of several words."""
    words = unpack(data, 32, len(data) // 4)
    signs = [even_signs(word >> 7 * k & 127) for word in words for k in range(4)]
    return signs, [word >> 28 for word in words]


LAYOUTS = {
    "IQ2_XXS": (pack_iq2_xxs, unpack_iq2_xxs, 1 / 8),
    "IQ2_XS": (pack_iq2_xs, unpack_iq2_xs, 1 / 8),
    "IQ2_S": (pack_iq2_s, unpack_iq2_s, 1 / 8),
    "IQ3_XXS": (pack_iq3_xxs, unpack_iq3_xxs, 1 / 4),
    "IQ3_S": (pack_iq3_s, unpack_iq3_s, 1.0),
}
"""Per format: pack and unpack functions, and f in value = f * d * (2 scale + 1) * m."""


def groups_iq(data: bytes, name: str) -> list[Group]:
    """Return the groups of a super-block: signed magnitudes and their f32 scale.

    >>> data = pack_iq3_s(Super(0.5, [3] * 8, [0b101] * 32, [0, 1] * 32))
    >>> g = groups_iq(data, "IQ3_S")[0]
    >>> g.levels[:8], g.scale
    ([-1, 1, -1, 1, 3, 1, 1, 1], 3.5)
    """
    _, unpack_super, factor = LAYOUTS[name]
    s = unpack_super(data)
    steps = [step for i in s.indices for step in GRIDS[name][i]]
    magnitudes = [MAGNITUDES[name][step] for step in steps]
    levels: list[int] = []
    for k, signs in enumerate(s.signs):
        levels += signed(magnitudes[8 * k : 8 * k + 8], signs)
    size = 256 // len(s.scales)
    d = s.d * factor  # exact: an f16 times a power of two
    return [
        Group(
            levels[size * k : size * (k + 1)],
            f32(d * (2 * scale + 1)),
            integer_scales=IntegerScales(d, 2 * scale + 1) if size == 16 else None,
        )
        for k, scale in enumerate(s.scales)
    ]

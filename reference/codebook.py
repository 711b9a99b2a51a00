"""IQ4_NL IQ4_XS: 4-bit codes that index a table of 16 values (a code book).

    IQ4_NL   18 bytes  d f16; 16 of nibbles
                       value = d * T[q]
    IQ4_XS  136 bytes  d f16; 2 of high scale bits; 4 of low; 128 of nibbles
                       value = d * (scale - 32) * T[q]      blocks of 32, scale 0..63

The values T are denser near zero, as weights are. Byte j of a block's nibbles holds element j in
its low half and element j + 16 in its high half. Source: `quantize_row_iq4_nl_impl` in llama.cpp's
ggml-quants.c, `kvalues_iq4nl` in ggml-common.h.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise, repeat
from operator import mul

from reference.bits import pack, pack_planes, unpack, unpack_planes
from reference.f32 import clamp, div, f32, f32s, inverse, nearest, products, total
from reference.legacy import Group, from_f16, importance_weights, to_f16
from reference.search import TINY, signed_peak

Row = Sequence[float]

T = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""The value of each code."""
MIDDLES = [(a + b) / 2 for a, b in pairwise(T)]
"""The midpoints between neighbouring values."""


def nearest_code(x: float) -> int:
    """Return the index into T of the value nearest to x; the upper one at a midpoint.

    >>> nearest_code(0.0), nearest_code(7.0), nearest_code(-1e9)
    (8, 9, 0)
    """
    return bisect_right(MIDDLES, x)


def table_search(x: Row, w: Row) -> float:
    """Return the best scale of T for x, from 16 inverse scales, as `search.symmetric_search` does.

    The first inverse scale maps the x with the largest |x| to 127, the other 15 to -134 .. -120.

    >>> table_search([-0.89, 0.16, 0.08, -0.13, 0.16, -0.54], [1.0] * 6)
    -0.007852081209421158
    """
    peak = signed_peak(x)
    if abs(peak) < TINY:
        return 0.0
    scale = best = 0.0
    for t in (None, *range(-7, 8)):
        inv = inverse(f32(-peak / T[0])) if t is None else f32((t + T[0]) / peak)
        values = [T[nearest_code(v)] for v in f32s(map(mul, repeat(inv), x))]
        wq = products(w, values)
        a, b = total(products(wq, x)), total(products(wq, values))
        if t is None or (b > 0 and f32(a * a) > f32(best * b)):
            scale = div(a, b) if b > 0 else 0.0
            best = f32(scale * a)
    return scale


def encode_iq4_nl(x: Row, w: Row | None = None) -> bytes:
    """Encode a block of IQ4_NL; w = x^2 without importance.

    >>> encode_iq4_nl([0.0] * 32).hex()
    '000088888888888888888888888888888888'
    """
    d = table_search(x, _weights(x, w))
    codes = [nearest_code(v) for v in f32s(map(mul, repeat(inverse(d)), x))]
    return to_f16(d) + pack_planes(codes, 4, 16)


def encode_iq4_xs(x: Row, w: Row | None = None) -> bytes:
    """Encode a super-block of IQ4_XS; the block scale with the largest |scale| becomes -32.

    >>> encode_iq4_xs([0.0] * 256)[:8].hex()        # d is -0.0, every scale 32 (zero)
    '0080aaaa00000000'
    """
    weights = _weights(x, w)
    blocks = [slice(s, s + 32) for s in range(0, 256, 32)]
    found = [table_search(x[b], weights[b]) for b in blocks]
    d = f32(-signed_peak(found) / 32)
    scales = [clamp(nearest(v), -32, 31) for v in f32s(map(mul, repeat(inverse(d)), found))]
    codes: list[int] = []
    for b, scale in zip(blocks, scales, strict=True):
        inv = inverse(f32(d * scale))
        codes += [nearest_code(v) for v in f32s(map(mul, repeat(inv), x[b]))]
    stored = [scale + 32 for scale in scales]
    high, low = pack([s >> 4 for s in stored], 2), pack([s & 15 for s in stored], 4)
    return to_f16(d) + high + low + pack_planes(codes, 4, 16)


def _weights(x: Row, w: Row | None) -> list[float]:
    """Return x^2, or importance * sqrt(v + x^2) with v twice the mean of x^2 in the block."""
    if w is None:
        return products(x, x)
    return importance_weights(x, w, f32(total(products(x, x)) * (2 / len(x))))


def groups_iq4_nl(data: bytes) -> list[Group]:
    """Return the values of T and the scale of a block.

    >>> groups_iq4_nl(bytes.fromhex("003c") + bytes(range(16)))[0].levels[:3]
    [-127, -104, -83]
    """
    return [Group([T[q] for q in unpack_planes(data[2:], 4, 16)], from_f16(data[:2]))]


def groups_iq4_xs(data: bytes) -> list[Group]:
    """Return the values of T and the scales of the 8 blocks of a super-block.

    >>> [g.scale for g in groups_iq4_xs(bytes.fromhex("003cffff10325476") + bytes(128))][:3]
    [16.0, 17.0, 18.0]
    """
    d, low = from_f16(data[:2]), unpack(data[4:8], 4, 8)
    scales = [a | b << 4 for a, b in zip(low, unpack(data[2:4], 2, 8), strict=True)]
    values = [T[q] for q in unpack_planes(data[8:], 4, 16)]
    return [Group(values[32 * k : 32 * k + 32], f32(d * (s - 32))) for k, s in enumerate(scales)]

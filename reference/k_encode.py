"""Encode Q2_K to Q6_K: search each block's scale, store it as an integer, recompute the codes.

A search in f32 gives each block a scale (and minimum). These are stored as integers times an f16
super-scale, so the codes are recomputed from the scales as the decoder will read them. `w`, if
given, is the importance of each column (a row of an importance matrix). Source:
`quantize_row_q2_K_impl` and its siblings in llama.cpp's ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import add, mul

from reference.f32 import clamp, f32, f32s, inverse, nearest, products, total
from reference.floats import FLOAT16, round_to
from reference.k import Super, pack_q2_k, pack_q3_k, pack_q4_k, pack_q5_k, pack_q6_k
from reference.legacy import importance_weights
from reference.search import (
    TINY,
    affine_search,
    coordinate_search,
    scale_quantizer,
    signed_peak,
    symmetric_search,
)

Row = Sequence[float]


def encode_q2_k(x: Row, w: Row | None = None) -> bytes:
    """Encode Q2_K: blocks of 16, 4-bit scale and minimum, 2-bit codes; w = |x| by default.

    >>> encode_q2_k([0.0] * 256) == bytes(84)
    True
    """
    grid = (-0.5, 0.1, 15) if w is None else (-0.9, 0.05, 36)
    weights = list(map(abs, x)) if w is None else _weights(x, w, 1)
    return pack_q2_k(_affine(x, w is None, weights, (16, 3, 15), grid, absolute=w is None))


def encode_q4_k(x: Row, w: Row | None = None) -> bytes:
    """Encode Q4_K: blocks of 32, 6-bit scale and minimum, 4-bit codes.

    >>> encode_q4_k([0.0] * 256) == bytes(144)
    True
    """
    grid = (-1.0, 0.1, 20) if w is None else (-0.9, 0.05, 36)
    weights = _own_weights(x) if w is None else _weights(x, w, 2)
    return pack_q4_k(_affine(x, w is None, weights, (32, 15, 63), grid))


def encode_q5_k(x: Row, w: Row | None = None) -> bytes:
    """Encode Q5_K: blocks of 32, 6-bit scale and minimum, 5-bit codes.

    >>> encode_q5_k([0.0] * 256) == bytes(176)
    True
    """
    grid = (-0.5, 0.1, 15) if w is None else (-0.9, 0.05, 36)
    weights = _own_weights(x) if w is None else _weights(x, w, 2)
    return pack_q5_k(_affine(x, w is None, weights, (32, 31, 63), grid))


def encode_q3_k(x: Row, w: Row | None = None) -> bytes:
    """Encode Q3_K: blocks of 16, signed 6-bit scale, 3-bit codes.

    >>> encode_q3_k([0.0] * 256) == bytes(110)
    True
    """
    if w is None:
        found = [coordinate_search(b, 4) for b in _blocks(x, 16)]
    else:
        weights = _blocks(_weights(x, w, 2), 16)
        found = [symmetric_search(b, 4, v) for b, v in zip(_blocks(x, 16), weights, strict=True)]
    scales = [scale for scale, _ in found]
    codes = [level for _, levels in found for level in levels]
    d, sixes = _q3_scales(scales, None if w is None else [total(v) for v in weights])
    steps = [f32(d * (six - 32)) if d else 0.0 for six in sixes]
    return pack_q3_k(Super(d, 0.0, sixes, [], _recode(x, codes, steps, [0.0] * 16, (-4, 3, 4))))


def _q3_scales(scales: Row, weights: Row | None) -> tuple[float, list[int]]:
    """Return the super-scale and the scales as 0..63, where 32 means zero."""
    if weights is not None:
        d, sixes = symmetric_search(scales, 32, weights)
        return round_to(d, FLOAT16), sixes
    peak = signed_peak(scales)
    if not peak:
        return 0.0, [0] * 16
    inv = f32(-32.0 / peak)
    sixes = [clamp(nearest(v), -32, 31) + 32 for v in f32s(map(mul, repeat(inv), scales))]
    return round_to(inverse(inv), FLOAT16), sixes


def encode_q6_k(x: Row, w: Row | None = None) -> bytes:
    """Encode Q6_K: blocks of 16, signed 8-bit scale, 6-bit codes; errors weigh `w` alone.

    >>> encode_q6_k([0.0] * 256) == bytes(210)
    True
    """
    blocks = _blocks(x, 16)
    weights = [None] * 16 if w is None else _blocks(w, 16)
    found = [symmetric_search(b, 32, v) for b, v in zip(blocks, weights, strict=True)]
    scales = [scale for scale, _ in found]
    codes = [level for _, levels in found for level in levels]
    peak = signed_peak(scales)
    if abs(peak) < TINY:
        return bytes(210)
    inv = f32(-128.0 / peak)
    d = round_to(inverse(inv), FLOAT16)
    eights = [min(127, nearest(v)) for v in f32s(map(mul, repeat(inv), scales))]
    steps = [f32(d * v) for v in eights]
    return pack_q6_k(Super(d, 0.0, eights, [], _recode(x, codes, steps, [0.0] * 16, (-32, 31, 32))))


def _affine(
    x: Row, plain: bool, w: Row, sizes: tuple[int, int, int], grid: tuple[float, float, int],
    absolute: bool = False,
) -> Super:  # fmt: skip
    """Encode Q2_K, Q4_K or Q5_K; `sizes` = (elements of a block, highest code, highest scale)."""
    block, n, top = sizes
    weights = _blocks(w, block)
    found = [
        affine_search(b, n, v, grid, absolute)
        for b, v in zip(_blocks(x, block), weights, strict=True)
    ]
    scales, minima = [f[0] for f in found], [f[1] for f in found]
    codes = [level for f in found for level in f[2]]
    if plain:
        (d, s), (dmin, m) = _to_integers(scales, top), _to_integers(minima, top)
    else:
        sums = [total(v) for v in weights]
        (d, s), (dmin, m) = scale_quantizer(scales, top, sums), scale_quantizer(minima, top, sums)
    d, dmin = round_to(d, FLOAT16), round_to(dmin, FLOAT16)
    steps, lows = f32s(map(mul, repeat(d), s)), f32s(map(mul, repeat(dmin), m))
    return Super(d, dmin, s, m, _recode(x, codes, steps, lows, (0, n, 0)))


def _to_integers(v: Row, top: int) -> tuple[float, list[int]]:
    """Return values >= 0 as a scale times integers 0..top.

    The integers take the low byte, as llama.cpp does, where 1 / scale overflows f32.
    """
    peak = max(0.0, *v)
    if peak <= 0:
        return 0.0, [0] * len(v)
    inv = f32(top / peak)
    return f32(peak / top), [min(top, nearest(y) & 255) for y in f32s(map(mul, repeat(inv), v))]


def _recode(
    x: Row, codes: Sequence[int], steps: Row, lows: Row, limits: tuple[int, int, int]
) -> list[int]:
    """Recompute the codes from the stored scales; a block whose scale is 0 keeps its codes."""
    low, high, zero = limits
    block = len(x) // len(steps)
    result: list[int] = []
    for k, (step, minimum) in enumerate(zip(steps, lows, strict=True)):
        columns = slice(k * block, (k + 1) * block)
        if step == 0:
            result += codes[columns]
            continue
        shifted = f32s(map(add, x[columns], repeat(minimum)))
        result += [clamp(nearest(f32(v / step)), low, high) + zero for v in shifted]
    return result


def _own_weights(x: Row) -> list[float]:
    """Return the weights without importance: sqrt(mean of x^2) + |x|, the mean over 32 elements."""
    result: list[float] = []
    for b in _blocks(x, 32):
        root = f32(f32(total(products(b, b)) / 32) ** 0.5)
        result += f32s(map(add, repeat(root), map(abs, b)))
    return result


def _weights(x: Row, w: Row, factor: int) -> list[float]:
    """Return importance * sqrt(v + x^2), v = factor * mean of x^2 over the super-block."""
    return importance_weights(x, w, f32(f32(factor * total(products(x, x))) / 256))


def _blocks(x: Row, size: int) -> list[Row]:
    return [x[start : start + size] for start in range(0, len(x), size)]

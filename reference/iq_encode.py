"""Encode IQ2_XXS to IQ3_S: split off the signs, then search a scale and grid points per block.

Each block tries several inverse scales, as in search.py: magnitudes become odd numbers 2 * step +
1, the steps move to grid points, and the least squares scale of the points rates the try. Points
that were off the grid move once more, with the best scale. All arithmetic is f32, one rounding per
operator, sums in element order. Source: `quantize_row_iq2_xxs_impl` and its siblings in llama.cpp's
ggml-quants.c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat
from operator import add, mul
from typing import NamedTuple

from reference.f32 import clamp, div, f32, f32s, nearest, products, total
from reference.floats import FLOAT16, round_to
from reference.grids import GRIDS, INDEX, Point, snap
from reference.iq import LAYOUTS, Super
from reference.legacy import importance_weights
from reference.search import scale_quantizer

Row = Sequence[float]


class Rules(NamedTuple):
    """The differences between the formats.

    `block` elements share a scale; 2 `tries` + 1 inverse scales lie `spread` apart; `factor`
    multiplies the mean of x^2 in weights; blocks below `tiny` are stored as zero; `even` formats
    store 7 of 8 signs; `fudge` multiplies the stored super-scale.
    """

    block: int
    tries: int
    spread: float
    factor: int
    tiny: float
    even: bool
    fudge: float


RULES = {
    "IQ2_XXS": Rules(32, 6, f32(0.1), 1, f32(1e-15), True, 1.0),
    "IQ2_XS": Rules(16, 9, f32(0.1), 1, f32(1e-15), True, 1.0),
    "IQ2_S": Rules(16, 9, f32(0.1), 2, f32(1e-8), False, f32(0.9875)),
    "IQ3_XXS": Rules(32, 15, f32(0.2), 2, f32(1e-8), True, f32(1.0125)),
    "IQ3_S": Rules(32, 9, f32(0.2), 2, 2.0**-149, False, f32(1.033)),
}
"""The rules by format."""


class Block(NamedTuple):
    """The result for a block: f32 scale, a byte of signs for every 8 elements, grid indices."""

    scale: float
    signs: list[int]
    indices: list[int]


def encode_iq(x: Row, w: Row | None, name: str) -> bytes:
    """Encode a super-block; `w` is the importance, which IQ2_XXS and IQ2_XS need.

    A block's scale is stored as the nearest of 1, 3, .. 31 times 1/31 of the largest.

    >>> encode_iq([0.0] * 256, None, "IQ3_XXS") == bytes(98)
    True
    >>> encode_iq([1.0, -1.0] * 128, [1.0] * 256, "IQ2_XXS")[:10].hex()
    'f420bdbdbdbd2a954af5'
    """
    size = RULES[name].block
    weights = _weights(x, w, name)
    slices = [slice(start, start + size) for start in range(0, 256, size)]
    blocks = [_encode_block(x[s], weights[s], name) for s in slices]
    d = f32(max(b.scale for b in blocks) / 31)
    inv = div(1.0, d)
    scales = [_step(f32(inv * b.scale), 15) if d else 0 for b in blocks]
    signs, indices = [s for b in blocks for s in b.signs], [i for b in blocks for i in b.indices]
    if name == "IQ3_S":
        signs, indices = _close_gaps(x, signs, indices)
    d = round_to(f32(d * RULES[name].fudge), FLOAT16)
    return LAYOUTS[name][0](Super(d, scales, signs, indices))


def _weights(x: Row, w: Row | None, name: str) -> list[float]:
    """Return importance * sqrt(v + x^2), v = factor * mean x^2; else x^2 (IQ2_S: x^2 + v / 4)."""
    squares = products(x, x)
    v = f32(f32(RULES[name].factor * total(squares)) / 256)
    if w is not None:
        return importance_weights(x, w, v)
    return f32s(map(add, repeat(f32(0.25 * v)), squares)) if name == "IQ2_S" else squares


def _close_gaps(x: Row, signs: list[int], indices: list[int]) -> tuple[list[int], list[int]]:
    """Reproduce how llama.cpp stores IQ3_S super-blocks in which a block of 32 is all zero.

    The low index bytes and the signs of later blocks move up into the place of the zero block; the
    ninth index bits and the scales do not. Such weights decode to other values.
    """
    zero = [not any(x[start : start + 32]) for start in range(0, 256, 32)]
    low = [i & 255 for k, i in enumerate(indices) if not zero[k // 8]]
    moved = [s for k, s in enumerate(signs) if not zero[k // 4]]
    low += [0] * (64 - len(low))
    ninth = [i & 256 for i in indices]
    return moved + [0] * (32 - len(moved)), list(map(add, low, ninth))


def _encode_block(x: Row, w: Row, name: str) -> Block:
    """Search the scale, signs and indices of a block."""
    rules = RULES[name]
    split = [_split_signs(x[k : k + 8], w[k : k + 8], rules.even) for k in range(0, len(x), 8)]
    magnitudes, signs = [v for m, _ in split for v in m], [s for _, s in split]
    found = _search(magnitudes, w, name) if max(magnitudes) >= rules.tiny else None
    if found is None:
        count = len(x) // len(GRIDS[name][0])
        return Block(0.0, [0] * len(signs), [0] * count)
    scale, points = found
    if scale < 0:
        scale, signs = -scale, [~s & 255 for s in signs]
    return Block(scale, signs, [INDEX[name][point] for point in points])


def _split_signs(x: Row, w: Row, even: bool) -> tuple[list[float], int]:
    """Return 8 magnitudes and their sign bits.

    With `even` an odd number of negative elements is made even: the sign with the least weighted
    effect is flipped, and its magnitude becomes negative.
    """
    magnitudes, signs = [abs(v) for v in x], sum((v < 0) << j for j, v in enumerate(x))
    if even and signs.bit_count() % 2:
        harm = products(w, x, x)
        least = harm.index(min(harm))
        magnitudes[least] *= -1
        signs ^= 1 << least
    return magnitudes, signs


def _search(x: Row, w: Row, name: str) -> tuple[float, list[Point]] | None:
    """Return the scale and the grid points for magnitudes x that are not all tiny."""
    rules, (top, size) = RULES[name], _shape(name)
    everything = name in ("IQ2_XXS", "IQ3_S")
    roots = f32s(map(math.sqrt, w))
    if name == "IQ2_XXS":
        scale = scale_quantizer(x, top + 2, w)[0]
        peak = f32(scale * (top + 1))
        if peak <= 0:
            return None
    else:
        peak = max(x)
        scale = f32(peak / (2 * top + 1))
    points, best = [(0,) * size] * (len(x) // size), 0.0
    off = [name == "IQ3_S"] * len(points)
    for t in range(-rules.tries, rules.tries + 1):
        inv = f32(f32(2 * top + 1 + f32(t * rules.spread)) / peak)
        wanted = _points(x, inv, name)
        tried = _snap_all(wanted, x, roots, div(1.0, inv), name)
        a, b = _sums(x, w, tried)
        if b > 0 and f32(a * a) > f32(best * b):
            scale, points = f32(a / b), tried
            best = f32(scale * a)
            off = [p != q for p, q in zip(wanted, tried, strict=True)]
    if scale > 0 and (name == "IQ2_XXS" or any(off)):
        again = _snap_all(_points(x, div(1.0, scale), name), x, roots, scale, name)
        points = [q if o or everything else p for p, q, o in zip(points, again, off, strict=True)]
        a, b = _sums(x, w, points)
        scale = f32(a / b) if b > 0 else scale
    return scale, points


def _shape(name: str) -> tuple[int, int]:
    """Return the highest step of a grid and the elements of a point."""
    return (2, 8) if name.startswith("IQ2") else (7, 4)


def _step(x: float, top: int) -> int:
    """Return the step for which 2 * step + 1 is nearest to x."""
    return clamp(nearest(f32(0.5 * f32(x - 1))), 0, top)


def _points(x: Row, inv: float, name: str) -> list[Point]:
    """Round x * inv to steps, grouped into points that may be off the grid."""
    top, size = _shape(name)
    steps = [_step(v, top) for v in f32s(map(mul, repeat(inv), x))]
    return [tuple(steps[k : k + size]) for k in range(0, len(steps), size)]


def _snap_all(points: list[Point], x: Row, w: Row, scale: float, name: str) -> list[Point]:
    """Move all points to the grid."""
    top, size = _shape(name)
    values = f32s(map(mul, repeat(scale), range(1, 2 * top + 2, 2)))
    slices = [slice(k, k + size) for k in range(0, len(x), size)]
    return [snap(name, p, x[s], w[s], values) for p, s in zip(points, slices, strict=True)]


def _sums(x: Row, w: Row, points: list[Point]) -> tuple[float, float]:
    """Return sum(w x l) and sum(w l l) for l = 2 * step + 1."""
    odd = [2 * step + 1 for point in points for step in point]
    return total(products(w, x, odd)), total(products(w, odd, odd))

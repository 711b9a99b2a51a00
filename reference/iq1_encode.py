"""Encode IQ1_S and IQ1_M: take the best split of each block and move its values to the grid.

A split (iq1_splits.py) says which elements become -1, 0 and 1 and how they are shifted. The steps
of the best split are moved to grid points, and the scale is fitted again. All arithmetic is f32
with one rounding per operator and sums in element order. Source: `quantize_row_iq1_s_impl` and
`quantize_row_iq1_m_impl` in llama.cpp's ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from operator import mul
from typing import NamedTuple

from reference.f32 import clamp, div, f32, f32s, nearest, products, total
from reference.floats import FLOAT16, FLOAT32, round_to
from reference.grids import INDEX, Point, snap
from reference.iq1 import Super, pack_iq1_m, pack_iq1_s
from reference.iq1_splits import VALUES, Split, splits_of_block, splits_of_halves
from reference.legacy import importance_weights

Row = Sequence[float]

TINY_S, TINY_M = f32(1e-12), f32(1e-7)
"""Blocks whose largest |x| is below this are stored as zero, in IQ1_S and in IQ1_M."""


class Block(NamedTuple):
    """The result for a block: its f32 scale, and a shift and a grid point for every 8 elements."""

    scale: float
    shifts: list[int]
    points: list[Point]


def encode_iq1_s(x: Row, w: Row | None = None) -> bytes:
    """Encode a super-block of IQ1_S; the format needs importance.

    >>> encode_iq1_s([0.0] * 256, [1.0] * 256) == bytes(50)
    True
    """
    weights = _weights(x, w)
    slices = [slice(start, start + 32) for start in range(0, 256, 32)]
    blocks = [_encode_block(x[s], weights[s], splits_of_block, TINY_S) for s in slices]
    d = f32(max(b.scale for b in blocks) / 15)
    return pack_iq1_s(_super(blocks, round_to(f32(d * 1.125), FLOAT16), _scales(blocks, d)))


def encode_iq1_m(x: Row, w: Row | None = None) -> bytes:
    """Encode a super-block of IQ1_M; its super-scale is fitted to all elements at the end.

    >>> encode_iq1_m([0.0] * 256) == bytes(56)
    True
    """
    weights = _weights(x, w)
    slices = [slice(start, start + 16) for start in range(0, 256, 16)]
    blocks = [_encode_block(x[s], weights[s], splits_of_halves, TINY_M) for s in slices]
    d = f32(max(b.scale for b in blocks) / 15)
    scales = _scales(blocks, d)
    if d:
        values = [v * (2 * s + 1) for b, s in zip(blocks, scales, strict=True) for v in _values(b)]
        a, b = _sums(x, weights, values)
        d = f32(a / b) if b > 0 else d
    return pack_iq1_m(_super(blocks, round_to(f32(d * f32(1.1125)), FLOAT16), scales))


def _super(blocks: list[Block], d: float, scales: list[int]) -> Super:
    """Gather the fields of a super-block for packing."""
    indices = [INDEX["IQ1"][point] for b in blocks for point in b.points]
    return Super(d, scales, [shift for b in blocks for shift in b.shifts], indices)


def _scales(blocks: list[Block], d: float) -> list[int]:
    """Return the scales as 0..7: the nearest of 1, 3, .. 15 times d."""
    inv = div(1.0, d)
    odd = [f32(inv * b.scale) if d else 0.0 for b in blocks]
    return [clamp(nearest(f32(0.5 * f32(v - 1))), 0, 7) for v in odd]


def _weights(x: Row, w: Row | None) -> list[float]:
    """Return x^2, or importance * sqrt(v + x^2) with v twice the mean of x^2 in the super-block."""
    squares = products(x, x)
    if w is None:
        return squares
    return importance_weights(x, w, f32(f32(2 * total(squares)) / 256))


def _encode_block(x: Row, w: Row, splits: Callable[..., Iterator[Split]], tiny: float) -> Block:
    """Find the best split of a block and move it to the grid."""
    nothing = Block(0.0, [0] * (len(x) // 8), [(0,) * 8] * (len(x) // 8))
    if max(map(abs, x)) < tiny:
        return nothing
    order = sorted(range(len(x)), key=x.__getitem__)  # stable: equal elements stay in order
    best, scale, score = None, 0.0, -FLOAT32.largest
    for split in splits(x, w, order):
        if split.b > 0 and f32(split.a * split.a) > f32(score * split.b):
            best, scale = split, f32(split.a / split.b)
            score = f32(scale * split.a)
    if best is None:
        return nothing
    steps = [0] * len(x)
    for rank, j in enumerate(order):
        steps[j] = (rank >= best.first) + (rank >= best.second)
    if scale < 0:
        mirrored = [1 - shift for shift in best.shifts]
        return _on_grid(x, w, [2 - step for step in steps], mirrored, -scale)
    return _on_grid(x, w, steps, best.shifts, scale)


def _on_grid(x: Row, w: Row, steps: list[int], shifts: list[int], scale: float) -> Block:
    """Move the steps to grid points; fit the scale again if a point changed."""
    wanted: list[Point] = [tuple(steps[k : k + 8]) for k in range(0, len(x), 8)]
    points = []
    for k, (point, shift) in enumerate(zip(wanted, shifts, strict=True)):
        eight, values = slice(8 * k, 8 * k + 8), f32s(map(mul, repeat(scale), VALUES[shift]))
        points.append(snap("IQ1", point, x[eight], w[eight], values))
    block = Block(scale, shifts, points)
    if points == wanted:
        return block
    a, b = _sums(x, w, _values(block))
    return block._replace(scale=f32(a / b)) if a > 0 and b > 0 else block


def _values(block: Block) -> list[float]:
    """Return the unscaled values of a block."""
    pairs = zip(block.points, block.shifts, strict=True)
    return [VALUES[shift][step] for point, shift in pairs for step in point]


def _sums(x: Row, w: Row, values: Row) -> tuple[float, float]:
    """Return sum(w v x) and sum(w v v)."""
    return total(products(w, values, x)), total(products(w, values, values))

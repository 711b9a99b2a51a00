"""The grids of the IQ formats: which combinations of 8 (or 4) magnitudes an index can name.

A few bits per element are too few for a code each. So 8 magnitudes (4 in the IQ3 formats) have one
index together, into a table of the combinations that occur most; what lies on no point of that grid
is stored as one that lies near. The points are data: grids.txt, which says how to read it.

The magnitudes of a point are themselves indices, here called steps: 0, 1, 2 stand for 8, 25, 43
when decoding IQ2, but for 1, 3, 5 when encoding; ``2 * step + 1`` is what all IQ2 and IQ3 encoders
work with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import repeat
from operator import add, mul, sub
from pathlib import Path

from reference.f32 import f32s, products

Row = Sequence[float]
Point = tuple[int, ...]
"""The steps of one entry."""

MAGNITUDES = {
    "IQ2_XXS": (8, 25, 43),
    "IQ2_XS": (8, 25, 43),
    "IQ2_S": (8, 25, 43),
    "IQ1": (-1, 0, 1),
    "IQ3_XXS": (4, 12, 20, 28, 36, 44, 52, 62),
    "IQ3_S": (1, 3, 5, 7, 9, 11, 13, 15),
}
"""What the steps stand for when decoding; all but IQ1's have signs elsewhere."""

SHELLS = {"IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ1": 3, "IQ3_XXS": 2, "IQ3_S": 3}
"""How many of the smallest distances encoders consider."""


def read_grids(text: str) -> dict[str, list[Point]]:
    """The grids by name.

    >>> read_grids("# comment\\nTINY 3 4 2\\n00 e4 24")
    {'TINY': [(0, 0, 0, 0), (0, 1, 2, 3), (0, 1, 2, 0)]}
    """
    words = [w for line in text.splitlines() if not line.startswith("#") for w in line.split()]
    grids = {}
    while words:
        entries, dimensions, bits = map(int, words[1:4])
        shifts = range(0, dimensions * bits, bits)
        codes = [int(word, 16) for word in words[4 : 4 + entries]]
        grids[words[0]] = [tuple(c >> s & (1 << bits) - 1 for s in shifts) for c in codes]
        words = words[4 + entries :]
    return grids


GRIDS = read_grids(Path(__file__).with_name("grids.txt").read_text("ascii"))
COLUMNS = {name: list(zip(*grid, strict=True)) for name, grid in GRIDS.items()}
"""The same by element: the steps of all entries."""
INDEX = {name: {point: i for i, point in enumerate(grid)} for name, grid in GRIDS.items()}
"""The way back, from a point to its index."""


@cache
def neighbours(name: str, point: Point) -> list[Point]:
    """The entries of a grid at the smallest distances from a point that is not on it.

    In order of distance, then of index; the entries at one distance are a shell, and the grid's
    number of `SHELLS` are taken whole.

    >>> neighbours("IQ3_S", (7, 7, 7, 7))
    [(6, 4, 4, 5), (6, 5, 5, 3), (5, 6, 3, 5), (3, 5, 5, 5)]
    """
    distances = [0] * len(GRIDS[name])
    for column, step in zip(COLUMNS[name], point, strict=True):
        off = list(map(sub, column, repeat(step)))
        distances = list(map(add, distances, map(mul, off, off)))
    last = sorted(set(distances))[: SHELLS[name]][-1]
    near = sorted((d, i) for i, d in enumerate(distances) if d <= last)
    return [GRIDS[name][i] for _, i in near]


def snap(name: str, point: Point, x: Row, w: Row, values: Row) -> Point:
    """The point itself if it is on the grid, else the neighbour nearest to x.

    `values`: what the steps stand for, scaled, in f32. The distance is sum(w e e) with e = value -
    x; a first one wins.

    >>> odd = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]
    >>> snap("IQ3_S", (7, 7, 7, 7), [15.0] * 4, [1.0, 1.0, 1.0, 2.0], odd)
    (6, 4, 4, 5)
    """
    if point in INDEX[name]:
        return point
    near = neighbours(name, point)
    distances = [0.0] * len(near)
    for column, v, weight in zip(zip(*near, strict=True), x, w, strict=True):
        off = f32s(map(sub, values, repeat(v)))
        terms = products([weight] * len(off), off, off)
        distances = f32s(map(add, distances, [terms[step] for step in column]))
    return near[distances.index(min(distances))]


def even_signs(code: int) -> int:
    """7 sign bits with the eighth that makes their number even: what is stored of 8 signs.

    >>> bin(even_signs(0b0000111)), bin(even_signs(0b0000011))
    ('0b10000111', '0b11')
    """
    return code | (code.bit_count() & 1) << 7


def signed(magnitudes: Sequence[int], signs: int) -> list[int]:
    """The magnitudes, negative where bit j of `signs` is set.

    >>> signed([8, 25, 43], 0b101)
    [-8, 25, -43]
    """
    return [-m if signs >> j & 1 else m for j, m in enumerate(magnitudes)]

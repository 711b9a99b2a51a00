"""Grids of the IQ formats: tables of points, each the magnitudes of 8 (or 4) neighbouring weights.

A few bits per weight are too few for one code each. The IQ formats store one index for 8 magnitudes
(4 in the IQ3 formats) together. The index names a point of a grid, a table of frequent
combinations; a combination that is not on the grid is stored as a nearby point. The points are
data, in grids.txt, whose header gives the file format.

A point lists a step for each magnitude, itself an index: when decoding IQ2, steps 0, 1, 2 mean 8,
25, 43 (`MAGNITUDES`); all IQ2 and IQ3 encoders compute with 2 * step + 1 = 1, 3, 5 instead. Source:
`iq2xxs_grid` and its siblings in llama.cpp's ggml-common.h.
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
"""The steps of one grid point."""

MAGNITUDES = {
    "IQ2_XXS": (8, 25, 43),
    "IQ2_XS": (8, 25, 43),
    "IQ2_S": (8, 25, 43),
    "IQ1": (-1, 0, 1),
    "IQ3_XXS": (4, 12, 20, 28, 36, 44, 52, 62),
    "IQ3_S": (1, 3, 5, 7, 9, 11, 13, 15),
}
"""The decoded value of each step; IQ1 has signed values, the others store signs separately."""

SHELLS = {"IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ1": 3, "IQ3_XXS": 2, "IQ3_S": 3}
"""The number of smallest distances at which encoders look for neighbours."""


def read_grids(text: str) -> dict[str, list[Point]]:
    """Parse grids.txt: the points of each grid by name.

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
"""The grids transposed: for each element of a point the steps of all points."""
INDEX = {name: {point: i for i, point in enumerate(grid)} for name, grid in GRIDS.items()}
"""The index of each point."""


@cache
def neighbours(name: str, point: Point) -> list[Point]:
    """Return the grid points at the smallest distances from a point that is not on the grid.

    They are sorted by distance, then by index. The points at one distance form a shell; the
    function returns the nearest `SHELLS[name]` shells in full. Source: `iq2xs_init_impl`,
    `iq3xs_init_impl`.

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
    """Return the point if it is on the grid, else the neighbour nearest to x.

    `values` are the scaled values of the steps, in f32. The distance is sum(w e e) with e = value -
    x; the first of equals is returned. Source: `iq2_find_best_neighbour` of llama.cpp.

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
    """Return 7 sign bits and an eighth that makes the number of set bits even.

    >>> bin(even_signs(0b0000111)), bin(even_signs(0b0000011))
    ('0b10000111', '0b11')
    """
    return code | (code.bit_count() & 1) << 7


def signed(magnitudes: Sequence[int], signs: int) -> list[int]:
    """Negate the magnitudes j whose bit j of `signs` is set.

    >>> signed([8, 25, 43], 0b101)
    [-8, 25, -43]
    """
    return [-m if signs >> j & 1 else m for j, m in enumerate(magnitudes)]

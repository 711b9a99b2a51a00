"""List all splits of an IQ1 block into values -1, 0 and 1, with the sums that rate each split.

If the block is sorted by x, two borders split it into the elements that become -1, 0 and 1. Running
sums of w x and w give the sums of a split in a few operations, so every pair of borders is tried
with every shift. The order of operations and the order of the splits are those of
`quantize_row_iq1_s_impl` and `quantize_row_iq1_m_impl` in llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, product, repeat
from operator import add, mul, sub
from typing import NamedTuple

from reference.f32 import f32, f32s, products

Row = Sequence[float]

VALUES = ((-0.875, 0.125, 1.125), (-1.125, -0.125, 0.875))
"""The values of steps 0, 1, 2, shifted up by 1/8 (index 0) and down by 1/8 (index 1)."""


class Split(NamedTuple):
    """A split: in order of x, elements before `first` become -1, elements from `second` on 1.

    a = sum(w x v) and b = sum(w v v) with the resulting values v: a / b is the best scale, and a a
    / b is how much it lowers the squared error. `shifts` has one shift for every 8 elements.
    """

    a: float
    b: float
    first: int
    second: int
    shifts: list[int]


def splits_of_block(x: Row, w: Row, order: list[int]) -> Iterator[Split]:
    """Yield all splits with one shift for the entire block (IQ1_S).

    >>> splits = splits_of_block([3.0, -3.0, 0.5] + [0.0] * 5, [1.0] * 8, [1, 3, 4, 5, 6, 7, 2, 0])
    >>> max(splits, key=lambda s: s.a**2 / s.b)
    Split(a=6.0625, b=2.125, first=1, second=7, shifts=[0])
    """
    running_a, running_b = _running(products(w, x), order), _running(w, order)
    for first in range(len(order) + 1):
        thirds_a, thirds_b = _thirds(running_a, first), _thirds(running_b, first)
        a = [_mix(thirds_a, v, 1) for v in VALUES]
        b = [_mix(thirds_b, v, 2) for v in VALUES]
        for k in range(len(order) + 1 - first):
            for shift in (0, 1):
                yield Split(a[shift][k], b[shift][k], first, first + k, [shift] * (len(x) // 8))


def splits_of_halves(x: Row, w: Row, order: list[int]) -> Iterator[Split]:
    """Yield all splits of 16 elements with one shift for each half (IQ1_M).

    >>> len(list(splits_of_halves([0.0] * 16, [1.0] * 16, [*range(16)])))       # 17 * 18 / 2 * 4
    612
    """
    wx = products(w, x)
    running_a = [_running([*wx[:8], *[0.0] * 8], order), _running([*[0.0] * 8, *wx[8:]], order)]
    running_b = [_running([*w[:8], *[0.0] * 8], order), _running([*[0.0] * 8, *w[8:]], order)]
    for first in range(len(order) + 1):
        a = [[_half_a(running, first, v) for v in VALUES] for running in running_a]
        b = [[_half_b(running, first, v) for v in VALUES] for running in running_b]
        sums = [
            (f32s(map(add, a[0][s], a[1][t])), f32s(map(add, b[0][s], b[1][t])), [s, t])
            for s, t in product((0, 1), (0, 1))
        ]
        for k in range(len(order) + 1 - first):
            for a_k, b_k, shifts in sums:
                yield Split(a_k[k], b_k[k], first, first + k, shifts)


def _running(terms: Row, order: list[int]) -> list[float]:
    """Return the sums of the first 0, 1, 2, ... terms."""
    return list(accumulate((terms[j] for j in order), lambda s, v: f32(s + v), initial=0.0))


def _thirds(running: Row, first: int) -> list[list[float]]:
    """Return for each second border the sums over the low, middle and high elements."""
    low, ends = running[first], running[first:]
    middle, high = f32s(map(sub, ends, repeat(low))), f32s(map(sub, repeat(ends[-1]), ends))
    return [[low] * len(ends), middle, high]


def _mix(thirds: list[list[float]], values: Row, times: int) -> list[float]:
    """Add up the three sums, each multiplied by its value `times` times (1 or 2)."""
    low, middle, high = (
        products(t, *[[v] * len(t)] * times) for t, v in zip(thirds, values, strict=True)
    )
    return f32s(map(add, f32s(map(add, low, middle)), high))


def _half_a(running: Row, first: int, v: Row) -> list[float]:
    """Return sum(w x v): the values differ by 1, so v2 * total minus the sums up to each border."""
    below = f32s(map(add, repeat(running[first]), running[first:]))
    return f32s(map(sub, repeat(f32(running[-1] * v[2])), below))


def _half_b(running: Row, first: int, v: Row) -> list[float]:
    """Return sum(w v v): like `_half_a` with squared values, which do not differ by 1."""
    at_first, at_second = v[0] * v[0] - v[1] * v[1], v[1] * v[1] - v[2] * v[2]
    highest = f32(f32(running[-1] * v[2]) * v[2])
    start = f32(highest + f32(running[first] * at_first))
    return f32s(map(add, repeat(start), f32s(map(mul, running[first:], repeat(at_second)))))

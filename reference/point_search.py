"""The points of a code book that suit eight columns best when errors of columns are correlated.

For values v of eight columns the cost is v M v - 2 v b. `search` tries the signs of M^-1 b, its
minimum, with all points; the best flip of signs for the best point; and all points again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from reference.error_feedback import Matrix, factor
from reference.f32 import f32
from reference.grids import GRIDS, MAGNITUDES

Row = Sequence[float]
EVEN = ("IQ2_XXS", "IQ2_XS", "IQ3_XXS")
"""Formats in which the number of minus signs of eight columns is even."""


class Target(NamedTuple):
    """The cost of the values of eight columns, and M^-1 b."""

    m: Matrix
    b: Row
    t: Row

    def cost(self, v: Row) -> float:
        """Return v M v - 2 v b.

        >>> Target([[2.0, 0.0], [0.0, 1.0]], [1.0, 0.0], []).cost([1.0, 2.0])
        4.0
        """
        return sum(x * (sum(map(float.__mul__, line, v)) - 2 * b)
                   for x, line, b in zip(v, self.m, self.b, strict=True))  # fmt: skip


class Eight(NamedTuple):
    """One point of eight magnitudes, or two of four, and signs; of IQ1 -1 moves values down."""

    points: tuple[tuple[float, ...], ...]
    signs: tuple[int, ...]

    def values(self, name: str, scale: float) -> list[float]:
        """Return the values that these columns have at a scale.

        >>> Eight(((0.0,) * 8,), (-1,)).values("IQ1_S", 0.5)[0]
        -0.5
        """
        magnitudes = [m for point in self.points for m in point]
        if name.startswith("IQ1"):
            return [f32(scale * (m + self.signs[0])) for m in magnitudes]
        return [f32(scale * m * s) for m, s in zip(magnitudes, self.signs, strict=True)]


def book(name: str) -> list[tuple[float, ...]]:
    """Return the points of a format in units of its scale; of IQ1 before they move by 1.

    >>> book("IQ2_XXS")[1], book("IQ1_S")[0]
    ((43.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0), (-8.0, -8.0, -8.0, -8.0, -8.0, -8.0, -8.0, -8.0))
    """
    if name.startswith("IQ1"):
        return [tuple(8.0 * (step - 1) for step in point) for point in GRIDS["IQ1"]]
    return [tuple(float(MAGNITUDES[name][step]) for step in point) for point in GRIDS[name]]


def search(target: Target, name: str, scale: float, shift: int) -> tuple[Eight, float]:
    """Return the best points and signs found, and their cost; `shift` is that of IQ1_S.

    >>> m = [[float(i == j) for j in range(8)] for i in range(8)]
    >>> x = [8.0, -8.0, 8.0, 8.0, -43.0, 8.0, 8.0, 8.0]
    >>> found, cost = search(Target(m, x, x), "IQ2_XXS", 1.0, 1)
    >>> found.values("IQ2_XXS", 1.0) == x, cost
    (True, -2297.0)
    """
    if name.startswith("IQ1"):
        shifts = (1, -1) if name == "IQ1_M" else (shift,)
        return min((_all_points(target, name, scale, (s,)) for s in shifts), key=lambda f: f[1])
    signs = [-1 if x < 0 else 1 for x in target.t]
    if name in EVEN and signs.count(-1) % 2:
        weights = [x * x * target.m[j][j] for j, x in enumerate(target.t)]
        signs[weights.index(min(weights))] *= -1
    best = _all_points(target, name, scale, tuple(signs))
    for _ in range(2):
        flipped = _best_flip(target, name, scale, best)
        if flipped == best[0].signs:
            break
        best = min(best, _all_points(target, name, scale, flipped), key=lambda f: f[1])
    return best


def _best_flip(
    target: Target, name: str, scale: float, found: tuple[Eight, float]
) -> tuple[int, ...]:
    eight, best = found
    out = eight.signs
    for i, j in product(range(8), repeat=2):
        if j < i + (name in EVEN):
            continue
        signs = tuple(-s if k in (i, j) else s for k, s in enumerate(eight.signs))
        cost = target.cost(Eight(eight.points, signs).values(name, scale))
        if cost < best:
            best, out = cost, signs
    return out


def _all_points(
    target: Target, name: str, scale: float, signs: tuple[int, ...]
) -> tuple[Eight, float]:
    points = book(name)
    if len(points[0]) == 8:
        found = _least(target, name, scale, [Eight((p,), signs) for p in points])
    else:  # the first with t for the second, the second, the first again
        rest = points[0]
        a = _half(target, name, scale, [Eight((p, rest), signs) for p in points])
        b = _least(target, name, scale, [Eight((a, p), signs) for p in points]).points[1]
        found = _least(target, name, scale, [Eight((p, b), signs) for p in points])
    return found, target.cost(found.values(name, scale))


def _least(target: Target, name: str, scale: float, eights: list[Eight]) -> Eight:
    return min(eights, key=lambda eight: target.cost(eight.values(name, scale)))


def _half(target: Target, name: str, scale: float, eights: list[Eight]) -> tuple[float, ...]:
    """Return the best first point if the second had the values of t."""
    rest = list(target.t[4:])
    return min(eights, key=lambda e: target.cost(e.values(name, scale)[:4] + rest)).points[0]


def solve(m: Matrix, b: Row) -> list[float]:
    """Return M^-1 b of a positive definite matrix.

    >>> solve([[4.0, 2.0], [2.0, 3.0]], [8.0, 8.0])
    [1.0, 2.0]
    """
    found = factor(m)
    assert found, "not positive definite"
    lower, pivots = found
    x = list(b)
    for i in range(len(x)):
        x[i] -= sum(lower[i][k] * x[k] for k in range(i))
    x = [v / d for v, d in zip(x, pivots, strict=True)]
    for i in reversed(range(len(x))):
        x[i] -= sum(lower[k][i] * x[k] for k in range(i + 1, len(x)))
    return x

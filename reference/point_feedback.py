"""Error feedback and descent for formats of code books: eight columns at a time.

A point stands for the magnitudes of 8 or 4 columns, so columns cannot be rounded one by one. For
eight columns with the weights w the cost is a quadratic in their values v, v M v - 2 v b:

    feedback  M = L D L^T of these columns, b = M w + L D a, a = what later columns feed into them
    descent   M = H of these columns, b = M v + g, v their values now and g = (e H) there

Scales stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference.descent_scales import gradient
from reference.error_feedback import Matrix, damped, factor
from reference.formats import groups_of
from reference.iq1 import unpack_iq1_m, unpack_iq1_s
from reference.point_search import Target, search, solve

Row = Sequence[float]


def improve(
    data: bytes, name: str, weights: Row, h: Matrix, damping: float, sweeps: int
) -> list[float]:
    """Return the values of an encoded row after feedback and descent.

    >>> h = [[float(i == j) for j in range(256)] for i in range(256)]
    >>> improve(bytes(66), "IQ2_XXS", [1.0] * 256, h, 0.01, 1) == [0.0] * 256    # no scale
    True
    """
    n, groups = len(weights), groups_of(data, name, len(weights))
    size = n // len(groups)
    scales = [groups[8 * k // size].scale for k in range(n // 8)]
    shifts = [1] * (n // 8)
    if name.startswith("IQ1"):
        unpack, block = (unpack_iq1_s, 50) if name == "IQ1_S" else (unpack_iq1_m, 56)
        stored = [s for i in range(0, len(data), block) for s in unpack(data[i : i + block]).shifts]
        shifts = [-1 if shift else 1 for shift in stored]
    values = _feed_back(name, weights, h, damping, (scales, shifts))
    lower = damped(h, 0.1 * damping)
    for _ in range(sweeps):
        changed = False
        for k, scale in enumerate(scales):
            at, e = slice(8 * k, 8 * k + 8), [w - v for w, v in zip(weights, values, strict=True)]
            m = [line[at] for line in lower[at]]
            b = [sum(map(float.__mul__, line, values[at])) + gradient(e, lower, 8 * k + j)
                 for j, line in enumerate(m)]  # fmt: skip
            target = Target(m, b, solve(m, b))
            old = target.cost(values[at])
            found, cost = search(target, name, scale, shifts[k]) if scale else (None, old)
            if found and cost < old - 1e-12 * abs(old):
                values[at], changed = found.values(name, scale), True
        if not changed:
            break
    return values


def _feed_back(
    name: str, weights: Row, h: Matrix, damping: float, stored: tuple[list[float], list[int]]
) -> list[float]:
    n, (scales, shifts) = len(weights), stored
    order = sorted(range(n // 8), key=lambda k: (sum(h[j][j] for j in range(8 * k, 8 * k + 8)), -k))
    columns = [j for k in order for j in range(8 * k, 8 * k + 8)]
    found = factor(damped([[h[i][j] for j in columns] for i in columns], damping))
    assert found, "damping did not make the matrix positive definite"
    lower, pivots = found
    values, errors = [0.0] * n, [0.0] * n
    for q in reversed(range(n // 8)):
        k, at = order[q], range(8 * q, 8 * q + 8)
        w = list(weights[8 * k : 8 * k + 8])
        fed = [sum(errors[i] * lower[i][p] for i in range(8 * q + 8, n)) for p in at]
        m = [[sum(lower[i][p] * pivots[p] * lower[j][p] for p in at) for j in at] for i in at]
        b = [sum(map(float.__mul__, line, w))
             + sum(lower[i][p] * pivots[p] * a for p, a in zip(at, fed, strict=True))
             for i, line in zip(at, m, strict=True)]  # fmt: skip
        if scales[k]:
            eight, _ = search(Target(m, b, solve(m, b)), name, scales[k], shifts[k])
            values[8 * k : 8 * k + 8] = eight.values(name, scales[k])
        for p, x, v in zip(at, w, values[8 * k : 8 * k + 8], strict=True):
            errors[p] = x - v
    return values

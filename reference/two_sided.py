"""Error feedback and descent that see inputs and outputs: errors of one row make up for others.

The loss knows a layer's outputs y by its gradient g. With G = E[g g^T], and labels sampled from
the model itself, G and H = E[x x^T] are the two factors of the Fisher matrix (K-FAC, arXiv
1503.05671): half of tr(G E H E^T) is the KL divergence that a small error E costs. With
G = LO DO LO^T and H = LI DI LI^T the cost is the sum of DO_i DI_j ((LO^T E LI)_ij)^2, and elements
are rounded one after the other as in error_feedback.py (YAQA, arXiv 2505.22988).
"""

from __future__ import annotations

from collections.abc import Sequence

from reference.descent_scales import gradient, spans, step_span
from reference.error_feedback import Matrix, damped, errors_of, factor, order_of
from reference.quantized_row import QuantizedRow

Rows = Sequence[QuantizedRow]


def feed_back(rows: Rows, weights: Matrix, h: Matrix, g: Matrix, damping: float = 0.01) -> None:
    """Round all elements, from the last column in order to the first, in each all rows likewise.

    >>> rows = [QuantizedRow("f16", range(-8, 8), 1, [0], [1.0], [0.0]) for _ in range(2)]
    >>> feed_back(rows, [[0.4], [0.4]], [[1.0]], [[1.0, 0.9], [0.9, 1.0]])
    >>> [row.levels for row in rows]        # what both outputs' sum loses, one of them makes up
    [[0], [1]]
    """
    columns, order = order_of(h), order_of(g)
    inner, outer = _lower(h, columns, damping), _lower(g, order, damping)
    errors = [[0.0] * len(columns) for _ in order]
    for q in reversed(range(len(columns))):
        j = columns[q]
        later = range(q + 1, len(columns))
        along = [sum(line[k] * inner[k][q] for k in later) for line in errors]
        for p in reversed(range(len(order))):
            row, w = rows[order[p]], weights[order[p]][j]
            below = range(p + 1, len(order))
            down = sum(outer[k][p] * (along[k] + errors[k][q]) for k in below)
            if row.scales[j // row.group]:
                row.levels[j] = row.nearest(w + along[p] + down, j // row.group)
            errors[p][q] = w - row.value(j)


def _lower(h: Matrix, order: Sequence[int], damping: float) -> Matrix:
    found = factor(damped([[h[max(i, j)][min(i, j)] for j in order] for i in order], damping))
    assert found, "damping did not make the matrix positive definite"
    return found[0]


def descend(
    rows: Rows, weights: Matrix, h: Matrix, g: Matrix, sweeps: int, rounds: int
) -> None:  # fmt: skip
    """Improve rows: codes, then `rounds` times scales and codes.

    >>> rows = [QuantizedRow("f16", range(-8, 8), 1, [5], [1.0], [0.0]) for _ in range(2)]
    >>> descend(rows, [[0.4], [0.4]], [[1.0]], [[1.0, 0.9], [0.9, 1.0]], 1, 0)
    >>> [row.levels for row in rows]
    [[-4], [4]]
    """
    errors = [errors_of(row, w) for row, w in zip(rows, weights, strict=True)]
    _sweep_codes(rows, errors, h, g, sweeps)
    for _ in range(rounds):
        for first, last in spans(rows[0], len(h)):
            for r, row in enumerate(rows):
                if g[r][r]:
                    seen = _seen(errors, g, r)
                    moved = seen[:]
                    step_span((row, moved, h), first, last)
                    errors[r] = [e + a - b for e, a, b in zip(errors[r], moved, seen, strict=True)]
        _sweep_codes(rows, errors, h, g, sweeps)


def _seen(errors: Matrix, g: Matrix, r: int) -> list[float]:
    """Return the errors that row r would have to have if it were alone: G E over G_rr.

    The gradient of tr(G E H E^T) for row r is G_rr times these errors times H.
    """
    return [sum(a * e for a, e in zip(g[r], column, strict=True)) / g[r][r]
            for column in zip(*errors, strict=True)]  # fmt: skip


def _sweep_codes(
    rows: Rows, errors: list[list[float]], h: Matrix, g: Matrix, most: int
) -> None:  # fmt: skip
    for _ in range(most):
        changed = False
        for j in range(len(h)):
            for r, row in enumerate(rows):
                k, old = j // row.group, row.levels[j]
                if not row.scales[k] or not g[r][r] * h[j][j]:
                    continue
                slope = gradient(_seen(errors, g, r), h, j)
                value = row.value(j)
                row.levels[j] = row.nearest(value + slope / h[j][j], k)
                move = row.value(j) - value
                if row.levels[j] != old and move * (move * h[j][j] - 2 * slope) < 0:
                    errors[r][j] -= move
                    changed = True
                else:
                    row.levels[j] = old
        if not changed:
            return


def objective(errors: Matrix, h: Matrix, g: Matrix) -> float:
    """Return tr(G E H E^T).

    >>> objective([[1.0], [-1.0]], [[2.0]], [[1.0, 0.5], [0.5, 1.0]])
    2.0
    """

    def form(a: Sequence[float], b: Sequence[float]) -> float:
        return sum(x * sum(map(float.__mul__, line, b)) for x, line in zip(a, h, strict=True))

    return sum(
        x * form(errors[i], errors[j]) for i, line in enumerate(g) for j, x in enumerate(line)
    )

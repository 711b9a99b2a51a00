"""Error feedback: round each column so that it makes up for the errors of those before it.

A row w of weights meets inputs x with covariance H = E[x x^T]. A quantized row with error
e = w - v changes the output by e x, on average e H e^T in the square. Where inputs are correlated,
an error of one column can cancel that of another: columns are rounded one after the other, and
each takes the errors before it into account. This is GPTQ (arXiv 2210.17323), in the form of
LDLQ (arXiv 2307.13304): with H = L D L^T, L unit lower triangular,

    e H e^T = sum over p of D_p (e L)_p^2,   (e L)_p = e_p + sum over k > p of e_k L_kp

so going from the last column to the first, each term is least where w_p + sum of e_k L_kp is
rounded to the nearest level.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference.quantized_row import QuantizedRow

Matrix = Sequence[Sequence[float]]


def factor(h: Matrix) -> tuple[list[list[float]], list[float]] | None:
    """Return L and D of a symmetric matrix; None where a pivot is not above 0.

    >>> factor([[4.0, 2.0], [2.0, 3.0]])
    ([[1.0, 0.0], [0.5, 1.0]], [4.0, 2.0])
    >>> factor([[1.0, 2.0], [2.0, 1.0]])
    """
    n = len(h)
    lower = [[float(i == j) for j in range(n)] for i in range(n)]
    pivots: list[float] = []
    for i in range(n):
        for j in range(i):
            known = sum(lower[i][k] * pivots[k] * lower[j][k] for k in range(j))
            lower[i][j] = (h[i][j] - known) / pivots[j]
        pivots.append(h[i][i] - sum(lower[i][k] ** 2 * pivots[k] for k in range(i)))
        if not pivots[i] > 0:
            return None
    return lower, pivots


def damped(h: Matrix, damping: float) -> list[list[float]]:
    """Return H with `damping` times the mean of its diagonal added to the diagonal.

    Inputs that were always zero, and fewer tokens than columns, leave H singular. The mean of a
    few thousand tokens is also not known to the last digit: damping keeps errors from being
    placed where they only seem to cost nothing.

    >>> damped([[1.0, 0.5], [0.5, 3.0]], 0.25)
    [[1.5, 0.5], [0.5, 3.5]]
    """
    mean = sum(h[j][j] for j in range(len(h))) / len(h)
    return [[x + damping * mean * (i == j) for j, x in enumerate(r)] for i, r in enumerate(h)]


def order_of(h: Matrix) -> list[int]:
    """Return the columns in ascending order of H_jj, equal ones from the last to the first.

    The last one, with the largest inputs, is rounded first: all others can make up for its error.

    >>> order_of([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    [1, 2, 0]
    """
    return sorted(range(len(h)), key=lambda j: (h[j][j], -j))


def feed_back(
    row: QuantizedRow, weights: Sequence[float], h: Matrix, damping: float = 0.01
) -> None:
    """Round the row's columns with error feedback; its scales stay.

    A group whose scale is 0 has the value of its minimum whatever its codes, so they stay.

    >>> row = QuantizedRow("f16", range(-8, 8), 2, [0, 0], [1.0], [0.0])
    >>> feed_back(row, [0.4, 0.4], [[1.0, 0.9], [0.9, 1.0]])
    >>> row.levels                          # each alone would be 0: e = 0.8 for the sum
    [0, 1]
    """
    order = order_of(h)
    permuted = [[h[max(i, j)][min(i, j)] for j in order] for i in order]
    while (found := factor(damped(permuted, damping))) is None:
        damping *= 10
    lower, _ = found
    errors = [0.0] * len(order)
    for p in reversed(range(len(order))):
        j = order[p]
        fed = sum(errors[k] * lower[k][p] for k in range(p + 1, len(order)))
        if row.scales[j // row.group]:
            row.levels[j] = row.nearest(weights[j] + fed, j // row.group)
        errors[p] = weights[j] - row.value(j)


def errors_of(row: QuantizedRow, weights: Sequence[float]) -> list[float]:
    """Return weights - values.

    >>> errors_of(QuantizedRow("f16", range(-8, 8), 2, [1, 2], [1.0], [0.0]), [1.5, 2.0])
    [0.5, 0.0]
    """
    return [w - row.value(j) for j, w in enumerate(weights)]


def objective(errors: Sequence[float], h: Matrix) -> float:
    """Return e H e^T.

    >>> objective([1.0, -1.0], [[2.0, 1.5], [1.5, 2.0]])
    1.0
    """
    return sum(a * b * x for a, line in zip(errors, h, strict=True)
               for b, x in zip(errors, line, strict=True))  # fmt: skip

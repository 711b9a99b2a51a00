"""Covariance of the input of a matrix product: how errors of the columns add up in the output.

If column j of the weights is off by e_j, an output is off by sum_j e_j x_j. Its expected square is
e H e^T with H = E[x x^T], the mean over tokens of the products of each two columns of the input.
Feedback and descent choose codes by this number, not weight by weight (arXiv 2210.17323).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from reference.f32 import fmas

RUN = 32
"""Tokens whose products are summed in f32, by fused multiply-adds, before f64 takes over."""


def products_of_columns(window: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the sum over the rows of a window of x_a x_b, for each two columns a and b.

    Runs of 32 rows are summed in f32, in order: acc = fma(x_a, x_b, acc). The runs are summed in
    f64, in order. The sums of several windows are those of their runs, one window after another.

    >>> products_of_columns([[1.0, 2.0], [3.0, -1.0]])
    [[10.0, -1.0], [-1.0, 5.0]]
    """
    columns = len(window[0])
    sums = [[0.0] * columns for _ in range(columns)]
    add_products(sums, window)
    return sums


def add_products(sums: list[list[float]], window: Sequence[Sequence[float]]) -> None:
    """Add the products of a further window to `sums`.

    >>> sums = [[1.0]]
    >>> add_products(sums, [[2.0], [3.0]]); sums
    [[14.0]]
    """
    for start in range(0, len(window), RUN):
        for a, row in enumerate(sums):
            run = [0.0] * len(row)
            for x in window[start : start + RUN]:
                run = fmas(list(repeat(x[a], len(x))), x, run)
            sums[a] = [s + r for s, r in zip(row, run, strict=True)]


def output_error(errors: Sequence[Sequence[float]], covariance: Sequence[Sequence[float]]) -> float:
    """Return tr(E H E^T): the expected squared error of a token's output, over all its elements.

    `errors` [rows, columns] are weights minus what is stored for them.

    >>> output_error([[1.0, -1.0], [0.0, 2.0]], [[2.0, 1.0], [1.0, 3.0]])
    15.0
    """
    total = 0.0
    for row in errors:
        for a, e in enumerate(row):
            total += e * sum(h * other for h, other in zip(covariance[a], row, strict=True))
    return total

"""Coordinate descent: move one code, one scale at a time to where e H e^T is least.

With the gradient g = e H at hand, the best value of column j, all others as they are, is
v_j + g_j / H_jj; the level next to it is the best level, as the cost is a parabola. A scale moves
all values of its group along a direction u: the best step is (u . g) / (u H u). Steps are rounded
to what the format stores and taken only where the cost falls.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference.descent_scales import State, gradient, step_scales
from reference.error_feedback import Matrix, errors_of
from reference.quantized_row import QuantizedRow


def descend(
    row: QuantizedRow, weights: Sequence[float], h: Matrix, sweeps: int, rounds: int
) -> None:
    """Improve a row: codes, then `rounds` times scales and codes.

    >>> row = QuantizedRow("f16", range(-8, 8), 2, [0, 0], [1.0], [0.0])
    >>> descend(row, [0.4, 0.4], [[1.0, 0.9], [0.9, 1.0]], 8, 0)
    >>> row.levels                          # one code at a time: no single step is any better
    [1, 0]
    """
    state = (row, errors_of(row, weights), h)
    sweep_codes(state, sweeps)
    for _ in range(rounds):
        step_scales(state)
        sweep_codes(state, sweeps)


def sweep_codes(state: State, most: int) -> None:
    """Set each code to its best level, again and again until none changes, at most `most` times.

    >>> row = QuantizedRow("f16", range(-8, 8), 2, [5, 0], [1.0], [0.0])
    >>> sweep_codes((row, [-5.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]), 1)
    >>> row.levels
    [0, 0]
    """
    row, errors, h = state
    for _ in range(most):
        changed = False
        for j in range(len(errors)):
            k, old, g = j // row.group, row.levels[j], gradient(errors, h, j)
            if not row.scales[k] or not h[j][j]:
                continue
            value = row.value(j)
            row.levels[j] = row.nearest(value + g / h[j][j], k)
            move = row.value(j) - value
            if row.levels[j] != old and move * (move * h[j][j] - 2 * g) < 0:
                errors[j] -= move
                changed = True
            else:
                row.levels[j] = old
        if not changed:
            return

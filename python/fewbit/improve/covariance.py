"""The covariance E[x x^T] of a product's input: how errors of its columns add up in its output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit import _core

Covariance: TypeAlias = NDArray[np.float64]
"""f64 [columns, columns], symmetric."""


@dataclass(frozen=True)
class InputCovariance:
    """The second moments of one product's input.

    `names` are the weights that multiply this input; `counts` are the tokens that met each matrix
    (one, or one for each expert), uint64. `sums` gives the sum of x x^T over these tokens.
    """

    names: tuple[str, ...]
    columns: int
    counts: NDArray[np.uint64]
    sums: Callable[[int], Covariance]

    def mean(self, matrix: int = 0) -> Covariance:
        """E[x x^T] of the tokens that met `matrix`; zeros if none did."""
        return self.sums(matrix) / max(int(self.counts[matrix]), 1)


@dataclass(frozen=True)
class Judges:
    """Covariances of one product's input: from `fitted` windows, and from `held_out` ones."""

    fitted: InputCovariance
    held_out: InputCovariance


def importance_of(covariance: Covariance) -> NDArray[np.float32]:
    """The mean square of each column, f32 [columns]; ones if all are 0."""
    found = np.diagonal(covariance).astype(np.float32)
    return found if (found > 0).any() else np.ones_like(found)


def collected(collector: _core.Collector) -> list[InputCovariance]:
    """The sums of a collector for each input, in the plan's order."""

    def sums(name: str) -> Callable[[int], Covariance]:
        def of(matrix: int) -> Covariance:
            found = collector.covariance(name, matrix)
            assert found is not None
            return found

        return of

    return [
        InputCovariance(tuple(names), squares.shape[1], counts, sums(names[0]))
        for names, squares, counts in collector.sums()
    ]

"""A model's predictions: rows of logits on the host or on a card, and measures of them."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit import _core

Logits: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.uint32]
Measures: TypeAlias = dict[str, NDArray[np.generic]]
"""One value a row for `nll_base`, `nll`, `kld`, `dp` and `same_top`, as rust/measure.rs defines."""


class Predictions(Protocol):
    """Rows [n, vocab] of logits, valid until `release`."""

    def logits(self) -> Logits:
        """The rows, on the host."""

    def nll(self, targets: Ids) -> NDArray[np.float64]:
        """-ln of the probability of each row's target, nats."""

    def divergence(self, base: Predictions, targets: Ids) -> Measures:
        """How the rows diverge from those of `base`."""

    def release(self) -> None:
        """Free the rows."""


class OnHost:
    """Rows in the memory of this machine."""

    def __init__(self, rows: Logits) -> None:
        self._rows = rows

    def logits(self) -> Logits:
        """The rows themselves."""
        return self._rows

    def nll(self, targets: Ids) -> NDArray[np.float64]:
        """By the core, in f64.

        Raises:
            InputError: a target is not in the vocabulary.

        """
        return _core.nll(self._rows, targets)

    def divergence(self, base: Predictions, targets: Ids) -> Measures:
        """By the core, in f64.

        Raises:
            InputError: a target is not in the vocabulary, or the vocabularies differ.

        """
        return dict(_core.divergence(base.logits(), self._rows, targets))

    def release(self) -> None:
        """Do nothing: the rows are a plain array."""

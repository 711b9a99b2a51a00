"""Group measures of tokens by their position in the window: how a divergence grows with context."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fewbit.measure.results import PositionRange

RANGES = 8


def by_position(
    tokens: Mapping[str, NDArray[np.float64]],
    same_top: NDArray[np.bool_],
    places: NDArray[np.int64],
    count: int = RANGES,
) -> tuple[PositionRange, ...]:
    """Means of `kld`, `nll - nll_base` and `same_top` in up to `count` equal ranges of `places`.

    A place is the position of the row, counted from 0: the row predicts the token behind it.
    """
    first, end = int(places.min()), int(places.max()) + 1
    edges = np.linspace(first, end, min(count, end - first) + 1).round().astype(np.int64)
    found = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        here = (places >= start) & (places < stop)
        if here.any():
            kld, nll, base = (tokens[name][here] for name in ("kld", "nll", "nll_base"))
            with np.errstate(invalid="ignore"):
                ratio = float((nll - base).mean())
            found.append(
                PositionRange(
                    start,
                    stop,
                    int(here.sum()),
                    float(kld.mean()),
                    ratio,
                    float(same_top[here].mean()),
                )
            )
    return tuple(found)

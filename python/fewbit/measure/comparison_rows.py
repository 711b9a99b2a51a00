"""A row of a comparison: one model with its size, its losses and its speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fewbit.measure.paired import Paired
from fewbit.measure.results import Divergence
from fewbit.plan.sizes import Sizes


@dataclass(frozen=True)
class Row:
    """One model: its sizes, its losses, its speed (generated tokens per second, int8).

    `format` is its name in the table: a format, or a file. `versus` compares it with another row.
    """

    SCHEMA: ClassVar = "fewbit.comparison/1"

    format: str
    sizes: Sizes
    weights: Divergence
    fast: Divergence
    tokens_per_second: float
    versus: Paired | None = None

"""Choose a format for each tensor: the least predicted loss within a number of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fewbit.errors import InputError

UNITS = 1 << 17
"""Most steps of the lattice of bytes."""


@dataclass(frozen=True)
class Choice:
    """A format that a tensor may have: its bytes and its predicted loss, nats per token."""

    format: str
    bytes: int
    loss: float


def choose(tensors: Mapping[str, Sequence[Choice]], budget: int) -> dict[str, Choice]:
    """The choices of all tensors with the least sum of losses whose bytes are within `budget`.

    Exact dynamic programming over a lattice of at most `UNITS` steps; the bytes that rounding to
    the lattice leaves over go to the tensors that gain most by them.

    Raises:
        InputError: the smallest choices are larger than the budget.

    >>> small, large = Choice("Q4_0", 18, 0.3), Choice("Q8_0", 34, 0.1)
    >>> chosen = choose({"a": [small, large], "b": [small, Choice("Q8_0", 34, 0.2)]}, 53)
    >>> [choice.format for choice in chosen.values()]
    ['Q8_0', 'Q4_0']
    """
    least = sum(min(choice.bytes for choice in choices) for choices in tensors.values())
    if least > budget:
        raise InputError(
            f"{budget:,} bytes are too few: the smallest formats need {least:,}",
            hint="allow more bytes",
            budget=budget,
            least=least,
        )
    unit = max(1, -(-budget // UNITS))
    names = list(tensors)
    chosen = _programmed([tensors[name] for name in names], budget // unit, unit)
    if chosen is None:  # rounding up to the lattice is too coarse for so tight a budget
        chosen = [min(tensors[name], key=lambda choice: choice.bytes) for name in names]
    return _filled(dict(zip(names, chosen, strict=True)), tensors, budget)


def _programmed(tensors: Sequence[Sequence[Choice]], units: int, unit: int) -> list[Choice] | None:
    """The best choices within `units` steps of `unit` bytes, each rounded up; None if none fits."""
    losses = np.zeros(units + 1)
    picks = np.zeros((len(tensors), units + 1), np.uint8)
    for index, choices in enumerate(tensors):
        best = np.full(units + 1, np.inf)
        for pick, choice in enumerate(choices):
            size = -(-choice.bytes // unit)
            if size > units:
                continue
            found = losses[: units + 1 - size] + choice.loss
            better = found < best[size:]
            best[size:][better] = found[better]
            picks[index, size:][better] = pick
        losses = best
    if not np.isfinite(losses[units]):
        return None
    chosen, left = [], units
    for index in reversed(range(len(tensors))):
        choice = tensors[index][picks[index, left]]
        chosen.append(choice)
        left -= -(-choice.bytes // unit)
    return chosen[::-1]


def _filled(
    chosen: dict[str, Choice], tensors: Mapping[str, Sequence[Choice]], budget: int
) -> dict[str, Choice]:
    """`chosen`, with the bytes that are left spent one tensor at a time."""
    left = budget - sum(choice.bytes for choice in chosen.values())
    while True:
        steps = [
            (
                (chosen[name].loss - choice.loss) / max(choice.bytes - chosen[name].bytes, 1),
                name,
                at,
            )
            for name, choices in tensors.items()
            for at, choice in enumerate(choices)
            if choice.bytes - chosen[name].bytes <= left and choice.loss < chosen[name].loss
        ]
        if not steps:
            return chosen
        _, name, at = max(steps)
        left -= tensors[name][at].bytes - chosen[name].bytes
        chosen[name] = tensors[name][at]

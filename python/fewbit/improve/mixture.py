"""Choose the formats of a model's tensors for a number of bytes, by predicted KL divergence.

The loss of a tensor in a format is the output error of its codes, measured on some of its rows,
times what an output error of this tensor costs (`sensitivity`). Losses of tensors add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fewbit.improve.knapsack import Choice, choose
from fewbit.improve.losses import TensorLosses
from fewbit.plan.shapes import tensor_bytes
from fewbit.recipes import choose as recipes
from fewbit.run.model import LoadedModel
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class Mixture(Shown):
    """Formats of all tensors that together have `bytes` bytes, with the loss that is predicted.

    `choices` are the quantized tensors; `importance` is the mean square of each column of their
    inputs, f32 [columns], of experts one after another.
    """

    name: str
    bytes: int
    choices: Mapping[str, Choice]
    formats: Mapping[str, str] = field(repr=False)
    importance: Mapping[str, NDArray[np.float32]] = field(repr=False)

    @property
    def loss(self) -> float:
        """The predicted KL divergence, nats per token."""
        return sum(choice.loss for choice in self.choices.values())

    def page(self) -> Page:
        """A line per tensor: its format, its bytes, its part of the loss."""
        table = Table(("tensor", "format", "bytes", "predicted\nKLD"), text=2)
        for name, choice in self.choices.items():
            table.add_row(name, choice.format, f"{choice.bytes:,}", f"{choice.loss:.6f}")
        total = f"{self.name}: {self.bytes:,} bytes of tensors, predicted KLD {self.loss:.5f}"
        return [table, "", total]


def mixture(
    model: LoadedModel,
    losses: Mapping[str, TensorLosses],
    budget: int,
    name: str,
) -> Mixture:
    """The formats with the least predicted loss whose tensors have at most `budget` bytes.

    Tensors without losses keep the format that recipes leave them.

    Raises:
        InputError: the smallest formats are larger.

    """
    tensors = model.checkpoint.tensors
    formats = {key: recipes.unquantized_format(tensor) for key, tensor in tensors.items()}
    fixed = sum(
        tensor_bytes(tensors[key].shape, format_)
        for key, format_ in formats.items()
        if key not in losses
    )
    choices = {
        key: [
            Choice(format_, tensor_bytes(tensors[key].shape, format_), loss)
            for format_, loss in found.by_format.items()
        ]
        for key, found in losses.items()
    }
    chosen = choose(choices, max(budget - fixed, 0)) if choices else {}
    formats |= {key: choice.format for key, choice in chosen.items()}
    total = fixed + sum(choice.bytes for choice in chosen.values())
    importance = {key: found.importance for key, found in losses.items()}
    return Mixture(name, total, chosen, formats, importance)

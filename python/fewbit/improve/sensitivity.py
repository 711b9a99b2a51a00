"""Measure how much each tensor's rounding moves a model's predictions.

One tensor at a time is stored in few bits, and the KL divergence from the unchanged model is
measured on some windows. Divided by the output error of the tensor it says what an output error
costs in nats: for small errors the divergence grows in proportion to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.plan.shapes import matrix_shape
from fewbit.run.model import LoadedModel

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Substitution:
    """Other bytes for tensor `name`, uint8 [rows, row bytes], in `format`."""

    name: str
    format: str
    data: Bytes


def add_tensor(weights: _core.Weights, model: LoadedModel, new: Substitution) -> None:
    """Pack a tensor of `model` with the bytes of `new`, in the place of others of its name."""
    shape = model.checkpoint.tensors[new.name].shape
    matrices = shape[0] if len(shape) == 3 else 1
    weights.add(new.name, new.format, *matrix_shape(shape), new.data, matrices)


class Substitutions:
    """`model` on `windows` [windows, tokens], with one tensor at a time in another format.

    The second half of each window is scored, as `fewbit perplexity` does.
    """

    def __init__(self, model: LoadedModel, windows: NDArray[np.uint32], threads: int = 0) -> None:
        self._model, self._windows, self._threads = model, windows, threads
        self._weights = _core.Weights()
        self._plan = model.plan.to_json()
        for name in model.plan.weights():
            self._add(name, model.formats[name], model.data(name))
        self._base = list(self._logits())

    def divergence(self, changes: Iterable[Substitution]) -> float:
        """The mean KL divergence from the unchanged model, nats per token."""
        changed = list(changes)
        for each in changed:
            self._add(each.name, each.format, each.data)
        found = []
        for base, logits, window in zip(self._base, self._logits(), self._windows, strict=True):
            targets = np.ascontiguousarray(window[-len(base) :])
            found.append(_core.divergence(base, logits, targets)["kld"])
        for each in changed:
            model = self._model
            self._add(each.name, model.formats[each.name], model.data(each.name))
        return float(np.concatenate(found).mean())

    def _add(self, name: str, format_: str, data: Bytes) -> None:
        add_tensor(self._weights, self._model, Substitution(name, format_, data))

    def _logits(self) -> Iterator[NDArray[np.float32]]:
        executor = _core.Executor(self._plan, self._weights, self._threads)
        ctx = self._windows.shape[1]
        cache = executor.cache(1, ctx)
        outputs = np.arange(ctx // 2, ctx - 1, dtype=np.uint32)
        for window in self._windows:
            cache.reset()
            ids = np.ascontiguousarray(window[:-1])
            yield executor.forward(cache, ids, np.zeros_like(ids), outputs, "f32")

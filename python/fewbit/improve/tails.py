"""Run windows from any layer of a model on, with other bytes for some tensors.

What comes before a changed tensor runs once: its hidden states are kept for the next change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.files.mapped import drop_pages
from fewbit.improve.passes import WINDOWS
from fewbit.improve.segments import HIDDEN, Segment, remainder, segments
from fewbit.improve.sensitivity import Substitution, add_tensor
from fewbit.run.limits import BATCH
from fewbit.run.model import LoadedModel

Floats = NDArray[np.float32]


class Tails:
    """`model` on windows of tokens [windows, n], with f32 activations, from a segment on.

    Logits are those of the rows from `first` on. They are the same bits as those of the model run
    as a whole. In memory are the model's weights and one row of hidden states for each token.
    """

    def __init__(
        self, model: LoadedModel, tokens: NDArray[np.uint32], first: int, threads: int = 0
    ) -> None:
        self._model, self._tokens, self._first, self._threads = model, tokens, first, threads
        self._parts = segments(model.plan)
        self._at, self._states = 0, np.zeros((len(tokens), 0, 0), np.float32)
        self._weights = _core.Weights()
        for name in model.plan.weights():
            self._restore(name)

    def segment_of(self, names: Iterable[str]) -> int:
        """The index of the first segment that has one of these tensors."""
        wanted = set(names)
        return next(part.index for part in self._parts if wanted & set(part.plan.weights()))

    def logits(self, index: int, changes: Iterable[Substitution] = ()) -> Iterator[Floats]:
        """Each window's scored logits [rows, vocab] if only segments from `index` on change.

        `index` never falls from call to call.
        """
        self._go_to(index)
        changed = list(changes)
        for each in changed:
            add_tensor(self._weights, self._model, each)
        try:
            yield from self._rows(remainder(self._model.plan, index), self._first)
        finally:
            for each in changed:
                self._restore(each.name)

    def _go_to(self, index: int) -> None:
        """Compute the hidden states that segment `index` begins with."""
        for part in self._parts[self._at : index]:
            windows, tokens = self._tokens.shape
            states = np.empty((windows, tokens, part.width), np.float32)
            for window, rows in enumerate(self._rows(part, 0)):
                states[window] = rows
            self._states = states
        self._at = index

    def _rows(self, part: Segment, first: int) -> Iterator[Floats]:
        """The result of `part` in the rows from `first` on, window by window."""
        windows, tokens = self._tokens.shape
        for start in range(0, windows, WINDOWS):
            stop = min(start + WINDOWS, windows)
            if not part.takes_tokens:
                states = self._states[start:stop].reshape(-1, self._states.shape[-1])
                self._weights.add(HIDDEN, "F32", *states.shape, states.view(np.uint8))
            executor = _core.Executor(part.plan.to_json(), self._weights, self._threads)
            cache = executor.cache(1, tokens + 1, self._model.kv)
            for window in range(start, stop):
                row = (window - start) * tokens
                ids = np.arange(row, row + tokens, dtype=np.uint32)
                yield _forward(
                    executor, cache, self._tokens[window] if part.takes_tokens else ids, first
                )

    def _restore(self, name: str) -> None:
        """Pack a tensor as the model has it."""
        model = self._model
        own = Substitution(name, model.formats[name], model.data(name))
        add_tensor(self._weights, model, own)
        drop_pages(model.checkpoint.maps)


def _forward(
    executor: _core.Executor, cache: _core.Cache, ids: NDArray[np.uint32], first: int
) -> Floats:
    """The rows from `first` on of one window."""
    cache.reset()
    found = []
    for start in range(0, len(ids), BATCH):
        batch = np.ascontiguousarray(ids[start : start + BATCH])
        begin = min(max(first - start, 0), len(batch))
        outputs = np.arange(begin, len(batch), dtype=np.uint32)
        found.append(executor.forward(cache, batch, np.zeros_like(batch), outputs, "f32"))
    return np.concatenate(found)

"""Sequences of one KV cache that many texts use in turn, several of them in each step.

A step holds tokens of any sequences, so that weights are read once for all of them. On the CPU a
token's logits are the same bits whatever shares its step: many texts give what each gives alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError
from fewbit.run.cpu import CpuBackend, machine_memory
from fewbit.run.limits import BATCH, Activations
from fewbit.run.model import LoadedModel

MOST_SLOTS = 32
MOST_SLOTS_OF_CARD = 8
_MEMORY_FRACTION = 0.25
"""Largest part of this machine's memory that the cache may take, unless slots are given."""
_ROW_BYTES = 1 << 26
"""Largest size of the logits of one step."""
_WORTH_SHARING = 32
"""Tokens that all texts begin with are computed once and copied if they are at least this many."""


@dataclass
class Reading:
    """The ids that slot `slot` shall hold; logits are wanted from index `wanted` on."""

    slot: int
    ids: list[int]
    wanted: int


class Rows(NamedTuple):
    """Logits [n, vocab] after the ids of `reading` from index `first` on."""

    reading: Reading
    first: int
    logits: NDArray[np.float32]


class Slots:
    """A KV cache of `count` sequences, each with the ids that it holds."""

    def __init__(
        self,
        model: LoadedModel,
        texts: int,
        capacity: int,
        acts: Activations = "int8",
        parallel: int | None = None,
    ) -> None:
        """Make a cache for at most `texts` sequences of `capacity` tokens.

        `parallel` is their number; by default as many as fit in a quarter of the memory, at most
        `MOST_SLOTS`.

        Raises:
            InputError: `parallel` is below 1.

        """
        if parallel is not None and parallel < 1:
            raise InputError(f"{parallel} texts in parallel, expected 1 or more")
        most = parallel or fitting_slots(model, capacity)
        self.count = max(min(most, texts), 1)
        self.held: list[list[int]] = [[] for _ in range(self.count)]
        self._model, self._acts = model, acts
        self._cache = model.cache(self.count, max(capacity, 2))
        self._most_rows = max(_ROW_BYTES // (4 * model.config.vocab), 1)

    def share(self, texts: Sequence[Sequence[int]]) -> None:
        """Compute the ids that all `texts` begin with once, and copy them to every slot.

        A token of each text is left, whose logits are wanted.
        """
        prefix = common_prefix(texts)[: min(map(len, texts)) - 1]
        if self.count < 2 or len(prefix) < _WORTH_SHARING:
            return
        reading = Reading(0, list(prefix), len(prefix))
        while len(self.held[0]) < len(prefix):
            self.step([reading])
        for slot in range(1, self.count):
            self._cache.copy(0, slot)
            self.held[slot] = list(prefix)

    def rewind(self, slot: int, ids: Sequence[int], most: int) -> None:
        """Keep what a slot holds as far as it begins `ids`, at most `most` of them."""
        held = self.held[slot]
        shared = min(shared_prefix(held, ids), most)
        kept = shared if shared == len(held) else self._cache.reachable(slot, shared)
        if kept < len(held):
            self._cache.truncate(slot, kept)
            del held[kept:]

    def step(self, readings: Sequence[Reading]) -> list[Rows]:
        """Feed up to `BATCH` tokens of the readings, those with the fewest left first."""
        left = sorted(readings, key=lambda r: len(r.ids) - len(self.held[r.slot]))
        tokens: list[int] = []
        sequences: list[int] = []
        outputs: list[int] = []
        found: list[tuple[Reading, int, int]] = []
        for reading in left:
            start = len(self.held[reading.slot])
            first = max(reading.wanted, start)
            rows_left = self._most_rows - len(outputs)
            end = min(len(reading.ids), start + BATCH - len(tokens), first + rows_left)
            if end <= start:
                continue
            at = len(tokens)
            tokens += reading.ids[start:end]
            sequences += [reading.slot] * (end - start)
            outputs += range(at + first - start, at + end - start)
            found.append((reading, min(first, end), end))
        logits = self._forward(tokens, sequences, outputs)
        rows, used = [], 0
        for reading, first, end in found:
            held = self.held[reading.slot]
            held += reading.ids[len(held) : end]
            rows.append(Rows(reading, first, logits[used : used + end - first]))
            used += end - first
        return rows

    def _forward(
        self, tokens: list[int], sequences: list[int], outputs: list[int]
    ) -> NDArray[np.float32]:
        return self._model.forward(
            self._cache, np.array(tokens, np.uint32), np.array(sequences, np.uint32),
            np.array(outputs, np.uint32), self._acts,
        )  # fmt: skip


def fitting_slots(model: LoadedModel, capacity: int) -> int:
    """How many sequences of `capacity` tokens a cache should have: 1 to `MOST_SLOTS`.

    A card, whose free memory is not known, gets at most `MOST_SLOTS_OF_CARD`.
    """
    most = MOST_SLOTS if isinstance(model.backend, CpuBackend) else MOST_SLOTS_OF_CARD
    config = model.config
    token = 2 * 4 * config.layers * config.kv_heads * config.head_dim
    memory = machine_memory()
    fit = int(_MEMORY_FRACTION * memory / (token * max(capacity, 1)))
    return max(min(fit, most), 1) if memory else most


def shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of ids that both begin with.

    >>> shared_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    least = min(len(a), len(b))
    return next((at for at in range(least) if a[at] != b[at]), least)


def common_prefix(texts: Iterable[Sequence[int]]) -> Sequence[int]:
    """The ids that all texts begin with.

    >>> common_prefix([[1, 2, 3], [1, 2, 4], [1, 2]])
    [1, 2]
    """
    found: Sequence[int] | None = None
    for ids in texts:
        found = ids if found is None else found[: shared_prefix(found, ids)]
    return found or []

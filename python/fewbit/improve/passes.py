"""Run windows of tokens through a model segment by segment, and collect covariances on the way.

Only one segment's weights and covariances are in memory, and the hidden states of all windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.improve.calibration import Calibration
from fewbit.improve.covariance import InputCovariance, Judges, collected
from fewbit.improve.segments import HIDDEN, Segment
from fewbit.plan.shapes import matrix_shape
from fewbit.run.model import LoadedModel

Floats = NDArray[np.float32]

WINDOWS = 32
"""Windows whose hidden states are bound to a segment at a time."""
SKIP = 0
"""Positions at the start of a window that are left out of covariances. The first token attracts
attention, and its activations can be hundreds of times larger than all others; a model needs them
as they are (measured in benches/LOG.md), so they are not left out."""


class StateStore(Protocol):
    """Where hidden states are kept, so that an interrupted run can go on."""

    def states(self) -> tuple[int, Floats] | None:
        """The index of the next segment, and the hidden states that it begins with."""

    def put_states(self, index: int, states: Floats) -> None:
        """Keep the hidden states that segment `index` begins with."""


class SegmentRun:
    """A segment of `model` bound to the model's weights."""

    def __init__(self, model: LoadedModel, segment: Segment, threads: int = 0) -> None:
        self.model, self.segment, self.threads = model, segment, threads

    def run(
        self, states: Floats, tokens: NDArray[np.uint32], *, complete: bool = True
    ) -> list[InputCovariance]:
        """Run all windows; replaces `states` [windows, ctx, width] by the segment's results.

        `tokens` [windows, ctx] are what the first segment takes instead of `states`. Without
        `complete` the states stay, and ops behind the last product's input are left out.
        """
        wanted = {name for group in self.segment.groups for name in group}
        collector: _core.Collector | None = None
        for start in range(0, len(tokens), WINDOWS):
            stop = min(start + WINDOWS, len(tokens))
            executor = self._executor(states[start:stop])
            collector = collector or executor.collector(wanted, True, SKIP)
            cache = executor.cache(1, tokens.shape[1], "f32")
            for window in range(start, stop):
                ids = self._ids(tokens, window, window - start)
                cache.reset()
                rows = executor.collect(cache, ids, collector, complete)
                if complete:
                    states[window] = rows
        return [] if collector is None else collected(collector)

    def _ids(self, tokens: NDArray[np.uint32], window: int, row: int) -> NDArray[np.uint32]:
        if self.segment.takes_tokens:
            return np.ascontiguousarray(tokens[window])
        ctx = tokens.shape[1]
        return np.arange(row * ctx, (row + 1) * ctx, dtype=np.uint32)

    def _executor(self, states: Floats) -> _core.Executor:
        weights = _core.Weights()
        for name in self.segment.plan.weights():
            if name == HIDDEN:
                rows = np.ascontiguousarray(states).reshape(-1, states.shape[-1])
                weights.add(HIDDEN, "F32", *rows.shape, rows.view(np.uint8))
                continue
            shape = self.model.checkpoint.tensors[name].shape
            matrices = shape[0] if len(shape) == 3 else 1
            weights.add(
                name,
                self.model.formats[name],
                *matrix_shape(shape),
                self.model.data(name),
                matrices,
            )
        return _core.Executor(self.segment.plan.to_json(), weights, self.threads)


@dataclass(frozen=True)
class WindowPasses:
    """Windows of a calibration on their way through `model`, segment by segment.

    They go on from the hidden states in `store` if all segments before these are `finished`.
    """

    model: LoadedModel
    calibration: Calibration
    threads: int = 0
    progress: Progress | None = None
    store: StateStore | None = None
    finished: int = 0

    def judges(self, parts: list[Segment]) -> Iterator[tuple[Segment, dict[str, Judges]]]:
        """Each segment with the covariances of its products' inputs, by name of the weight."""
        tokens = np.concatenate([self.calibration.fitted, self.calibration.held_out])
        fitted = len(self.calibration.fitted)
        stored = self.store.states() if self.store else None
        if stored is None or stored[0] > self.finished:
            stored = 0, np.zeros((*tokens.shape, parts[0].width), np.float32)
        start, states = stored
        for part in parts[start:]:
            if self.progress:
                self.progress(part.index, len(parts), f"{_layer_of(part)}: running windows")
            run = SegmentRun(self.model, part, self.threads)
            complete = part is not parts[-1]
            found = [
                run.run(states[rows], tokens[rows], complete=complete)
                for rows in (slice(0, fitted), slice(fitted, None))
            ]
            yield (
                part,
                {
                    name: Judges(first, second)
                    for first, second in zip(*found, strict=True)
                    for name in first.names
                },
            )
            if complete and self.store:
                self.store.put_states(part.index + 1, states)


def _layer_of(part: Segment) -> str:
    """The layer that a segment's weights belong to."""
    names = [name for group in part.groups for name in group]
    return ".".join(names[0].split(".")[:2]) if names else "embedding"

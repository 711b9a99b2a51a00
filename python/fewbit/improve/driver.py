"""Quantize a model layer by layer: run windows through a layer, improve its tensors, go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fewbit.callbacks import Progress
from fewbit.improve.calibration import Calibration
from fewbit.improve.covariance import InputCovariance
from fewbit.improve.passes import SegmentRun
from fewbit.improve.segments import Segment, segments
from fewbit.improve.store import Store
from fewbit.improve.tensors import Improver, Judges, targets
from fewbit.run.model import LoadedModel


@dataclass(frozen=True)
class Windows:
    """Hidden states of fitted and of held-out windows, on their way through `model`."""

    model: LoadedModel
    calibration: Calibration
    store: Store

    def judges(
        self, parts: list[Segment], progress: Progress | None, threads: int
    ) -> Iterator[tuple[Segment, dict[str, Judges]]]:
        """Each segment with the covariances of its products' inputs, by name of the weight."""
        tokens = np.concatenate([self.calibration.fitted, self.calibration.held_out])
        fitted = len(self.calibration.fitted)
        start, states = self.store.states() or (0, _first_states(parts[0], tokens.shape))
        for part in parts[start:]:
            run = SegmentRun(self.model, part, threads)
            complete = part is not parts[-1]
            found = [
                run.run(states[rows], tokens[rows], complete=complete)
                for rows in (slice(0, fitted), slice(fitted, None))
            ]
            yield part, _by_name(*found)
            if complete:
                self.store.put_states(part.index + 1, states)


def improve(
    model: LoadedModel,
    formats: Mapping[str, str],
    calibration: Calibration,
    improver: Improver,
    store: Store,
    progress: Progress | None = None,
) -> None:
    """Put each tensor of `model` that `formats` quantizes into `store`, where a product takes it.

    Raises:
        FormatError: a weight cannot be stored.

    """
    wanted = dict(targets(model.checkpoint.tensors, formats))
    parts = segments(model.plan)
    done, total = 0, sum(_weights(model, name) for part in parts for name in _names(part))
    windows = Windows(model, calibration, store)
    for part, judges in windows.judges(parts, progress, improver.threads):
        for name in _names(part):
            if name in wanted and store.get(name) is None:
                tensor = model.checkpoint.tensors[name]
                store.put(name, *improver.improve(tensor, wanted[name], judges[name]))
            done += _weights(model, name)
            if progress:
                progress(done, total, name)


def _first_states(part: Segment, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.zeros((*shape, part.plan.ops[0].width), np.float32)


def _names(part: Segment) -> list[str]:
    return [name for group in part.groups for name in group]


def _weights(model: LoadedModel, name: str) -> int:
    return int(np.prod(model.checkpoint.tensors[name].shape))


def _by_name(
    fitted: list[InputCovariance], held_out: list[InputCovariance]
) -> dict[str, Judges]:
    return {
        name: Judges(first, second)
        for first, second in zip(fitted, held_out, strict=True)
        for name in first.names
    }

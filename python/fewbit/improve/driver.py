"""Quantize a model layer by layer: take the covariances of a layer, improve its tensors, go on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.files.checkpoint import Checkpoint, with_data
from fewbit.improve.calibration import Calibration, sampled_calibration
from fewbit.improve.covariance import Judges
from fewbit.improve.covariance_file import CovarianceFile
from fewbit.improve.distill import Distilled, distill
from fewbit.improve.gradients import OutputStore, table_judges
from fewbit.improve.passes import WindowPasses
from fewbit.improve.report import Improvement
from fewbit.improve.segments import Segment, segments
from fewbit.improve.store import FolderStore, MemoryStore, Store
from fewbit.improve.tensors import Bytes, Improver, TensorGain, targets
from fewbit.run.model import LoadedModel

Effort: TypeAlias = Literal["fast", "good", "best"]
"""How much work goes into codes: llama.cpp's encoders, feedback, feedback and gradients."""
EFFORTS: tuple[Effort, ...] = get_args(Effort)
OPTIONS: Mapping[Effort, Mapping[str, Any]] = {"good": {}, "best": {}}
"""Options of `_core.improve`."""


@dataclass(frozen=True)
class Work:
    """What decides an improved model: the model, the formats of its tensors, effort, calibration.

    A calibration of None is `sampled_calibration` of the model.
    """

    model: LoadedModel
    formats: Mapping[str, str]
    effort: Effort
    calibration: Calibration | CovarianceFile | None
    threads: int = 0

    def run(
        self, folder: Path | None = None, progress: Progress | None = None
    ) -> tuple[Checkpoint, Improvement]:
        """The checkpoint with improved tensors in place of its own, and what was gained.

        Finished tensors are kept in `folder`, if one is given, and taken from there.

        Raises:
            FormatError: a weight cannot be stored.
            InputError: the folder or the file of covariances belongs to something else.
            OSError: the folder cannot be written.

        """
        if self.effort == "best" and isinstance(self.calibration, CovarianceFile):
            raise InputError(
                'effort "best" computes gradients on windows: a file of covariances is not enough',
                hint='take effort "good", or a text as the calibration',
            )
        store = MemoryStore() if folder is None else FolderStore(folder, self._key())
        calibration = self.calibration or self._sampled(store, progress)
        wanted = dict(targets(self.model.checkpoint.tensors, self.formats))
        with self._outputs(folder, calibration, wanted, progress) as outputs:
            self._improve(store, calibration, wanted, outputs, progress)
        found = {name: kept for name in wanted if (kept := store.get(name)) is not None}
        gains = [gain for _, gain in found.values()]
        data = {name: data for name, (data, _) in found.items()}
        improvement = Improvement(
            self.effort, calibration.source, tuple(gains), self._warnings(calibration, gains)
        )
        formats = dict(self.formats)
        if self.effort == "best" and isinstance(calibration, Calibration) and data:
            distilled = self._distill(calibration, data, progress)
            data |= distilled.data
            data |= {name: row[None].view(np.uint8) for name, row in distilled.norms.items()}
            formats |= dict.fromkeys(distilled.norms, "F32")
            divergences = (distilled.before, min(distilled.before, distilled.after))
            improvement = replace(improvement, distilled=divergences)
        return with_data(self.model.checkpoint, formats, data), improvement

    def _distill(
        self,
        calibration: Calibration,
        data: Mapping[str, Bytes],
        progress: Progress | None,
    ) -> Distilled:
        """Adjust scales and norms of the model as a whole."""
        stored = {name: (self.formats[name], each) for name, each in data.items()}
        return distill(
            self.model, stored, calibration.fitted, calibration.held_out, threads=self.threads,
            progress=progress,
        )  # fmt: skip

    @contextmanager
    def _outputs(
        self,
        folder: Path | None,
        calibration: Calibration | CovarianceFile,
        wanted: Mapping[str, str],
        progress: Progress | None,
    ) -> Iterator[OutputStore | None]:
        """Output covariances in a folder of their own; None if the effort has no gradients."""
        if self.effort != "best" or not isinstance(calibration, Calibration):
            yield None
            return
        with ExitStack() as stack:
            if folder is None:
                own = Path(stack.enter_context(TemporaryDirectory()))
            else:
                own = folder / "gradients"
                own.mkdir(exist_ok=True)
            outputs = OutputStore(own)
            outputs.collect(self.model, calibration, wanted, self.threads, progress)
            yield outputs

    def _sampled(self, store: Store, progress: Progress | None) -> Calibration:
        tokens = store.tokens()
        if tokens is not None:
            return Calibration.sampled(tokens)
        found = sampled_calibration(self.model, progress=progress)
        store.put_tokens(found.tokens)
        return found

    def _improve(
        self,
        store: Store,
        calibration: Calibration | CovarianceFile,
        wanted: Mapping[str, str],
        outputs: OutputStore | None,
        progress: Progress | None,
    ) -> None:
        parts, tables = segments(self.model.plan), _tables(self.model)
        improver = Improver(OPTIONS[self.effort], self.threads)
        left = [p.index for p in parts if any(n in wanted and not store.get(n) for n in _names(p))]
        inputs = inputs_of(
            self.model, calibration, self.threads, progress, store, min(left, default=0)
        )
        for part, judges in inputs if left else ():
            for name in [name for name in judges if name in wanted and not store.get(name)]:
                if progress:
                    progress(part.index, len(parts), name)
                self._put(store, improver, name, wanted[name], judges[name], outputs)
            if part.index == max(left):
                break
        for name in tables - {name for part in parts for name in _names(part)}:
            if outputs is not None and name in wanted and not store.get(name):
                self._put(store, improver, name, wanted[name], None, outputs)

    def _put(
        self,
        store: Store,
        improver: Improver,
        name: str,
        format_: str,
        judges: Judges | None,
        outputs: OutputStore | None,
    ) -> None:
        """Improve one tensor and keep it; None for `judges` of a table that no product has."""
        found = None if outputs is None else outputs.get(name)
        if found is not None and name in _tables(self.model):
            judges, found = table_judges(judges, found), None
        if judges is not None:
            tensor = self.model.checkpoint.tensors[name]
            store.put(name, *improver.improve(tensor, format_, judges, found))

    def _key(self) -> dict[str, Any]:
        """The facts that decide the result, as JSON has them."""
        source = "sampled" if self.calibration is None else self.calibration.digest
        return {
            "version": _core.__version__,
            "model": self.model.fingerprint,
            "effort": self.effort,
            "calibration": source,
            "formats": dict(self.formats),
        }

    def _warnings(
        self, calibration: Calibration | CovarianceFile, gains: list[TensorGain]
    ) -> tuple[str, ...]:
        found = list(calibration.warnings)
        few = [gain for gain in gains if gain.tokens < 4 * gain.shape[-1] * _matrices(gain)]
        if few:
            worst = max(few, key=lambda gain: gain.shape[-1] / max(gain.tokens, 1))
            found.append(
                f"{worst.tokens:,} tokens are few for `{worst.name}` with {worst.shape[-1]:,} "
                f"columns{' of each expert' if _matrices(worst) > 1 else ''}: 4 or more for each "
                "column tell their inputs apart"
            )
        return tuple(found)


def inputs_of(
    model: LoadedModel,
    calibration: Calibration | CovarianceFile,
    threads: int = 0,
    progress: Progress | None = None,
    store: Store | None = None,
    finished: int = 0,
) -> Iterator[tuple[Segment, dict[str, Judges]]]:
    """Each segment of `model` with the covariances of its inputs, from windows or from a file.

    The tensors of the first `finished` segments are in `store`.
    """
    if isinstance(calibration, CovarianceFile):
        return calibration.judges(model)
    parts = segments(model.plan)
    return WindowPasses(model, calibration, threads, progress, store, finished).judges(parts)


def check_effort(name: str) -> Effort:
    """The effort called `name`.

    Raises:
        InputError: none is called so.

    """
    for effort in EFFORTS:
        if name == effort:
            return effort
    raise InputError(f"unknown effort `{name}`", hint=f"known: {', '.join(EFFORTS)}", effort=name)


def _tables(model: LoadedModel) -> set[str]:
    """The tables that tokens are looked up in."""
    return {op.weights[0] for op in model.plan.ops if op.kind == "embed"}


def _names(part: Segment) -> set[str]:
    return {name for group in part.groups for name in group}


def _matrices(gain: TensorGain) -> int:
    return math.prod(gain.shape[:-2])

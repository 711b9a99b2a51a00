"""Measure a model with one tensor or layer quantized at a time, and with all but one."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import InputError, did_you_mean
from fewbit.files.checkpoint import with_data
from fewbit.improve.sensitivity import Substitution
from fewbit.improve.sensitivity_rows import Loss, Sensitivity, SensitivityRow, read_sensitivity
from fewbit.improve.tails import Tails
from fewbit.measure.evaluate import Tally, Windows, windows
from fewbit.measure.identity import digest, identity
from fewbit.plan.shapes import tensor_bytes
from fewbit.run.model import LoadedModel

KINDS = ("tensor", "layer")
_LAYER = re.compile(r"blk\.\d+")


@dataclass(frozen=True)
class Unit:
    """Tensors that are quantized together: one, or all of a layer."""

    name: str
    tensors: tuple[str, ...]


class SensitivityRun:
    """`model`, and `quantized`, the same model with every tensor as a recipe stores it.

    Raises:
        InputError: `by` is not "tensor" or "layer", or no tensor changes its format.

    """

    def __init__(
        self, model: LoadedModel, quantized: LoadedModel, by: str = "tensor", threads: int = 0
    ) -> None:
        if by not in KINDS:
            raise InputError(
                f"cannot measure by `{by}`",
                hint=f"{did_you_mean(by, KINDS)}known: {', '.join(KINDS)}",
                by=by,
            )
        self._model, self._quantized, self._by, self._threads = model, quantized, by, threads
        self._recipe = quantized.recipe or "a mixture"
        self._units = self._grouped()

    def _grouped(self) -> list[Unit]:
        """The units in the order of the network; a tensor that is used twice is at its first."""
        before, after = self._model.formats, self._quantized.formats
        names = dict.fromkeys(name for op in self._model.plan.ops for name in op.weights)
        groups: dict[str, list[str]] = {}
        for name in names:
            if before[name] != after[name] and after[name] != "F32":  # F32 loses nothing
                layer = _LAYER.match(name)
                key = layer[0] if layer and self._by == "layer" else name
                groups.setdefault(key, []).append(name)
        if not groups:
            raise InputError(
                f"{self._recipe} stores every tensor as it is", hint="name a smaller format"
            )
        return [Unit(name, tuple(tensors)) for name, tensors in groups.items()]

    def measured(
        self,
        text: str,
        ctx: int,
        chunks: int | None,
        all_but_one: bool,
        file: Path | None = None,
        progress: Progress | None = None,
    ) -> Sensitivity:
        """A row for each unit; finished rows are kept in `file` and taken from there.

        Raises:
            InputError: the text is too short for two windows, or `file` belongs to something else.
            FileFormatError: `file` is damaged.
            OSError: `file` cannot be written.

        """
        found = windows(self._model, text, ctx, chunks)
        key = self._key(found)
        saved = None if file is None else read_sensitivity(file, key)
        with tempfile.TemporaryFile() as opened:
            losses = _Losses(self, found, opened, progress, all_but_one)
            if saved is None:
                name = self._model.config.name
                total = losses.total()
                saved = Sensitivity(name, self._recipe, key, ctx, found.count, total, ())
            for row in losses.rows(saved.rows):
                saved = replace(saved, rows=_with(saved.rows, row))
                if file is not None:
                    saved.save(file)
        rows = {row.name: row for row in saved.rows if row.by == self._by}
        wanted = tuple(rows[unit.name] for unit in self._units)
        if not all_but_one:
            wanted = tuple(replace(row, all_but_one=None) for row in wanted)
        return replace(saved, rows=wanted)

    def _key(self, found: Windows) -> str:
        tokens = hashlib.sha256(found.inputs.tobytes() + found.targets.tobytes()).hexdigest()
        return digest([identity(self._model), identity(self._quantized), found.ctx, tokens])


class _Losses:
    """Losses on the windows `found`; the base's logits are in the open file."""

    def __init__(
        self, run: SensitivityRun, found: Windows, opened: object, progress: Progress | None,
        all_but_one: bool,
    ) -> None:  # fmt: skip
        self._run, self._found, self._opened = run, found, opened
        self._progress, self._all_but_one = progress, all_but_one
        self._base: NDArray[np.float32] | None = None

    def total(self) -> Loss:
        """The loss with everything quantized."""
        if self._progress:
            self._progress(0, len(self._run._units), "everything quantized")
        return self._loss(self._tails(self._quantized), 0, [])

    @cached_property
    def _quantized(self) -> LoadedModel:
        """The quantized model with its tensors encoded, which takes longer than running some."""
        model, quantized = self._run._model, self._run._quantized
        data = {n: quantized.data(n) for unit in self._run._units for n in unit.tensors}
        held = with_data(model.checkpoint, quantized.formats, data)
        return LoadedModel(held, quantized.formats, kv=quantized.kv)

    def rows(self, saved: Sequence[SensitivityRow]) -> Iterator[SensitivityRow]:
        """What is not among the saved rows: first each unit alone, then all but one."""
        run = self._run
        known = {row.name: row for row in saved if row.by == run._by}
        missing = [unit for unit in run._units if unit.name not in known]
        for unit, loss in self._each(missing, alone=True):
            known[unit.name] = self._row(unit, loss)
            yield known[unit.name]
        if self._all_but_one:
            missing = [unit for unit in run._units if known[unit.name].all_but_one is None]
            for unit, loss in self._each(missing, alone=False):
                yield replace(known[unit.name], all_but_one=loss)

    def _each(self, units: Sequence[Unit], *, alone: bool) -> Iterator[tuple[Unit, Loss]]:
        """The loss of each unit quantized alone, or of everything else."""
        if not units:
            return
        model, other = self._run._model, self._quantized
        if not alone:
            model, other = other, model
        words = "alone" if alone else "all but it"
        tails = self._tails(model)
        ordered = sorted(units, key=lambda unit: tails.segment_of(unit.tensors))
        for done, unit in enumerate(ordered):
            if self._progress:
                self._progress(done, len(ordered), f"{unit.name} {words}")
            changes = [Substitution(n, other.formats[n], other.data(n)) for n in unit.tensors]
            yield unit, self._loss(tails, tails.segment_of(unit.tensors), changes)

    def _loss(self, tails: Tails, index: int, changes: Iterable[Substitution]) -> Loss:
        start, tally, found = time.perf_counter(), Tally(), self._found
        targets = np.ascontiguousarray(found.scored)
        base = self._base_logits()
        for window, logits in enumerate(tails.logits(index, changes)):
            rows = np.ascontiguousarray(base[window])
            tally.add(dict(_core.divergence(rows, logits, targets[window])))
        return Loss.of(tally.result("f32", "f32", found, start))

    def _base_logits(self) -> NDArray[np.float32]:
        """The logits of the unchanged model [windows, rows, vocab], computed on first use."""
        if self._base is None:
            shape = (*self._found.scored.shape, self._run._model.config.vocab)
            base = np.memmap(self._opened, np.float32, "w+", shape=shape)  # type: ignore[call-overload]
            for window, logits in enumerate(self._tails(self._run._model).logits(0)):
                base[window] = logits
            self._base = base
        return self._base

    def _tails(self, model: LoadedModel) -> Tails:
        found = self._found
        tokens = np.ascontiguousarray(found.inputs[:, :-1])
        return Tails(model, tokens, found.first, self._run._threads)

    def _row(self, unit: Unit, loss: Loss) -> SensitivityRow:
        run = self._run
        shapes = [run._model.checkpoint.tensors[name].shape for name in unit.tensors]
        before, after = (
            [model.formats[name] for name in unit.tensors] for model in (run._model, run._quantized)
        )
        old, new = (sum(map(tensor_bytes, shapes, formats)) for formats in (before, after))
        return SensitivityRow(unit.name, run._by, unit.tensors, tuple(after), old, new, loss)


def _with(rows: Sequence[SensitivityRow], new: SensitivityRow) -> tuple[SensitivityRow, ...]:
    """The rows with `new` in the place of an older one of its name and kind."""
    return (*(row for row in rows if (row.name, row.by) != (new.name, new.by)), new)

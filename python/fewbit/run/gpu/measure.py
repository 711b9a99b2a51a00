"""Perplexity and KL divergence on the card, so that logits need not be copied to the host.

The shaders compute in f32, in forms that avoid cancellation. The core computes rows with a logit
that is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import InputError, ShapeError
from fewbit.run import predictions
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.guard import guarded
from fewbit.run.predictions import Ids, Logits, Measures

LANES = 256
"""Invocations per row."""
NOT_FINITE = 2
"""Flag of a row with a logit that is not finite: the host computes it."""


@dataclass(frozen=True)
class RowBuffers:
    """Buffers for as many rows as a shader can bind: logits, targets and measures."""

    rows: int
    logits: Any
    targets: Any
    found: Any


class Predictions:
    """Rows [count, vocab] of logits on a card; see `fewbit.run.predictions`."""

    def __init__(self, device: Device, vocab: int, capacity: int) -> None:
        self.device, self.vocab, self.capacity, self.count = device, vocab, capacity, 0
        self.max_rows = max(device.max_binding // (4 * vocab), 1)
        self.row_buffers: list[RowBuffers] = []
        try:
            for first in range(0, capacity, self.max_rows):
                self.row_buffers.append(self._row_buffers(min(self.max_rows, capacity - first)))
        except BaseException:
            self.destroy()
            raise
        self.spare: list[Predictions] | None = None

    def _row_buffers(self, rows: int) -> RowBuffers:
        label, made = "the logits of a text", list[Any]()
        try:
            for size in (4 * rows * self.vocab, 4 * rows, 16 * rows):
                made.append(self.device.buffer(size, label))
        except BaseException:
            for buffer in made:
                self.device.release(buffer)
            raise
        return RowBuffers(rows, *made)

    def append(self, encoder: Any, slot: Any, rows: Sequence[int]) -> None:
        """Append copies of these rows of a slot."""
        size = 4 * self.vocab
        for first, count in runs(rows):
            done = 0
            while done < count:
                index, at = divmod(self.count, self.max_rows)
                fits = min(count - done, self.max_rows - at)
                target = self.row_buffers[index].logits
                start = size * (first + done)
                encoder.copy_buffer_to_buffer(slot, start, target, size * at, size * fits)
                self.count += fits
                done += fits

    def logits(self) -> Logits:
        """All rows, copied to the host."""
        rows = [self._read(index, 0, used) for index, used in self._used()]
        return np.concatenate(rows) if rows else np.empty((0, self.vocab), np.float32)

    def nll(self, targets: Ids) -> NDArray[np.float64]:
        """-ln of the probability of each row's target, f64 [count], in nats.

        Raises:
            InputError: a target is not in the vocabulary.

        """
        found = self._measure("nll", targets, None)
        values = found[:, 0].astype(np.float64)
        for row in np.flatnonzero(found[:, 1]).tolist():
            values[row] = _core.nll(self._row(row), targets[row : row + 1])[0]
        return values

    def divergence(self, base: predictions.Predictions, targets: Ids) -> Measures:
        """Measures of how the rows diverge from those of `base`; on the card if both are there.

        Raises:
            InputError: a target is not in the vocabulary.
            ShapeError: the numbers of rows, or the vocabularies, differ.

        """
        if not isinstance(base, Predictions) or base.device is not self.device:
            return dict(_core.divergence(base.logits(), self.logits(), targets))
        if (base.count, base.vocab) != (self.count, self.vocab):
            raise ShapeError(
                f"{self.count} rows of {self.vocab} logits cannot diverge from {base.count} of "
                f"{base.vocab}"
            )
        found = self._measure("divergence", targets, base)
        flags = found[:, 3].astype(np.uint8)
        nll_base, nll, kld = found[:, :3].T.astype(np.float64)
        measures: Measures = {
            "nll_base": nll_base, "nll": nll, "kld": kld,
            "dp": np.exp(-nll_base) * np.expm1(nll_base - nll),
            "same_top": (flags & 1).astype(np.bool_),
        }  # fmt: skip
        for row in np.flatnonzero(flags & NOT_FINITE).tolist():
            one = _core.divergence(base._row(row), self._row(row), targets[row : row + 1])
            for name, values in one.items():
                measures[name][row] = values[0]
        return measures

    def release(self) -> None:
        """Let the next predictions reuse the buffers; these must not be read any more."""
        self.count = 0
        if self.spare is not None:
            self.spare.append(self)

    def destroy(self) -> None:
        """Free the card's memory."""
        for held in self.row_buffers:
            for buffer in (held.logits, held.targets, held.found):
                self.device.release(buffer)
        self.row_buffers = []

    def _measure(self, name: str, targets: Ids, base: Predictions | None) -> NDArray[np.float32]:
        """The measures of each row by shader `name`, f32 [count, 4]."""
        if len(targets) != self.count:
            raise ShapeError(f"{self.count} rows of logits but {len(targets)} targets")
        if len(targets) and int(targets.max()) >= self.vocab:
            wrong = int(targets[targets >= self.vocab][0])
            raise InputError(f"token {wrong} is not in the vocabulary of {self.vocab}")
        found = [
            self._dispatch(name, index, targets[first : first + used], base)
            for index, used in self._used()
            for first in [index * self.max_rows]
        ]
        return np.concatenate(found) if found else np.empty((0, 4), np.float32)

    def _dispatch(
        self, name: str, index: int, targets: Ids, base: Predictions | None
    ) -> NDArray[np.float32]:
        own = self.row_buffers[index]
        first = own if base is None else base.row_buffers[index]
        buffers = {3: (first.logits, False), 4: (own.found, True), 5: (own.targets, False)}
        if base is not None:
            buffers[6] = (own.logits, False)
        flags = {at: writes for at, (_, writes) in buffers.items()}
        constants = {"VOCAB": self.vocab, "LANES": LANES}
        message = f"{self.device.adapter.name} failed to measure {len(targets)} predictions"
        with guarded(message):
            pipeline = self.device.pipeline((name,), flags, constants)
            self.device.queue.write_buffer(own.targets, 0, np.ascontiguousarray(targets))
            encoder = self.device.encoder()
            compute = encoder.begin_compute_pass()
            compute.set_pipeline(pipeline)
            compute.set_bind_group(0, self.device.bind(buffers))
            compute.dispatch_workgroups(1, len(targets), 1)
            compute.end()
            self.device.queue.submit([encoder.finish()])
        data = self.device.read(own.found, 0, 16 * len(targets), message)
        return np.frombuffer(data, np.float32).reshape(-1, 4)

    def _used(self) -> list[tuple[int, int]]:
        """Indices of `row_buffers` with rows in them, and how many rows each has."""
        starts = range(0, self.count, self.max_rows)
        return [(i, min(self.max_rows, self.count - start)) for i, start in enumerate(starts)]

    def _row(self, row: int) -> Logits:
        return self._read(row // self.max_rows, row % self.max_rows, 1)

    def _read(self, own: int, first: int, rows: int) -> Logits:
        size = 4 * self.vocab
        message = f"cannot read logits back from {self.device.adapter.name}"
        data = self.device.read(self.row_buffers[own].logits, first * size, rows * size, message)
        return np.frombuffer(data, np.float32).reshape(rows, self.vocab)


def runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending rows as runs of consecutive rows: (first, count)."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and row == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((row, 1))
    return found

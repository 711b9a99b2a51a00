"""Predictions that stay on the card: of a row of logits only what it says comes back.

The shaders compute in f32, in an order that loses nothing to cancellation; a row with a logit that
is no finite number is left to the core, which says what that means.
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
"""Invocations to a row."""
DAMAGED = 2
"""The flag of a row that the shader leaves to the host."""


@dataclass(frozen=True)
class Piece:
    """Rows that a shader can bind, a target for each, and what is found of each."""

    rows: int
    logits: Any
    targets: Any
    found: Any


class Predictions:
    """Rows [count, vocab] of logits on a card; see `fewbit.predictions`."""

    def __init__(self, device: Device, vocab: int, capacity: int) -> None:
        self.device, self.vocab, self.capacity, self.count = device, vocab, capacity, 0
        self.most = max(device.max_binding // (4 * vocab), 1)
        self.pieces: list[Piece] = []
        try:
            for first in range(0, capacity, self.most):
                self.pieces.append(self._piece(min(self.most, capacity - first)))
        except BaseException:
            self.destroy()
            raise
        self.spare: list[Predictions] | None = None

    def _piece(self, rows: int) -> Piece:
        what, made = "the logits of a text", list[Any]()
        try:
            for size in (4 * rows * self.vocab, 4 * rows, 16 * rows):
                made.append(self.device.buffer(size, what))
        except BaseException:
            for buffer in made:
                self.device.release(buffer)
            raise
        return Piece(rows, *made)

    def append(self, encoder: Any, slot: Any, rows: Sequence[int]) -> None:
        """Copy these rows of a slot behind those that are there."""
        size = 4 * self.vocab
        for first, count in runs(rows):
            done = 0
            while done < count:
                piece, at = divmod(self.count, self.most)
                part = min(count - done, self.most - at)
                target = self.pieces[piece].logits
                start = size * (first + done)
                encoder.copy_buffer_to_buffer(slot, start, target, size * at, size * part)
                self.count += part
                done += part

    def logits(self) -> Logits:
        """The rows, read back."""
        rows = [self._read(index, 0, used) for index, used in self._used()]
        return np.concatenate(rows) if rows else np.empty((0, self.vocab), np.float32)

    def nll(self, targets: Ids) -> NDArray[np.float64]:
        """-ln of the probability of each row's target, nats.

        Raises:
            InputError: a target is not in the vocabulary.

        """
        found = self._measure("nll", targets, None)
        values = found[:, 0].astype(np.float64)
        for row in np.flatnonzero(found[:, 1]).tolist():
            values[row] = _core.nll(self._row(row), targets[row : row + 1])[0]
        return values

    def divergence(self, base: predictions.Predictions, targets: Ids) -> Measures:
        """How the rows diverge from those of `base`; on the card, where both are.

        Raises:
            InputError: a target is not in the vocabulary.
            ShapeError: the rows or vocabularies of both differ.

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
        for row in np.flatnonzero(flags & DAMAGED).tolist():
            one = _core.divergence(base._row(row), self._row(row), targets[row : row + 1])
            for name, values in one.items():
                measures[name][row] = values[0]
        return measures

    def release(self) -> None:
        """Make room for the next predictions; nothing is read of these any more."""
        self.count = 0
        if self.spare is not None:
            self.spare.append(self)

    def destroy(self) -> None:
        """Free the card's memory."""
        for piece in self.pieces:
            for buffer in (piece.logits, piece.targets, piece.found):
                self.device.release(buffer)
        self.pieces = []

    def _measure(self, name: str, targets: Ids, base: Predictions | None) -> NDArray[np.float32]:
        """[count, 4]: what a shader finds of each row."""
        if len(targets) != self.count:
            raise ShapeError(f"{self.count} rows of logits but {len(targets)} targets")
        if len(targets) and int(targets.max()) >= self.vocab:
            wrong = int(targets[targets >= self.vocab][0])
            raise InputError(f"token {wrong} is not in the vocabulary of {self.vocab}")
        found = [
            self._dispatch(name, index, targets[first : first + used], base)
            for index, used in self._used()
            for first in [index * self.most]
        ]
        return np.concatenate(found) if found else np.empty((0, 4), np.float32)

    def _dispatch(
        self, name: str, index: int, targets: Ids, base: Predictions | None
    ) -> NDArray[np.float32]:
        piece = self.pieces[index]
        first = piece if base is None else base.pieces[index]
        buffers = {3: (first.logits, False), 4: (piece.found, True), 5: (piece.targets, False)}
        if base is not None:
            buffers[6] = (piece.logits, False)
        flags = {at: writes for at, (_, writes) in buffers.items()}
        constants = {"VOCAB": self.vocab, "LANES": LANES}
        what = f"{self.device.adapter.name} failed to measure {len(targets)} predictions"
        with guarded(what):
            pipeline = self.device.pipeline((name,), flags, constants)
            self.device.queue.write_buffer(piece.targets, 0, np.ascontiguousarray(targets))
            encoder = self.device.encoder()
            compute = encoder.begin_compute_pass()
            compute.set_pipeline(pipeline)
            compute.set_bind_group(0, self.device.bind(buffers))
            compute.dispatch_workgroups(1, len(targets), 1)
            compute.end()
            self.device.queue.submit([encoder.finish()])
        data = self.device.read(piece.found, 0, 16 * len(targets), what)
        return np.frombuffer(data, np.float32).reshape(-1, 4)

    def _used(self) -> list[tuple[int, int]]:
        """Pieces with rows in them, and how many."""
        starts = range(0, self.count, self.most)
        return [(i, min(self.most, self.count - start)) for i, start in enumerate(starts)]

    def _row(self, row: int) -> Logits:
        return self._read(row // self.most, row % self.most, 1)

    def _read(self, piece: int, first: int, rows: int) -> Logits:
        size = 4 * self.vocab
        what = f"cannot read logits back from {self.device.adapter.name}"
        data = self.device.read(self.pieces[piece].logits, first * size, rows * size, what)
        return np.frombuffer(data, np.float32).reshape(rows, self.vocab)


def runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending rows as runs that follow on each other: first, count."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and row == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((row, 1))
    return found

"""Tensors on their way into other formats, a slab of rows at a time, whatever their size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import FewbitError
from fewbit.files.checkpoint import Checkpoint
from fewbit.formats.table import find_format

SLAB = 64 << 20
"""Bytes of a slab as it is read. Progress and interrupts are seen between slabs; a slab of a mapped
file takes no memory, one whose rows have to be put in order takes its own size."""

WHOLE = 1 << 62


@dataclass(frozen=True)
class Stream:
    """The tensors of `checkpoint` in `formats`.

    `importance` is f32 [columns] by name, of experts one after another; `threads` 0 is all cores.
    """

    checkpoint: Checkpoint
    formats: Mapping[str, str]
    importance: Mapping[str, NDArray[np.float32]]
    threads: int = 0

    def data(self, name: str) -> NDArray[np.uint8]:
        """The whole tensor `name`, uint8 [rows, row bytes].

        Raises:
            FormatError: a weight cannot be stored.

        """
        tensor = self.checkpoint.tensors[name]
        if tensor.format == self.formats[name]:
            return np.ascontiguousarray(tensor.read()).reshape(self.rows(name)[0], -1)
        with _named(name):
            parts = [
                _core.encode(
                    rows, tensor.format, self.rows(name)[1], self.formats[name], weights,
                    self.threads,
                )
                for rows, _, weights in self._pieces(name, WHOLE)
            ]  # fmt: skip
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def write(self, name: str, path: Path, offset: int) -> Iterator[int]:
        """Put tensor `name` at byte `offset` of a file; yields the bytes written, slab by slab.

        Raises:
            FormatError: a weight cannot be stored.
            OSError: the file cannot be written.

        """
        source, target = self.checkpoint.tensors[name].format, self.formats[name]
        columns = self.rows(name)[1]
        row_bytes = find_format(target).row_bytes(columns)
        for rows, first, weights in self._pieces(name, SLAB):
            place = offset + first * row_bytes
            with _named(name):
                _core.encode_to_file(
                    rows, source, columns, target, str(path), place, first, weights, self.threads
                )
            yield len(rows) * row_bytes

    def rows(self, name: str) -> tuple[int, int]:
        """How many rows of how many elements `name` has; a vector is one row."""
        shape = self.checkpoint.tensors[name].shape
        return (1, shape[0]) if len(shape) == 1 else (math.prod(shape[:-1]), shape[-1])

    def _pieces(
        self, name: str, size: int
    ) -> Iterator[tuple[NDArray[np.uint8], int, NDArray[np.float32] | None]]:
        """Rows of about `size` bytes, the first one's number, and what their columns count."""
        tensor, rows = self.checkpoint.tensors[name], self.rows(name)[0]
        weights = self.importance.get(name)
        matrices = 1 if weights is None else max(math.prod(tensor.shape[:-2]), 1)  # experts' own
        of_each = [None] if weights is None else np.array_split(weights, matrices)
        height = rows // matrices
        row_bytes = max(find_format(tensor.format).row_bytes(self.rows(name)[1]), 1)
        step = min(max(size // row_bytes, 1), height)
        step = max(step // tensor.together, 1) * tensor.together
        for matrix, own in enumerate(of_each):
            end = (matrix + 1) * height
            for start in range(matrix * height, end, step):
                yield tensor.slab(start, min(start + step, end), rows), start, own


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of the core with the tensor's name in front."""
    try:
        yield
    except FewbitError as error:
        raise type(error)(f"tensor `{name}`: {error.message}", hint=error.hint) from None

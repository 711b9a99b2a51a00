"""Encode tensors in other formats, a slab of rows at a time, so that size does not matter."""

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
from fewbit.files.mapped import drop_pages
from fewbit.files.tensor_file import Source
from fewbit.formats.table import find_format
from fewbit.plan.shapes import matrix_shape

SLAB = 64 << 20
"""Bytes of a slab of the source. Progress and interrupts are handled between slabs. A slab of a
mapped file takes no memory; one whose rows must be reordered takes its own size."""

UNLIMITED = 1 << 62


@dataclass(frozen=True)
class TensorEncoder:
    """Gives or writes the tensors of `checkpoint`, encoded in `formats`.

    `importance` is f32 [columns] by tensor name, expert after expert; `threads` 0 is all cores.
    """

    checkpoint: Source
    formats: Mapping[str, str]
    importance: Mapping[str, NDArray[np.float32]]
    threads: int = 0

    def data(self, name: str) -> NDArray[np.uint8]:
        """All rows of tensor `name`, encoded: uint8 [rows, row bytes].

        Raises:
            FormatError: a weight cannot be stored.

        """
        tensor = self.checkpoint.tensors[name]
        if tensor.format == self.formats[name]:
            return np.ascontiguousarray(tensor.read()).reshape(self.rows(name)[0], -1)
        with _named(name):
            slabs = [
                _core.encode(
                    rows, tensor.format, self.rows(name)[1], self.formats[name], weights,
                    self.threads,
                )
                for rows, _, weights in self._slabs(name, UNLIMITED)
            ]  # fmt: skip
        return slabs[0] if len(slabs) == 1 else np.concatenate(slabs)

    def write(self, name: str, path: Path, offset: int) -> Iterator[int]:
        """Put tensor `name` at byte `offset` of a file; yields the bytes written, slab by slab.

        Raises:
            FormatError: a weight cannot be stored.
            OSError: the file cannot be written.

        """
        source, target = self.checkpoint.tensors[name].format, self.formats[name]
        columns = self.rows(name)[1]
        row_bytes = find_format(target).row_bytes(columns)
        for rows, first, weights in self._slabs(name, SLAB):
            place = offset + first * row_bytes
            with _named(name):
                _core.encode_to_file(
                    rows, source, columns, target, str(path), place, first, weights, self.threads
                )
            drop_pages(self.checkpoint.maps)
            yield len(rows) * row_bytes

    def rows(self, name: str) -> tuple[int, int]:
        """(rows, columns) of tensor `name`; a vector is one row."""
        return matrix_shape(self.checkpoint.tensors[name].shape)

    def _slabs(
        self, name: str, size: int
    ) -> Iterator[tuple[NDArray[np.uint8], int, NDArray[np.float32] | None]]:
        """Slabs of about `size` bytes, each with its first row's index and its importance."""
        tensor, rows = self.checkpoint.tensors[name], self.rows(name)[0]
        weights = self.importance.get(name)
        matrices = 1 if weights is None else max(math.prod(tensor.shape[:-2]), 1)  # experts' own
        of_each = [None] if weights is None else np.array_split(weights, matrices)
        height = rows // matrices
        row_bytes = max(find_format(tensor.format).row_bytes(self.rows(name)[1]), 1)
        step = min(max(size // row_bytes, 1), height)
        for matrix, own in enumerate(of_each):
            end = (matrix + 1) * height
            for start in range(matrix * height, end, step):
                yield tensor.slab(start, min(start + step, end), rows), start, own


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the tensor's name in front of errors of the core."""
    try:
        yield
    except FewbitError as error:
        raise type(error)(f"tensor `{name}`: {error.message}", hint=error.hint) from None

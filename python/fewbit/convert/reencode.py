"""Rows of a model encoded again in the formats of a file that was quantized from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import FewbitError, InputError, ShapeError
from fewbit.files.checkpoint import Checkpoint, LazyTensor
from fewbit.files.gguf import TensorInfo
from fewbit.files.gguf_config import ROPE_FREQS
from fewbit.files.mapped import intact
from fewbit.files.tensor_file import Source
from fewbit.formats.table import find_format

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Reencoder:
    """The tensors of `checkpoint`, to be encoded as they are in the file `file`.

    `importance` is f32 [columns] by name, of experts one after another; `threads` 0 is all cores.
    """

    file: str | PathLike[str]
    checkpoint: Source
    importance: Mapping[str, NDArray[np.float32]]
    threads: int = 0

    @cached_property
    def tensors(self) -> dict[str, LazyTensor]:
        """By name, the divisors of rotary frequencies among them, which GGUF has as tensors."""
        found = dict(self.checkpoint.tensors)
        for name, divisors in self.checkpoint.divisors.items():
            data = np.array(divisors, np.float32).view(np.uint8)
            found[name] = LazyTensor(name, "F32", (len(divisors),), partial(np.asarray, data))
        return found

    @property
    def computed(self) -> frozenset[str]:
        """Tensors that a converter computes, whose last bits are its own: Llama 3's divisors."""
        if not isinstance(self.checkpoint, Checkpoint):
            return frozenset()
        rope = self.checkpoint.config.rope
        return frozenset((ROPE_FREQS,) if rope.kind == "llama3" and rope.factors is None else ())

    def check(self, stored: Mapping[str, TensorInfo], names: list[str], *, complete: bool) -> None:
        """Refuse a source that cannot be that of the file; `complete`: for all of its tensors.

        Raises:
            InputError: a tensor is missing in the file or in the source.
            ShapeError: a tensor has another shape in the source.

        """
        for name in names:
            tensor = self.tensors.get(name)
            if tensor is not None and _plain(tensor.shape) != _plain(stored[name].shape):
                here, there = (" x ".join(map(str, s)) for s in (stored[name].shape, tensor.shape))
                raise ShapeError(
                    f"`{self.file}` is not made from `{self.checkpoint.path}`: "
                    f"`{name}` is {here} in the file and {there} in the source",
                    hint="name the model that the file was quantized from",
                    tensor=name,
                )
        missing = [name for name in names if name not in self.tensors]
        if missing:
            raise self._other(f"the source has no tensor `{missing[0]}`", missing[0])
        lacking = [name for name in self.tensors if name not in stored] if complete else []
        if lacking:
            raise self._other(f"the file has no tensor `{lacking[0]}`", lacking[0])

    def _other(self, what: str, name: str) -> InputError:
        return InputError(
            f"`{self.file}` is not made from `{self.checkpoint.path}`: {what}",
            hint="name the model that the file was quantized from",
            tensor=name,
        )

    def row_bytes(self, name: str) -> int:
        """Bytes of a row of tensor `name` in the source."""
        tensor = self.tensors[name]
        return find_format(tensor.format).row_bytes(tensor.shape[-1])

    def encoder(self, name: str, format_: str) -> Callable[[Numbers], Bytes]:
        """A function from ascending numbers of rows to these rows in `format_`, [n, row bytes].

        It raises a `FormatError` if `format_` needs an importance matrix or the source holds a
        value that is not finite.
        """
        tensor = self.tensors[name]
        read, weights = _reader(tensor), self.importance.get(name)
        matrices = 1 if weights is None else max(math.prod(tensor.shape[:-2]), 1)  # experts' own
        of_each = [None] if weights is None else np.array_split(weights, matrices)
        height = math.prod(tensor.shape[:-1]) // matrices

        def encode(rows: Numbers) -> Bytes:
            if tensor.format == format_:
                return read(rows)
            found = []
            for matrix in np.unique(rows // height):
                own = rows[rows // height == matrix]
                found.append(self._encode(tensor, own, read(own), format_, of_each[matrix]))
            return found[0] if len(found) == 1 else np.concatenate(found)

        return encode

    def _encode(
        self,
        tensor: LazyTensor,
        rows: Numbers,
        data: Bytes,
        format_: str,
        weights: NDArray[np.float32] | None,
    ) -> Bytes:
        """`data`, the rows `rows` of a tensor, in another format."""
        columns = tensor.shape[-1]
        try:
            return _core.encode(data, tensor.format, columns, format_, weights, self.threads)
        except FewbitError as error:
            values = _core.decode(data, tensor.format, columns, self.threads)
            bad = rows[~np.isfinite(values).all(axis=1)]
            what = error.message
            if bad.size:  # the core counts rows from the first of these
                what = f"row {bad[0]} of the source is not finite, {format_} cannot store it"
            raise type(error)(f"tensor `{tensor.name}`: {what}", hint=error.hint) from None


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without leading ones: a vector and a matrix of one row are the same."""
    first = next((i for i, size in enumerate(shape[:-1]) if size > 1), len(shape) - 1)
    return shape[first:]


def _reader(tensor: LazyTensor) -> Callable[[Numbers], Bytes]:
    """A function from ascending numbers of rows to their bytes, uint8 [n, row bytes]."""
    total = math.prod(tensor.shape[:-1])
    if tensor.read_rows is None:
        data = tensor.read().reshape(total, -1)
        return lambda rows: take_rows(data, rows)
    read_rows = tensor.read_rows
    return lambda rows: np.concatenate([read_rows(start, stop) for start, stop in _runs(rows)])


def take_rows(data: Bytes, rows: Numbers) -> Bytes:
    """The rows of `data` with these ascending numbers: a view if they follow each other."""
    data = intact(data)
    if int(rows[-1] - rows[0]) + 1 == len(rows):
        return np.ascontiguousarray(data[rows[0] : rows[-1] + 1])
    return data[rows]


def _runs(rows: Numbers) -> Iterator[tuple[int, int]]:
    """Start and stop of each run of consecutive numbers."""
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        yield int(run[0]), int(run[-1]) + 1

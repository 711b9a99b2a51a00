"""The tensors of a model on a card, cut by rows where a shader could not see all of one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import FormatError, InputError, ShapeError
from fewbit.formats.table import find_format
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.guard import guarded
from fewbit.run.gpu.repack import HEADS, repack

NONE = np.empty((0, 0), np.uint8)
"""The host's bytes of a matrix that was made on the card."""

WHOLE = ("Q2_K", "Q3_K", "IQ1_M", "IQ2_XS", "IQ2_S")
"""Formats whose products share a scale of the activations between 256 columns, as in the core."""


@dataclass(frozen=True)
class Slice:
    """Rows `first` and following of a matrix: what its shaders bind, and their constants."""

    first: int
    rows: int
    file: str
    buffers: dict[int, Any]
    constants: dict[str, float]


class Tensor:
    """A matrix [rows, columns] in a format; its slices are uploaded when they are first asked for.

    A vector is a single row.
    """

    def __init__(
        self, device: Device, name: str, format_: str, columns: int, data: NDArray[np.uint8]
    ) -> None:
        self.name, self.format, self.columns = name, find_format(format_), columns
        self.rows = len(data)
        self._device = device
        self._data: NDArray[np.uint8] | None = data
        self.takes_bf16 = format_ == "BF16" and not _has_tiny(data)
        """Whether `acts="int8"` rounds what meets this matrix to bfloat16, as in the core."""

    @property
    def rounds_activations(self) -> int:
        """How many columns share a scale where `acts="int8"` rounds what meets this matrix, else 0.

        It rounds for integers in groups of 16 or 32s.
        """
        if self.format.is_float or (self.format.family == "affine" and not self._in_groups):
            return 0
        return 256 if self.format.name in WHOLE else 32

    @property
    def _in_groups(self) -> bool:
        return self.format.block == 16 or self.format.block % 32 == 0

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """The parts of the matrix on the card; afterwards the host's bytes are let go."""
        data = self._bytes()
        most = max(self._device.max_binding // data.shape[1], 1)
        parts: list[Slice] = []
        try:
            for first in range(0, self.rows, most):
                parts.append(self._slice(first, data[first : first + most]))
        except BaseException:
            for part in parts:
                self._free(part.buffers)
            raise
        self._data = None
        return tuple(parts)

    @cached_property
    def vector(self) -> Any:
        """A buffer of the values as f32: what norms and biases read."""
        return self._device.upload(self.values(), f"`{self.name}`")

    def values(self) -> NDArray[np.float32]:
        """The values on the host."""
        return _core.decode(self._bytes(), self.format.name, self.columns)

    def release(self) -> None:
        """Free the card's memory; the tensor is of no use afterwards."""
        held = self.__dict__
        for part in held.pop("slices", ()):
            self._free(part.buffers)
        if "vector" in held:
            self._device.release(held.pop("vector"))

    def _free(self, buffers: Mapping[int, Any]) -> None:
        for buffer in buffers.values():
            self._device.release(buffer)

    def _bytes(self) -> NDArray[np.uint8]:
        if self._data is None:
            raise InputError(f"`{self.name}` is a matrix in one op and a vector in another")
        return self._data

    def _slice(self, first: int, data: NDArray[np.uint8]) -> Slice:
        packed = repack(self.format.name, len(data), self.columns, data)
        what = f"`{self.name}`"
        buffers: dict[int, Any] = {}
        try:
            for at, array in packed.arrays.items():
                buffers[at] = self._device.upload(array, what)
        except BaseException:
            self._free(buffers)
            raise
        return Slice(first, len(data), packed.file, buffers, packed.constants)


def _has_tiny(data: NDArray[np.uint8]) -> bool:
    """Whether bfloat16 numbers are below 2^-54 but not zero."""
    least = (127 - 54) << 7
    magnitude = np.ascontiguousarray(data).view(np.uint16) & 0x7FFF
    return bool(((magnitude > 0) & (magnitude < least)).any())


def sizes(tensor: Tensor) -> tuple[int, int]:
    """Bytes of a matrix in bindings 0 and 1, as `repack` cuts it."""
    found = tensor.format
    blocks = tensor.rows * tensor.columns // found.block
    head = 0 if found.is_float else HEADS[found.name][1]
    return blocks * (found.bytes - head), blocks * head


class Weights:
    """Tensors by name, with the interface of the core's `Weights`.

    Of tensors with several rows, those named in `vectors` are read as plain f32: see
    `fewbit.run.gpu.ops.vectors`.
    """

    def __init__(self, device: Device, vectors: Collection[str] = ()) -> None:
        self.device = device
        self._vectors = vectors
        self._tensors: dict[str, Tensor] = {}
        self._joined: set[tuple[str, ...]] = set()
        self.nbytes = 0

    def add(
        self, name: str, format_: str, rows: int, columns: int, data: NDArray[np.uint8],
        matrices: int = 1,
    ) -> None:  # fmt: skip
        """Keep a tensor [rows, columns] and upload it, if it is a matrix.

        Of several `matrices`, one below the other, the ops know the bounds; here rows are rows.

        Raises:
            ShapeError: `data` does not hold so many rows and columns of the format.
            FormatError: a value of a vector is not finite.
            DeviceError: the card is full.

        """
        expected = (rows, find_format(format_).row_bytes(columns))
        if data.shape != expected:
            raise ShapeError(
                f"`{name}`: {rows} rows of {columns} {format_} take {list(expected)} bytes, "
                f"found {list(data.shape)}"
            )
        tensor = Tensor(self.device, name, format_, columns, data)
        if rows > 1 and name not in self._vectors:
            _ = tensor.slices
        elif not np.isfinite(_core.decode(data, tensor.format.name, columns)).all():
            raise FormatError(
                f"`{name}`: a weight or a scale is NaN or infinite",
                hint="the file is damaged, or the model was trained to overflow",
            )
        self._tensors[name] = tensor
        self.nbytes += data.nbytes

    def can_join(self, names: Sequence[str], matrices: int = 1) -> bool:
        """Whether `join` can make one of these: of one format, whose rows lie in order."""
        if any(tuple(names) == whole[: len(names)] for whole in self._joined):
            return True
        if any(name not in self._tensors for name in names):
            return False  # they are part of something else by now
        tensors = [self[name] for name in names]
        first = tensors[0]
        if first.format.family == "affine" or any(t.rows == 1 for t in tensors):
            return False
        if any((t.format, t.columns) != (first.format, first.columns) for t in tensors):
            return False
        row = first.format.row_bytes(first.columns)
        if sum(t.rows for t in tensors) * row > self.device.max_binding:
            return False
        whole = all(size % (4 * matrices) == 0 for t in tensors for size in sizes(t))
        return whole and all(len(t.slices) == 1 for t in tensors)

    def join(self, names: Sequence[str], matrices: int = 1) -> None:
        """Make one tensor of these, ``A+B+C``: matrices on the card, vectors as f32.

        Of several `matrices` in each, the first ones become the first, and so on. The tensors
        themselves are gone afterwards. Names of what was joined before do nothing.
        """
        name = "+".join(names)
        if name in self._tensors:
            return
        tensors = [self[n] for n in names]
        rows, columns = sum(t.rows for t in tensors), tensors[0].columns
        if tensors[0].rows == 1 or names[0] in self._vectors:
            parts = [t.values().reshape(matrices, -1) for t in tensors]
            values = np.concatenate(parts, axis=1).reshape(-1)
            data = values.view(np.uint8).reshape(1, -1)
            self._tensors[name] = Tensor(self.device, name, "F32", values.size, data)
        else:
            made = Tensor(self.device, name, tensors[0].format.name, columns, NONE)
            made.rows = rows
            made.slices = (self._joined_slice(name, tensors, matrices),)
            self._tensors[name] = made
        self._joined.add(tuple(names))
        for tensor in tensors:
            del self._tensors[tensor.name]
            tensor.release()

    def _joined_slice(self, name: str, tensors: Sequence[Tensor], matrices: int) -> Slice:
        """Bindings 0 and 1 one after the other, by matrices; a grid is the same for all."""
        what, encoder = f"`{name}`", self.device.encoder()
        parts = [t.slices[0] for t in tensors]
        buffers: dict[int, Any] = {}
        try:
            for at in parts[0].buffers:
                every = [part.buffers[at] for part in parts]
                pieces = [(every[0], 0, every[0].size)]
                if at < 2:
                    own = [
                        (b, sizes(t)[at] // matrices) for b, t in zip(every, tensors, strict=True)
                    ]
                    pieces = [(b, i * size, size) for i in range(matrices) for b, size in own]
                buffers[at] = self.device.buffer(sum(size for _, _, size in pieces), what)
                start = 0
                for source, begin, size in pieces:
                    encoder.copy_buffer_to_buffer(source, begin, buffers[at], start, size)
                    start += size
            with guarded(f"cannot join {what}"):
                self.device.queue.submit([encoder.finish()])
            # once it is done the parts can go: a card need not hold two of every matrix
            self.device.read(buffers[0], 0, 4, f"cannot join {what}")
        except BaseException:
            for buffer in buffers.values():
                self.device.release(buffer)
            raise
        rows = sum(part.rows for part in parts)
        return Slice(0, rows, parts[0].file, buffers, {**parts[0].constants, "ROWS": rows})

    def __getitem__(self, name: str) -> Tensor:
        """The tensor called `name`.

        Raises:
            InputError: there is none.

        """
        if name not in self._tensors:
            raise InputError(f"the weights lack `{name}`", hint="add every tensor of the plan")
        return self._tensors[name]

    def release(self) -> None:
        """Free the card's memory."""
        for tensor in self._tensors.values():
            tensor.release()
        self._tensors.clear()

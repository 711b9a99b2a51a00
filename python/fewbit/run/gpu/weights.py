"""The tensors of a model on a card, split by rows if a shader cannot bind all of one."""

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
from fewbit.run.gpu.repack import HEADERS, repack

NO_BYTES = np.empty((0, 0), np.uint8)
"""Host bytes of a matrix that was joined on the card: none."""


@dataclass(frozen=True)
class Slice:
    """The rows of a matrix from `first` on: the buffers that shaders bind, and their constants."""

    first: int
    rows: int
    file: str
    buffers: dict[int, Any]
    constants: dict[str, float]


class Tensor:
    """A matrix [rows, columns] in a format, uploaded at the first use of `slices`.

    A vector is a matrix of one row.
    """

    def __init__(
        self, device: Device, name: str, format_: str, columns: int, data: NDArray[np.uint8]
    ) -> None:
        self.name, self.format, self.columns = name, find_format(format_), columns
        self.rows = len(data)
        self._device = device
        self._data: NDArray[np.uint8] | None = data
        self.takes_bf16 = format_ == "BF16" and not _has_tiny(data)
        """True if `acts="int8"` rounds activations to bfloat16 for this matrix, as in the core."""

    @property
    def activation_group(self) -> int:
        """Columns whose activations share a scale with `acts="int8"`; 0 if they stay floats."""
        return self.format.activation_group or 0

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """The slices of the matrix on the card; the host's bytes are dropped after the upload."""
        data = self._bytes()
        max_rows = max(self._device.max_binding // data.shape[1], 1)
        slices: list[Slice] = []
        try:
            for first in range(0, self.rows, max_rows):
                slices.append(self._slice(first, data[first : first + max_rows]))
        except BaseException:
            for slice_ in slices:
                self._free(slice_.buffers)
            raise
        self._data = None
        return tuple(slices)

    @cached_property
    def vector(self) -> Any:
        """A buffer of the values as f32, for norms and biases."""
        return self._device.upload(self.values(), f"`{self.name}`")

    def values(self) -> NDArray[np.float32]:
        """The values f32 [rows, columns], on the host."""
        return _core.decode(self._bytes(), self.format.name, self.columns)

    def release(self) -> None:
        """Free the card's memory; the tensor cannot be used afterwards."""
        held = self.__dict__
        for slice_ in held.pop("slices", ()):
            self._free(slice_.buffers)
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
        label = f"`{self.name}`"
        buffers: dict[int, Any] = {}
        try:
            for at, array in packed.arrays.items():
                buffers[at] = self._device.upload(array, label)
        except BaseException:
            self._free(buffers)
            raise
        return Slice(first, len(data), packed.file, buffers, packed.constants)


def _has_tiny(data: NDArray[np.uint8]) -> bool:
    """True if a bfloat16 number is below 2^-54 in size but not zero."""
    least = (127 - 54) << 7
    magnitude = np.ascontiguousarray(data).view(np.uint16) & 0x7FFF
    return bool(((magnitude > 0) & (magnitude < least)).any())


def binding_bytes(tensor: Tensor) -> tuple[int, int]:
    """Bytes of a matrix in bindings 0 and 1 (codes and headers) after `repack`."""
    found = tensor.format
    blocks = tensor.rows * tensor.columns // found.block
    header = 0 if found.is_float else HEADERS[found.name][1]
    return blocks * (found.bytes - header), blocks * header


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
        """Add a tensor [rows, columns]; upload it if it is a matrix.

        A tensor may be a stack of `matrices`; the ops know where each of them begins.

        Raises:
            ShapeError: `data` has another size than these rows and columns of the format.
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
        """True if `join` can join these: one format, and slices that are aligned to words."""
        if any(tuple(names) == joined[: len(names)] for joined in self._joined):
            return True
        if any(name not in self._tensors for name in names):
            return False  # joined with other tensors before
        tensors = [self[name] for name in names]
        first = tensors[0]
        if first.format.family == "affine" or any(t.rows == 1 for t in tensors):
            return False
        if any((t.format, t.columns) != (first.format, first.columns) for t in tensors):
            return False
        row = first.format.row_bytes(first.columns)
        if sum(t.rows for t in tensors) * row > self.device.max_binding:
            return False
        aligned = all(size % (4 * matrices) == 0 for t in tensors for size in binding_bytes(t))
        return aligned and all(len(t.slices) == 1 for t in tensors)

    def join(self, names: Sequence[str], matrices: int = 1) -> None:
        """Replace these tensors by one, ``A+B+C``: matrices on the card, vectors as f32.

        If each is a stack of `matrices`, the result is too: its first matrix has the rows of the
        first matrix of each, and so on. Tensors that are joined already are left as they are.
        """
        name = "+".join(names)
        if name in self._tensors:
            return
        tensors = [self[n] for n in names]
        rows, columns = sum(t.rows for t in tensors), tensors[0].columns
        if tensors[0].rows == 1 or names[0] in self._vectors:
            rows_of = [t.values().reshape(matrices, -1) for t in tensors]
            values = np.concatenate(rows_of, axis=1).reshape(-1)
            data = values.view(np.uint8).reshape(1, -1)
            self._tensors[name] = Tensor(self.device, name, "F32", values.size, data)
        else:
            made = Tensor(self.device, name, tensors[0].format.name, columns, NO_BYTES)
            made.rows = rows
            made.slices = (self._joined_slice(name, tensors, matrices),)
            self._tensors[name] = made
        self._joined.add(tuple(names))
        for tensor in tensors:
            del self._tensors[tensor.name]
            tensor.release()

    def _joined_slice(self, name: str, tensors: Sequence[Tensor], matrices: int) -> Slice:
        """Join bindings 0 and 1 matrix by matrix; binding 2, a grid, is the same for all."""
        label, encoder = f"`{name}`", self.device.encoder()
        slices = [t.slices[0] for t in tensors]
        buffers: dict[int, Any] = {}
        try:
            for at in slices[0].buffers:
                sources = [slice_.buffers[at] for slice_ in slices]
                copies = [(sources[0], 0, sources[0].size)]
                if at < 2:
                    sizes = [binding_bytes(t)[at] // matrices for t in tensors]
                    pairs = list(zip(sources, sizes, strict=True))
                    copies = [(b, i * size, size) for i in range(matrices) for b, size in pairs]
                buffers[at] = self.device.buffer(sum(size for _, _, size in copies), label)
                start = 0
                for source, begin, size in copies:
                    encoder.copy_buffer_to_buffer(source, begin, buffers[at], start, size)
                    start += size
            with guarded(f"cannot join {label}"):
                self.device.queue.submit([encoder.finish()])
            # wait until it is done, so that the tensors can be freed: never two of every matrix
            self.device.read(buffers[0], 0, 4, f"cannot join {label}")
        except BaseException:
            for buffer in buffers.values():
                self.device.release(buffer)
            raise
        rows = sum(slice_.rows for slice_ in slices)
        return Slice(0, rows, slices[0].file, buffers, {**slices[0].constants, "ROWS": rows})

    def __getitem__(self, name: str) -> Tensor:
        """The tensor called `name`.

        Raises:
            InputError: there is no such tensor.

        """
        if name not in self._tensors:
            raise InputError(f"the weights lack `{name}`", hint="add every tensor of the plan")
        return self._tensors[name]

    def release(self) -> None:
        """Free the card's memory."""
        for tensor in self._tensors.values():
            tensor.release()
        self._tensors.clear()

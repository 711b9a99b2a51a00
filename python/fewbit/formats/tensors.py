"""Quantized arrays: `quantize`, `dequantize`, and `QuantizedTensor` with its codes and scales."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fewbit import _core
from fewbit.errors import FormatError, InputError, ShapeError
from fewbit.formats import blocks
from fewbit.formats.error_statistics import ErrorStatistics, compare_rows
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import Format, find_format

_SOURCES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Formats of arrays by dtype; bfloat16 is ml_dtypes', which this module never has to import."""

Buffer = bytes | bytearray | memoryview | NDArray[np.uint8]


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedTensor:
    """An array stored in a number format, as `quantize` and `from_bytes` make it.

    `data` is uint8 [rows, row bytes]: the rows of `shape` along its last axis, one after the
    other, in the byte layout of GGUF. `np.asarray(q)` and `q.dequantize()` are its float32 values.

    `codes`, `scales` and `zeros` are the numbers in the blocks, as textbooks define them. They are
    read from `data` at each access. `g` is the group of a column, ``column // q.group_size``:

    ======================================  =======================================  ===============
    formats                                 value                                    codes
    ======================================  =======================================  ===============
    Q1_0 Q2_0 Q4_0 Q5_0 Q8_0 Q3_K Q6_K      ``scales[g] * codes``                    signed integers
    TQ1_0 TQ2_0, symmetric affine (symN)    ``scales[g] * codes``                    signed integers
    Q4_1 Q5_1 Q2_K Q4_K Q5_K, asymN         ``scales[g] * (codes - zeros[g])``       0 to 2^bits - 1
    IQ4_NL IQ4_XS MXFP4 NVFP4               ``scales[g] * codebook[codes]``          indices 0 to 15
    F32 F16 BF16, IQ1, IQ2 and IQ3          none: `UnsupportedError`
    ======================================  =======================================  ===============

    In float32 these formulas equal `dequantize` to the last bit, and in the third row so does
    ``scales[g] * codes + minima[g]``; the one with `zeros` rounds elsewhere. Computed in float64
    and rounded to float32 it is within 1 unit in the last place for formats that store a minimum,
    and within 2 units in the last place of ``scales[g] * max(codes, zeros[g])`` for asymN.

    Tensors compare equal if format, shape and bytes are equal. They are not hashable, because
    `data` can be written to, as any array. Copies and pickles are independent of the original.

    Raises:
        FormatError: the format is unknown.
        ShapeError: `data` is not the rows of `shape` in the format.

    """

    data: NDArray[np.uint8]
    format: str
    shape: tuple[int, ...]
    _error: ErrorStatistics | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        format_, shape = find_format(self.format), _sizes(self.shape)
        rows = _rows_of(self.data, format_, shape)
        if self.data.shape != rows.shape:
            raise ShapeError(
                f"`data` has shape {self.data.shape}, expected {rows.shape}: [rows, row bytes]",
                hint="`QuantizedTensor.from_bytes` takes bytes of any shape",
            )
        object.__setattr__(self, "format", format_.name)
        object.__setattr__(self, "shape", shape)

    @classmethod
    def from_bytes(cls, data: Buffer, format: str, shape: Sequence[int]) -> QuantizedTensor:
        """Make a tensor of `shape` from its bytes in `format`, which are copied.

        `data` is bytes or a uint8 array of any shape: all rows one after the other, as in a GGUF
        file. `error` is not available, as the original values are not known.

        >>> q = quantize(np.linspace(-1, 1, 64, dtype=np.float32), "Q4_0")
        >>> QuantizedTensor.from_bytes(q.data.tobytes(), "Q4_0", (64,)) == q
        True

        Raises:
            FormatError: the format is unknown.
            ShapeError: the shape is empty, a block does not divide the last axis, or `data` has
                another number of bytes than the shape takes.
            InputError: `data` is neither bytes nor a uint8 array, or `shape` not integers.

        """
        format_, sizes = find_format(format), _sizes(shape)
        return cls(_rows_of(data, format_, sizes).copy(), format_.name, sizes)

    def __repr__(self) -> str:
        return (
            f"QuantizedTensor({self.format}, shape={self.shape}, "
            f"{self.bits_per_weight:.4g} bits per weight)"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantizedTensor):
            return NotImplemented
        return (
            self.format == other.format
            and self.shape == other.shape
            and np.array_equal(self.data, other.data)
        )

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the values, float32 or `dtype`, for `np.asarray` and functions of NumPy."""
        if copy is False:
            raise InputError(
                f"the values of a {self.format} tensor cannot be viewed without a copy",
                hint="`np.asarray(q)` decodes them",
            )
        values = self.dequantize()
        return values if dtype is None else values.astype(dtype, copy=False)

    @property
    def nbytes(self) -> int:
        """Size of `data` in bytes."""
        return self.data.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Bits per element, scales included."""
        return 8 * self.data.size / math.prod(self.shape)

    def dequantize(self) -> NDArray[np.float32]:
        """Decode all values, float32 of `shape`."""
        return _core.decode(self.data, self.format, self.shape[-1]).reshape(self.shape)

    @property
    def codes(self) -> NDArray[np.int16]:
        """Code of each element, int16 of `shape`: signed integers, or indices into `codebook`.

        Raises:
            UnsupportedError: the format has no code per element (floats, IQ1, IQ2, IQ3).

        """
        return blocks.codes_of_rows(self.data, self._format, self.shape[-1]).reshape(self.shape)

    @property
    def scales(self) -> NDArray[np.float32]:
        """Scale of each group, float32 [..., groups] ([rows, groups] of a matrix).

        In formats with super-blocks it is the product of the super-block's and the group's scale.

        Raises:
            UnsupportedError: the format has no code per element (floats, IQ1, IQ2, IQ3).

        """
        return self._by_group(blocks.scales_of_rows(self.data, self._format)[0])

    @property
    def minima(self) -> NDArray[np.float32] | None:
        """Minimum of each group, the value of code 0, float32 [..., groups]; None if symmetric.

        Raises:
            UnsupportedError: the format has no code per element (floats, IQ1, IQ2, IQ3).

        """
        minima = blocks.scales_of_rows(self.data, self._format)[1]
        return None if minima is None else self._by_group(minima)

    @property
    def zeros(self) -> NDArray[Any] | None:
        """Zero point of each group, [..., groups]; None in a format without one.

        asymN stores it: int16. For formats that store a minimum it is -minimum / scale, float64,
        and 0 for a group whose scale is 0: all values of that group are its minimum.

        Raises:
            UnsupportedError: the format has no code per element (floats, IQ1, IQ2, IQ3).

        """
        zeros = blocks.zeros_of_rows(self.data, self._format)
        return None if zeros is None else self._by_group(zeros)

    @property
    def codebook(self) -> NDArray[np.float32] | None:
        """Level of each code, float32 [16]; None in formats whose codes are the levels.

        E2M1 (MXFP4, NVFP4) has fractions: its levels here are doubled, its scales halved.
        """
        table = layout_of(self._format).table
        return np.array(table, np.float32) if table else None

    @property
    def group_size(self) -> int:
        """Number of neighbouring elements of a row that share a scale.

        Raises:
            UnsupportedError: the format has no code per element (floats, IQ1, IQ2, IQ3).

        """
        return blocks.group_size(self._format)

    @property
    def error(self) -> ErrorStatistics:
        """Difference from the array that `quantize` was given, measured then.

        Raises:
            InputError: the tensor was made from bytes, or by `quantize(..., measure_error=False)`.

        """
        if self._error is None:
            raise InputError(
                "the error was not measured: the original values are not known",
                hint="`q.error_against(array)` compares the tensor with an array",
            )
        return self._error

    def error_against(self, array: ArrayLike) -> ErrorStatistics:
        """Compare the values with `array`, floats of the same shape.

        Raises:
            ShapeError: the array has another shape.

        """
        original = np.asarray(array)
        if original.shape != self.shape:
            raise ShapeError(
                f"cannot compare a tensor of shape {self.shape} with an array of shape "
                f"{original.shape}"
            )
        rows = original.reshape(len(self.data), -1)
        return compare_rows(rows, self.data, self.format)

    @property
    def _format(self) -> Format:
        return find_format(self.format)

    def _by_group(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows.reshape(*self.shape[:-1], -1)


def quantize(
    array: ArrayLike,
    format: str,
    imatrix: ArrayLike | None = None,
    *,
    threads: int = 0,
    measure_error: bool = True,
) -> QuantizedTensor:
    """Store an array of floats [..., columns] in a number format, row by row.

    The bytes equal those of llama.cpp, on every machine.

    Args:
        array: float32, float16, bfloat16 or float64, at least one axis; float64 is rounded to
            float32 first. The last axis is cut into blocks.
        format: a name in `FORMATS`, as "Q4_0", or of the affine family, as "asym4-g32".
        imatrix: the weight of an error in each column, [columns], finite and not negative.
            IQ1_S, IQ2_XXS and IQ2_XS need it; formats that do not search for scales ignore it.
        threads: number of threads, 0 for one per core.
        measure_error: compare the result with `array`, for `QuantizedTensor.error`.

    >>> from fewbit import quantize
    >>> q = quantize([[127.0, -2.5] + [0.0] * 30], "Q8_0")
    >>> q
    QuantizedTensor(Q8_0, shape=(1, 32), 8.5 bits per weight)
    >>> q.codes[0, :2].tolist(), q.scales.tolist(), q.dequantize()[0, :2].tolist()
    ([127, -3], [[1.0]], [127.0, -3.0])

    Raises:
        FormatError: the format is unknown or needs an importance matrix, a value is NaN or
            infinite or too large for the format, a weight of `imatrix` is negative or not finite,
            or `array` is not of floats.
        ShapeError: the array is empty, a block does not divide the last axis, or `imatrix` has
            another number of columns.

    """
    format_ = find_format(format)
    source = np.asarray(array)
    if source.dtype == np.float64:
        source = source.astype(np.float32)
    source_format = _SOURCES.get(source.dtype.name) if source.dtype.isnative else None
    if source_format is None:
        raise FormatError(
            f"cannot quantize an array of {source.dtype}",
            hint="float32, float16, bfloat16 and float64 arrays can be quantized: "
            "`array.astype(np.float32)`",
        )
    _check_not_empty(source.shape)
    columns = source.shape[-1]
    format_.row_bytes(columns)  # raises ShapeError where the format has no such rows
    floats = np.ascontiguousarray(source).reshape(-1, columns)
    weights = None if imatrix is None else np.ascontiguousarray(imatrix, np.float32)
    data = _core.encode(
        floats.view(np.uint8), source_format, columns, format_.name, weights, threads
    )
    error = compare_rows(floats, data, format_.name, threads) if measure_error else None
    return QuantizedTensor(data, format_.name, source.shape, _error=error)


def dequantize(
    data: Buffer, format: str, shape: Sequence[int], *, threads: int = 0
) -> NDArray[np.float32]:
    """Decode the bytes of a tensor of `shape` stored in `format`, as float32 of `shape`.

    `data` is bytes or a uint8 array of any shape: all rows one after the other, as in a GGUF file.
    `threads` is the number of threads, 0 for one per core.

    >>> from fewbit import dequantize
    >>> dequantize(b"\\x00\\x3c" + bytes([1, 255] + [0] * 30), "Q8_0", (32,))[:3].tolist()
    [1.0, -1.0, 0.0]

    Raises:
        FormatError: the format is unknown.
        ShapeError: the shape is empty, a block does not divide the last axis, or `data` has
            another number of bytes than the shape takes.
        InputError: `data` is neither bytes nor a uint8 array, or `shape` not integers.

    """
    format_, sizes = find_format(format), _sizes(shape)
    rows = _rows_of(data, format_, sizes)
    return _core.decode(rows, format_.name, sizes[-1], threads).reshape(sizes)


def _rows_of(data: Buffer, format_: Format, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The bytes as [rows, row bytes], without a copy where they are contiguous."""
    if isinstance(data, bytes | bytearray | memoryview):
        found = np.frombuffer(data, np.uint8)
    elif isinstance(data, np.ndarray) and data.dtype == np.uint8:
        found = np.ascontiguousarray(data).reshape(-1)
    else:
        kind = f"an array of {data.dtype}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(f"the data must be bytes or an array of uint8, got {kind}")
    _check_not_empty(shape)
    rows, row_bytes = math.prod(shape[:-1]), format_.row_bytes(shape[-1])
    if found.size != rows * row_bytes:
        raise ShapeError(
            f"a {format_.name} tensor of shape {shape} takes {rows * row_bytes} bytes, "
            f"got {found.size}",
            hint="shapes have rows first, as NumPy's: GGUF's own order is the reverse",
            format=format_.name,
        )
    return found.reshape(rows, row_bytes)


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(size) for size in shape)
    except TypeError:
        raise InputError(f"a shape must be integers, as (4096, 4096), got {shape!r}") from None


def _check_not_empty(shape: tuple[int, ...]) -> None:
    if not shape or min(shape) < 1:
        raise ShapeError(
            f"a tensor cannot have shape {shape}",
            hint="it needs at least one axis, and every axis at least one element",
        )

"""Arrays in few bits: `quantize` and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbit import _core
from fewbit.errors import FormatError, ShapeError
from fewbit.formats.table import find_format

_SOURCES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
}


@dataclass(frozen=True)
class ErrorStatistics:
    """How far the stored values are from the original ones.

    `mean_relative` is the mean of |x - y| / |x| over the x that are not 0; `snr` is
    10 log10(sum x^2 / sum (x - y)^2) in decibels.
    """

    max_abs: float
    rmse: float
    mean_relative: float
    snr: float


@dataclass(frozen=True)
class QuantizedTensor:
    """An array in a number format: `data` uint8 [rows, row bytes] holds the rows of `shape`."""

    data: NDArray[np.uint8]
    shape: tuple[int, ...]
    format: str
    _source: NDArray[np.generic] = field(repr=False, compare=False)

    @property
    def bits_per_weight(self) -> float:
        """Bits that an element takes, scales included."""
        return 8 * self.data.size / max(int(np.prod(self.shape)), 1)

    def dequantize(self) -> NDArray[np.float32]:
        """The values that the codes stand for, float32 of `shape`."""
        return _core.decode(self.data, self.format, self.shape[-1]).reshape(self.shape)

    @cached_property
    def error(self) -> ErrorStatistics:
        """What was lost, against the array that was quantized."""
        x = np.asarray(self._source, np.float64).ravel()
        off = np.abs(x - self.dequantize().ravel())
        there = x != 0
        noise, signal = float(np.sum(off**2)), float(np.sum(x**2))
        return ErrorStatistics(
            max_abs=float(off.max(initial=0.0)),
            rmse=(noise / max(x.size, 1)) ** 0.5,
            mean_relative=float(np.mean(off[there] / np.abs(x[there]))) if there.any() else 0.0,
            snr=float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise)),
        )


def quantize(
    array: ArrayLike, format: str, imatrix: ArrayLike | None = None, *, threads: int = 0
) -> QuantizedTensor:
    """Store an array [..., columns] of float32, float16, bfloat16 or float64 in `format`.

    The rows, along the last axis, are stored one after the other as GGUF does; the bytes equal
    llama.cpp's on every machine. `imatrix` [columns] says how much an error in each column
    counts; formats without a search ignore it. float64 is rounded to float32 first.

    >>> from fewbit import quantize
    >>> q = quantize([[127.0, -2.5] + [0.0] * 30], "Q8_0")
    >>> q.data.shape, q.bits_per_weight, q.dequantize()[0, :2].tolist()
    ((1, 34), 8.5, [127.0, -3.0])

    Raises:
        FormatError: unknown format, a value that is not finite, or an array that is not of floats.
        ShapeError: a block does not divide the last axis.

    """
    found = find_format(format)
    source = np.asarray(array)
    if source.dtype == np.float64:
        source = source.astype(np.float32)
    if source.dtype not in _SOURCES:
        raise FormatError(
            f"cannot quantize an array of {source.dtype}",
            hint="float32, float16, bfloat16 and float64 arrays can be quantized",
        )
    if source.ndim == 0 or source.size == 0:
        raise ShapeError(f"cannot quantize an array of shape {source.shape}: it has no rows")
    columns = source.shape[-1]
    rows = np.ascontiguousarray(source).reshape(-1, columns).view(np.uint8)
    weights = None if imatrix is None else np.ascontiguousarray(imatrix, np.float32)
    data = _core.encode(rows, _SOURCES[source.dtype], columns, found.name, weights, threads)
    return QuantizedTensor(data, source.shape, found.name, source)

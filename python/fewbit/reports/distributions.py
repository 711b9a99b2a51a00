"""Distributions of the values of tensors, of any size in the same memory.

A large tensor is decoded three times, a slab of rows at a time: for its range and mean, for its
deviation and percentiles, for its histogram. Percentiles are exact: values are counted by their
upper 16 bits, then those around a percentile by their lower 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.files.checkpoint import LazyTensor
from fewbit.files.gguf import readable
from fewbit.files.mapped import drop_pages
from fewbit.files.names import matching
from fewbit.files.tensor_file import Source
from fewbit.plan.shapes import matrix_shape
from fewbit.reports.summaries import Distribution

PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
SIGMAS = (3, 4, 6, 10)
BINS = 21
SLAB = 1 << 20
"""Values that are decoded at a time."""
_HALF = 1 << 16

Values = NDArray[np.float32]
Counts = NDArray[np.int64]


def distributions(
    source: Source, pattern: str, progress: Progress | None = None
) -> Iterator[Distribution]:
    """The distributions of the tensors whose names match the regular expression `pattern`.

    Raises:
        InputError: `pattern` is not a regular expression, or matches no tensor.

    """
    for name in matching(source.tensors, pattern):
        tensor = source.tensors[name]
        rows, columns = matrix_shape(tensor.shape)
        slabs = _Slabs(source, tensor, progress)
        if rows * columns <= SLAB:
            values = np.concatenate(list(slabs))
            yield distribution(readable(name), tensor.format, tensor.shape, values)
        else:
            yield _streamed(readable(name), tensor, slabs)


@dataclass
class _Slabs:
    """The values of a tensor, a slab of rows after the other; can be walked through again."""

    source: Source
    tensor: LazyTensor
    progress: Progress | None
    done: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Values]:
        tensor, (rows, columns) = self.tensor, matrix_shape(self.tensor.shape)
        step = max(SLAB // max(columns, 1), 1)
        read = tensor.read_rows
        if read is None:
            data = tensor.read().reshape(rows, -1)
            read = partial(_cut, data)
        passes = 3 if rows * columns > SLAB else 1
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            values = _core.decode(read(start, stop), tensor.format, columns)
            drop_pages(self.source.maps)
            self.done += stop - start
            if self.progress:
                self.progress(self.done, passes * rows, readable(tensor.name))
            yield values.ravel()


def _cut(data: NDArray[np.uint8], start: int, stop: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(data[start:stop])


def distribution(name: str, format_: str, shape: tuple[int, ...], values: Values) -> Distribution:
    """The distribution of `values`, of any shape."""
    flat = values.ravel().astype(np.float64)
    mean, deviation = float(flat.mean()), float(flat.std())
    found = [float(v) for v in np.percentile(flat, PERCENTILES)]
    counts, far = _counted(flat, mean, deviation, found[0], found[-1])
    ends = (float(flat.min()), float(flat.max()))
    return _made(name, format_, shape, ends, mean, deviation, found, counts, far / flat.size)


def _streamed(name: str, tensor: LazyTensor, slabs: _Slabs) -> Distribution:
    """The distribution of a tensor that does not fit into memory as float64."""
    low, high, total, size = np.inf, -np.inf, 0.0, 0
    upper = np.zeros(_HALF, np.int64)
    for values in slabs:
        low, high = np.minimum(low, values.min()), np.maximum(high, values.max())
        total += float(values.sum(dtype=np.float64))
        size += values.size
        upper += np.bincount(_keys(values) >> 16, minlength=_HALF)
    mean, ranks = total / size, _ranks(size)
    ends = np.cumsum(upper)
    wanted = np.unique(np.searchsorted(ends, ranks.ravel(), side="right"))
    lower = np.zeros((wanted.size, _HALF), np.int64)
    squares = 0.0
    for values in slabs:
        squares += float(((values.astype(np.float64) - mean) ** 2).sum())
        _count_lower(_keys(values), wanted, lower)
    deviation = float(np.sqrt(squares / size))
    found = [float("nan")] * len(PERCENTILES)
    if not np.isnan(low):
        at = np.array(
            [_ranked(rank, ends, upper, wanted, lower) for rank in ranks.ravel().tolist()]
        )
        found = _between(at.reshape(ranks.shape), size)
    counts, far = np.zeros(BINS, np.int64), np.zeros(len(SIGMAS))
    for values in slabs:
        some = _counted(values.astype(np.float64), mean, deviation, found[0], found[-1])
        counts, far = counts + some[0], far + some[1]
    return _made(
        name, tensor.format, tensor.shape, (float(low), float(high)), mean, deviation, found,
        counts, far / size,
    )  # fmt: skip


def _counted(
    flat: NDArray[np.float64], mean: float, deviation: float, low: float, high: float
) -> tuple[Counts, NDArray[np.float64]]:
    """How many values are in each bin, and how many are far from the mean."""
    distance = np.abs(flat - mean)
    edges = np.linspace(low, high, BINS + 1)
    bins = np.clip(np.searchsorted(edges, flat) - 1, 0, BINS - 1)
    far = np.array([(distance > k * deviation).sum() for k in SIGMAS], np.float64)
    return np.bincount(bins, minlength=BINS), far


def _made(
    name: str,
    format_: str,
    shape: tuple[int, ...],
    ends: tuple[float, float],
    mean: float,
    deviation: float,
    percentiles: Sequence[float],
    counts: Counts,
    outliers: NDArray[np.float64],
) -> Distribution:
    percentiles = [value + 0.0 for value in percentiles]  # of two zeros the one without a sign
    return Distribution(
        name=name,
        format=format_,
        shape=tuple(shape),
        min=ends[0] + 0.0,
        max=ends[1] + 0.0,
        mean=mean,
        deviation=deviation,
        percentiles=dict(zip(PERCENTILES, percentiles, strict=True)),
        outliers={k: float(v) for k, v in zip(SIGMAS, outliers, strict=True)},
        low=percentiles[0],
        high=percentiles[-1],
        counts=tuple(int(c) for c in counts),
    )


def _keys(values: Values) -> NDArray[np.uint32]:
    """Integers in the order of `values`: float32 bits, those of negative numbers inverted."""
    bits = values.view(np.uint32)
    return np.where(bits >> 31 != 0, ~bits, bits | np.uint32(1 << 31))


def _value(key: int) -> float:
    bits = key ^ (1 << 31) if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))


def _ranks(size: int) -> NDArray[np.int64]:
    """The ranks that each percentile lies between, [percentiles, 2]."""
    below = np.floor(np.array(PERCENTILES) / 100 * (size - 1)).astype(np.int64)
    return np.stack([below, np.minimum(below + 1, size - 1)], axis=1)


def _count_lower(keys: NDArray[np.uint32], wanted: Counts, lower: Counts) -> None:
    """Count the lower bits of keys whose upper bits are `wanted`, a row of `lower` for each."""
    place = np.full(_HALF, -1, np.int64)
    place[wanted] = np.arange(wanted.size)
    at = place[keys >> 16]
    inside = at >= 0
    both = at[inside] * _HALF + (keys[inside] & (_HALF - 1))
    lower += np.bincount(both, minlength=lower.size).reshape(lower.shape)


def _ranked(rank: int, ends: Counts, upper: Counts, wanted: Counts, lower: Counts) -> float:
    """The value of a rank, 0 being that of the least."""
    first = int(np.searchsorted(ends, rank, side="right"))
    within = rank - (ends[first] - upper[first])
    row = np.cumsum(lower[int(np.searchsorted(wanted, first))])
    return _value(first << 16 | int(np.searchsorted(row, within, side="right")))


def _between(at: NDArray[np.float64], size: int) -> list[float]:
    """Interpolate between the values of neighbouring ranks, as `numpy.percentile` does."""
    place = np.array(PERCENTILES) / 100 * (size - 1)
    t = place - np.floor(place)
    low, high = at[:, 0], at[:, 1]
    found = np.where(t < 0.5, low + (high - low) * t, high - (high - low) * (1 - t))
    return [float(v) for v in found]

"""Pictures of a model's weights: distributions, tails, and a tensor as a map with its blocks.

Weights are counted by the upper 16 bits of their float32 codes, a slab of rows at a time, so that a
model of any size takes the same memory. That is exact for BF16; other weights are counted as the
next value of 8 significant bits towards zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.demo import demo_or
from fewbit.errors import InputError
from fewbit.files.mapped import drop_pages
from fewbit.files.names import matching
from fewbit.files.tensor_file import open_tensors
from fewbit.formats.table import find_format
from fewbit.formats.tensors import quantize
from fewbit.plan.shapes import matrix_shape
from fewbit.plots.figure import color, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLAB = 1 << 20
"""Weights that are decoded at a time."""
BINS = 200
MAP_SIDE = 256
"""Rows and columns of a tensor that a map shows."""
SIGMAS = (3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)


@dataclass(frozen=True)
class Counted:
    """How often each value occurs in a model's matrices: `values` rising, `counts` above zero."""

    name: str
    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """The number of weights."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """The mean of the weights."""
        return float(np.average(self.values, weights=self.counts))

    @property
    def deviation(self) -> float:
        """The standard deviation of the weights."""
        return float(np.average((self.values - self.mean) ** 2, weights=self.counts) ** 0.5)

    def beyond(self, sigmas: float) -> int:
        """How many weights are more than `sigmas` standard deviations from the mean."""
        far = np.abs(self.values - self.mean) > sigmas * self.deviation
        return int(self.counts[far].sum())

    def histogram(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """Weights in each interval [edge, next edge); the last one is closed."""
        return np.histogram(self.values, edges, weights=self.counts)[0].astype(np.int64)


def count_weights(
    model: str | PathLike[str] | None, pattern: str = "", progress: Progress | None = None
) -> Counted:
    """Count the weights of a model's matrices, or of those whose names match `pattern`.

    `progress` is called with weights done, weights in all, and the tensor's name.

    Raises:
        InputError: there is no such model, or no such matrix.
        FileFormatError: a file is damaged.

    """
    source = open_tensors(demo_or(model), damaged=True)
    tensors = [source.tensors[name] for name in matching(source.tensors, pattern or ".")]
    if not pattern:
        tensors = [tensor for tensor in tensors if len(tensor.shape) > 1]
    if not tensors:
        raise InputError("the model has no matrix", hint="`fewbit inspect` lists its tensors")
    everything = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    counts = np.zeros(1 << 16, np.int64)
    done = 0
    for tensor in tensors:
        rows, columns = matrix_shape(tensor.shape)
        step = max(SLAB // max(columns, 1), 1)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            values = _core.decode(tensor.slab(start, stop, rows), tensor.format, columns)
            drop_pages(source.maps)
            counts += np.bincount(values.view(np.uint32).ravel() >> 16, minlength=1 << 16)
            done += (stop - start) * columns
            if progress:
                progress(done, everything, tensor.name)
    return _counted(str(model or "demo"), counts)


def _counted(name: str, counts: NDArray[np.int64]) -> Counted:
    """Values from codes: rising, finite, each once."""
    with np.errstate(invalid="ignore"):  # some codes are NaN
        values = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
    used = (counts > 0) & np.isfinite(values)
    found, places = np.unique(values[used] + 0.0, return_inverse=True)
    sums = np.bincount(places, weights=counts[used].astype(np.float64)).astype(np.int64)
    return Counted(name, found, sums)


def distributions(
    models: Sequence[Counted], interval: tuple[float, float] | None = None, log: bool = False
) -> Figure:
    """The distributions of the weights of several models over each other.

    Each curve is the fraction of the model's weights in an interval. With `interval` above zero and
    `log` the magnitudes are counted on logarithmic axes, as from 0.1 to 1000.

    Raises:
        InputError: the interval is empty, or not above zero with `log`.

    """
    width = max(5 * each.deviation for each in models)
    low, high = interval or ((width / 1e4, width * 4) if log else (-width, width))
    if not low < high or (log and low <= 0):
        raise InputError(
            f"cannot draw the interval {low:g} to {high:g}",
            hint="the lower bound first, above 0 on a logarithmic axis",
        )
    edges = np.geomspace(low, high, BINS // 3) if log else np.linspace(low, high, BINS + 1)
    figure, (panel,) = new_figure()
    for index, each in enumerate(models):
        counts = each.histogram(edges)
        if log:
            counts = counts + each.histogram(-edges[::-1])[::-1]
        inside = f"{int(counts.sum()):,} of {each.total:,} weights"
        panel.stairs(
            counts / each.total, edges, color=color(index), fill=len(models) == 1, alpha=0.85,
            label=f"{each.name}: {inside}, σ {each.deviation:.4g}",
        )  # fmt: skip
    if log:
        panel.set_xscale("log")
        panel.set_yscale("log")
    panel.set(xlabel="magnitude of a weight" if log else "weight", ylabel="fraction of the weights")
    panel.set_title(f"Weights from {low:.4g} to {high:.4g}")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9)
    return figure


def tails(models: Sequence[Counted]) -> Figure:
    """How many weights lie beyond 3 to 100 standard deviations, beside a normal distribution."""
    figure, (panel,) = new_figure()
    most = 1
    for index, each in enumerate(models):
        counts = [each.beyond(k) for k in SIGMAS]
        shown = [(k, n) for k, n in zip(SIGMAS, counts, strict=True) if n]
        most = max(most, len(shown))
        panel.plot(
            [k for k, _ in shown], [n for _, n in shown], "o-", color=color(index), label=each.name
        )
        for k, n in shown:
            panel.annotate(f"{n:,}", (k, n), (5, 4), textcoords="offset points", fontsize=8)
        normal = [(k, each.total * _beyond_in_normal(k)) for k in np.linspace(3, 8, 40)]
        panel.plot(
            [k for k, n in normal if n > 0.3], [n for k, n in normal if n > 0.3], "--",
            color=color(index), alpha=0.5, label=f"{each.total:,} normal numbers",
        )  # fmt: skip
    ticks = SIGMAS[: most + 1]
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(ticks, [f"{k}σ" for k in ticks])
    panel.minorticks_off()
    panel.set(xlabel="distance from the mean", ylabel="weights beyond it")
    panel.set_title("Outliers: weights far from the others")
    panel.legend()
    return figure


def _beyond_in_normal(sigmas: float) -> float:
    return math.erfc(sigmas / math.sqrt(2))


def heat_map(model: str | PathLike[str] | None, tensor: str, format_: str | None = None) -> Figure:
    """The first 256 rows and columns of a tensor as a map, and of its error in `format_`.

    Grey lines are the borders of the format's blocks. Colors end at 4 standard deviations.

    Raises:
        InputError: there is no such model or tensor, or the tensor has one axis.
        FormatError: the format is unknown.
        ShapeError: the format's blocks do not divide a row.

    """
    source = open_tensors(demo_or(model), damaged=True)
    name = matching(source.tensors, tensor)[0]
    found = source.tensors[name]
    rows, columns = matrix_shape(found.shape)
    if len(found.shape) < 2:
        raise InputError(f"`{name}` is not a matrix", hint="`fewbit inspect` lists the tensors")
    some = min(rows, MAP_SIDE)
    values = _core.decode(found.slab(0, some, rows), found.format, columns)
    kind = find_format(format_) if format_ else None
    panels: list[tuple[str, NDArray[np.float32]]] = [(f"{name}, {found.format}", values)]
    if kind is not None:
        error = quantize(values, kind.name).dequantize() - values
        panels.append((f"error in {kind.name}", error))
    figure, axes = new_figure(len(panels), width=7.5, height=6.0)
    for (title, shown), panel in zip(panels, axes, strict=True):
        part = shown[:, :MAP_SIDE]
        end = 4 * float(shown.std()) or 1.0
        image = panel.imshow(part, cmap="RdBu_r", vmin=-end, vmax=end, interpolation="nearest")
        if kind is not None and not kind.is_float:
            size = kind.scale_group or kind.block
            borders = np.arange(size, part.shape[1], size) - 0.5
            panel.vlines(borders, -0.5, part.shape[0] - 0.5, color="#00000055", linewidth=0.5)
        panel.grid(visible=False)
        panel.set(xlabel="column", ylabel="row")
        panel.set_title(f"{title}: largest magnitude {np.abs(part).max():.4g}")
        figure.colorbar(image, ax=panel, shrink=0.8)
    return figure

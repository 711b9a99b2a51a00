"""Outliers of a model: where they are, which single weights matter, what keeping them apart gains.

A "super weight" (arXiv 2411.07191) is a weight of a down projection that meets an activation spike:
a column whose inputs are far larger than the others. Such weights are found by their contribution
|weight| * root mean square of the column's inputs, and proven by setting each to zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.api import Model
from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.files.checkpoint import LazyTensor
from fewbit.files.mapped import drop_pages
from fewbit.formats.table import find_format
from fewbit.measure.evaluate import Variant, divergences
from fewbit.measure.results import Divergence, Estimate
from fewbit.plan.shapes import matrix_shape
from fewbit.recipes.choose import choose
from fewbit.reports.rounding import OUTLIER_BITS
from fewbit.tables import Page, Shown, Table

SLAB = 1 << 20
"""Weights that are decoded at a time."""
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Outlier:
    """A weight far from the mean of its tensor, `sigmas` standard deviations."""

    tensor: str
    row: int
    column: int
    value: float
    sigmas: float


@dataclass(frozen=True)
class Proven:
    """A weight, and what setting it to zero does to the model's predictions.

    `spike` is the root mean square of the inputs of its column over that of all columns, None for
    an outlier that was tried for comparison. `kld` is the mean KL divergence from the model as it
    is, in nats.
    """

    weight: Outlier
    spike: float | None
    kld: Estimate


@dataclass(frozen=True)
class KeptApart:
    """A format with and without the largest weights of each tensor stored apart, exactly."""

    format: str
    fraction: float
    bits_per_weight: float
    bits_with_outliers: float
    kld: Estimate
    kld_with_outliers: Estimate


@dataclass(frozen=True)
class Outliers(Shown):
    """The outliers of a model, as `find_outliers` finds them."""

    farthest: tuple[Outlier, ...]
    proven: tuple[Proven, ...]
    apart: tuple[KeptApart, ...]
    chunks: int

    def page(self) -> Page:
        """A table of the farthest weights, one of single weights set to zero, one of formats."""
        far = Table(("tensor", "row", "column", "weight", "distance"))
        for o in self.farthest:
            far.add_row(*_place(o), f"{o.sigmas:.1f} σ")
        page: Page = [far]
        if self.proven:
            zeroed = Table(("set to zero", "row", "column", "weight", "input spike", "KLD", "±"))
            for p in self.proven:
                spike = "" if p.spike is None else f"{p.spike:.1f}"
                zeroed.add_row(*_place(p.weight), spike, f"{p.kld.value:.6f}",
                               f"{p.kld.error:.6f}")  # fmt: skip
            page += ["", zeroed, "", "input spike: size of the column's inputs, 1 is the mean; "
                     "rows without it are outliers for comparison"]  # fmt: skip
        if self.apart:
            table = Table(("format", "kept apart", "bits per\nweight", "KLD", "±",
                           "bits with\noutliers", "KLD with\noutliers", "±"))  # fmt: skip
            for a in self.apart:
                table.add_row(
                    a.format, f"{100 * a.fraction:g} %", f"{a.bits_per_weight:.3f}",
                    f"{a.kld.value:.6f}", f"{a.kld.error:.6f}", f"{a.bits_with_outliers:.3f}",
                    f"{a.kld_with_outliers.value:.6f}", f"{a.kld_with_outliers.error:.6f}",
                )  # fmt: skip
            page += ["", table]
        return (
            [*page, "", f"KLD on {self.chunks} windows, f32 activations"] if self.chunks else page
        )


def _place(o: Outlier) -> tuple[str, str, str, str]:
    return o.tensor, str(o.row), str(o.column), f"{o.value:.5g}"


def find_outliers(
    model: Model,
    text: str,
    *,
    formats: Iterable[str] = ("Q4_0",),
    count: int = 8,
    single: int = 3,
    fraction: float = 1e-4,
    ctx: int = 512,
    chunks: int | None = 4,
    progress: Progress | None = None,
) -> Outliers:
    """Find the outliers of a model's matrices and measure on `text` which of them matter.

    Args:
        model: a model on the CPU. Measuring makes a copy of its weights in float32.
        text: what divergence is measured on, and what activations are collected from.
        formats: formats to quantize to with the largest weights apart; none skips this.
        count: how many of the farthest weights are listed.
        single: how many candidates for super weights, and how many of the farthest weights for
            comparison, are set to zero one by one; 0 skips this.
        fraction: the fraction of each tensor's weights that is kept apart, each at 64 bits.
        ctx: tokens in a window.
        chunks: windows, None for all.
        progress: called while tensors are read and texts measured.

    Raises:
        FormatError: a format is unknown.
        InputError: a number is out of range, or the text is too short for two windows.

    """
    if count < 1 or single < 0 or not 0 < fraction < 1:
        raise InputError(
            f"{count} outliers, {single} single weights, a fraction of {fraction:g}",
            hint="at least 1 outlier and 0 single weights; a fraction between 0 and 1",
        )
    names = list(formats)
    for name in names:
        choose(name, model.checkpoint.tensors, model.config, importance=model.formats)
    farthest = _farthest(model, max(count, single), progress)
    proven: list[Proven] = []
    if single:
        found = _candidates(model, text, single, ctx, chunks)
        proven = _prove(model, text, found, farthest[:single], ctx, chunks, progress)
    apart = tuple(_kept_apart(model, text, n, fraction, ctx, chunks, progress) for n in names)
    used = (chunks or 0) if proven or apart else 0
    return Outliers(tuple(farthest[:count]), tuple(proven), apart, used)


def _matrices(model: Model) -> list[LazyTensor]:
    return [t for t in model.checkpoint.tensors.values() if len(t.shape) > 1]


def _slabs(model: Model, tensor: LazyTensor) -> Iterable[tuple[int, Values]]:
    rows, columns = matrix_shape(tensor.shape)
    step = max(SLAB // max(columns, 1), 1)
    for start in range(0, rows, step):
        data = tensor.slab(start, min(start + step, rows), rows)
        yield start, _core.decode(data, tensor.format, columns)
        drop_pages(model.checkpoint.maps)


def _farthest(model: Model, count: int, progress: Progress | None) -> list[Outlier]:
    """The weights farthest from their tensor's mean, in two passes over each tensor."""
    best: list[Outlier] = []
    tensors = _matrices(model)
    for done, tensor in enumerate(tensors):
        size, total, squares = 0, 0.0, 0.0
        for _, x in _slabs(model, tensor):
            size += x.size
            total += float(x.sum(dtype=np.float64))
            squares += float(np.square(x, dtype=np.float64).sum())
        mean = total / size
        sigma = max(squares / size - mean**2, 0.0) ** 0.5
        if not sigma:
            continue
        for start, x in _slabs(model, tensor):
            far = np.abs(x.ravel() - np.float32(mean))
            for place in np.argpartition(far, -min(count, far.size))[-count:].tolist():
                row, column = divmod(place, x.shape[1])
                value = float(x[row, column])
                best.append(
                    Outlier(tensor.name, start + row, column, value, abs(value - mean) / sigma)
                )
        best = sorted(best, key=lambda o: -o.sigmas)[:count]
        if progress:
            progress(done + 1, len(tensors), tensor.name)
    return best


def _candidates(
    model: Model, text: str, count: int, ctx: int, chunks: int | None
) -> list[tuple[Outlier, float]]:
    """The weight of each down projection that contributes most, with its column's spike."""
    importance = model.imatrix(text, ctx=ctx, chunks=chunks)
    found: list[tuple[float, Outlier, float]] = []
    for tensor in _matrices(model):
        if "ffn_down" not in tensor.name or tensor.name not in importance:
            continue
        inputs = np.sqrt(np.asarray(importance[tensor.name], np.float64)).ravel()
        best: tuple[float, int, int, float] | None = None
        squares, total, size = 0.0, 0.0, 0
        for start, x in _slabs(model, tensor):
            if inputs.size != x.shape[1]:
                break  # the experts of a layer have inputs of their own
            scores = np.abs(x) * inputs
            row, column = divmod(int(scores.argmax()), x.shape[1])
            if best is None or scores[row, column] > best[0]:
                best = (float(scores[row, column]), start + row, column, float(x[row, column]))
            squares += float(np.square(x, dtype=np.float64).sum())
            total, size = total + float(x.sum(dtype=np.float64)), size + x.size
        if best is not None:
            score, row, column, value = best
            mean = total / size
            sigma = max(squares / size - mean**2, 1e-300) ** 0.5
            spike = float(inputs[column] / np.sqrt(np.mean(inputs**2)))
            far = abs(value - mean) / sigma
            found.append((score, Outlier(tensor.name, row, column, value, far), spike))
    found.sort(key=lambda each: -each[0])
    return [(outlier, spike) for _, outlier, spike in found[:count]]


def _prove(
    model: Model, text: str, candidates: list[tuple[Outlier, float]], others: list[Outlier],
    ctx: int, chunks: int | None, progress: Progress | None,
) -> list[Proven]:  # fmt: skip
    """Set each weight to zero in a model of its own, and measure them side by side."""
    tried: list[tuple[Outlier, float | None]] = [*candidates]
    known = {(o.tensor, o.row, o.column) for o, _ in candidates}
    tried += [(o, None) for o in others if (o.tensor, o.row, o.column) not in known]

    def zeroed(outlier: Outlier) -> Model:
        def change(x: Values) -> Values:
            x[outlier.row, outlier.column] = 0
            return x

        return _changed(model, {outlier.tensor: change})

    found = _measured(model, [zeroed(o) for o, _ in tried], text, ctx, chunks, progress)
    return [Proven(o, spike, d.kld) for (o, spike), d in zip(tried, found, strict=True)]


def _kept_apart(
    model: Model, text: str, name: str, fraction: float, ctx: int, chunks: int | None,
    progress: Progress | None,
) -> KeptApart:  # fmt: skip
    """Quantize to `name` as it is, and with the largest weights of each tensor apart."""
    chosen = choose(name, model.checkpoint.tensors, model.config, importance=model.formats)
    changes, alone, bits, size, stored = {}, {}, 0.0, 0, 0
    for tensor in _matrices(model):
        kind = find_format(chosen[tensor.name])
        rows, columns = matrix_shape(tensor.shape)
        size += rows * columns
        bits += 8 * rows * kind.row_bytes(columns)
        if not kind.is_float:
            kept = max(int(fraction * rows * columns), 1)
            stored += kept
            alone[tensor.name] = _through(kind.name, 0)
            changes[tensor.name] = _through(kind.name, kept)
    models = [_changed(model, alone), _changed(model, changes)]
    plain, apart = _measured(model, models, text, ctx, chunks, progress)
    each = bits / size
    return KeptApart(
        name, fraction, each, each + OUTLIER_BITS * stored / size, plain.kld, apart.kld
    )


def _through(format_: str, kept: int) -> Callable[[Values], Values]:
    """Quantize and decode a matrix; the `kept` largest weights stay as they are."""

    def change(x: Values) -> Values:
        flat = x.ravel()
        places = np.argpartition(np.abs(flat), -kept)[-kept:] if kept else np.zeros(0, np.intp)
        values = flat[places].copy()
        inside = flat.copy()
        inside[places] = 0
        rows = inside.reshape(x.shape)
        even = np.ones(x.shape[1], np.float32)
        needs = _core.find_format(format_).needs_importance
        data = _core.encode(rows.view(np.uint8), "F32", x.shape[1], format_,
                            even if needs else None)  # fmt: skip
        out = _core.decode(data, format_, x.shape[1]).ravel()
        out[places] = values
        return out.reshape(x.shape)

    return change


def _changed(model: Model, changes: Mapping[str, Callable[[Values], Values]]) -> Model:
    """The model with some tensors changed, in float32; the others as they are."""

    def read(tensor: LazyTensor) -> Callable[[], NDArray[np.uint8]]:
        def changed() -> NDArray[np.uint8]:
            rows, columns = matrix_shape(tensor.shape)
            x = _core.decode(tensor.slab(0, rows, rows), tensor.format, columns)
            return np.ascontiguousarray(changes[tensor.name](x)).view(np.uint8)

        return changed

    tensors = {
        name: LazyTensor(name, "F32", tensor.shape, read(tensor)) if name in changes else tensor
        for name, tensor in model.checkpoint.tensors.items()
    }
    return Model(dataclasses.replace(model.checkpoint, tensors=tensors))


def _measured(
    model: Model, others: list[Model], text: str, ctx: int, chunks: int | None,
    progress: Progress | None,
) -> list[Divergence]:  # fmt: skip
    variants = [Variant(other, "f32") for other in others]
    try:
        return divergences(variants, Variant(model, "f32"), text, ctx, chunks, progress)
    finally:
        for other in others:
            other.close()

"""Adjust the scales of a quantized model, and its norms, so that it predicts what the base does.

Codes, the integer scales within super-blocks and all other tensors stay. What changes is `d` (and
`dmin`, or the minimum) of each block, by a factor, and the weight vectors of norms. The loss is
KL(base || quantized) over all positions, minimized with Adam (arXiv 1412.6980).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import InputError, UnsupportedError
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import find_format
from fewbit.plan.shapes import matrix_shape
from fewbit.run.model import LoadedModel

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Ids = NDArray[np.uint32]

BETAS = (0.9, 0.98)
"""Adam's decay of the mean and of the mean square of gradients."""
TINY = 1e-12
"""Added to the root of the mean square."""
NORMS = ("rms_norm", "layer_norm")
HELD_OUT_BATCH = 2048
"""Tokens that are measured at a time."""


@dataclass(frozen=True)
class Schedule:
    """How Adam runs: `steps` of `batch` tokens each, rounded up to entire windows.

    `rate` is the relative change of a scale in one step, which rises over `warm_up` steps and falls
    along a cosine to the fraction `final`.
    """

    steps: int = 80
    batch: int = 1024
    rate: float = 1.5e-3
    warm_up: int = 10
    final: float = 0.05
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """The rate of a step, which counts from 0."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.rate * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Distilled:
    """New bytes of quantized tensors, uint8 [rows, row bytes], and new norms, float32 vectors.

    `before` and `after` are the mean KL(base || quantized) of the held-out windows, in nats per
    token; if it did not fall, `improved` is False and everything is as it was. `losses` are those
    of the steps.
    """

    data: dict[str, Bytes]
    norms: dict[str, NDArray[np.float32]]
    before: float
    after: float
    losses: tuple[float, ...] = field(repr=False)

    @property
    def improved(self) -> bool:
        """True if the held-out windows diverge less than before."""
        return self.after < self.before


def distill(
    base: LoadedModel,
    data: Mapping[str, tuple[str, Bytes]],
    windows: Ids,
    held_out: Ids,
    *,
    schedule: Schedule | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Distilled:
    """Minimize the divergence of a quantized model on `windows`, and judge it on `held_out`.

    `data` gives the quantized tensors by name: their format and bytes [rows, row bytes]; the
    model's other tensors are those of `base`. Windows are token ids [windows, tokens]. Formats
    without an f16 scale for each block keep theirs.

    Raises:
        InputError: there are no windows, or no tensor of the plan in `data`.
        UnsupportedError: the model is on a card, or its layers are not connected by one value.

    """
    for name, ids in (("windows", windows), ("held_out", held_out)):
        if ids.ndim != 2 or not ids.size:
            raise InputError(f"`{name}` must be token ids [windows, tokens], found {ids.shape}")
    if not any(name in data for name in base.plan.weights()):
        raise InputError("no tensor of the model is quantized", hint="give the bytes of one")
    student = _Student(base, data, threads)
    teacher = _Teacher(base, threads)
    before = student.divergence(teacher, held_out)
    losses = _train(student, teacher, windows, schedule or Schedule(), progress)
    student.round()
    after = student.divergence(teacher, held_out)
    if not after < before:
        kept = {name: data[name][1] for name in student.scaled}
        return Distilled(kept, {}, before, after, losses)
    found = {name: tensor.data() for name, tensor in student.scaled.items()}
    norms = {name: value.astype(np.float32) for name, value in student.norms.items()}
    return Distilled(found, norms, before, after, losses)


class _Teacher:
    """The base, whose predictions are the target."""

    def __init__(self, base: LoadedModel, threads: int) -> None:
        weights = base.weights
        if not isinstance(weights, _core.Weights):
            raise UnsupportedError(
                "gradients are computed on the CPU", hint='load the model with device="cpu"'
            )
        self.differentiator = _core.Differentiator(base.plan.to_json(), weights, threads=threads)


class _Student:
    """The quantized model: tensors with scales that change, norms, and the rest as stored."""

    def __init__(
        self, base: LoadedModel, data: Mapping[str, tuple[str, Bytes]], threads: int
    ) -> None:
        self.plan, self.threads = base.plan.to_json(), threads
        self.scaled: dict[str, _core.ScaledTensor] = {}
        self.norms: dict[str, Floats] = {}
        self._weights = _core.Weights()
        vectors = {name for op in base.plan.ops if op.kind in NORMS for name in op.weights}
        for name in base.plan.weights():
            shape = base.checkpoint.tensors[name].shape
            rows, columns = matrix_shape(shape)
            format_, stored = data.get(name) or (base.formats[name], base.data(name))
            places = _places(format_) if name in data else None
            if places is not None:
                tensor = _core.ScaledTensor(stored, format_, columns, *places)
                self.scaled[name] = tensor
            elif name in vectors:
                self.norms[name] = _core.decode(stored, format_, columns)[0].astype(np.float64)
            else:
                matrices = shape[0] if len(shape) == 3 else 1
                self._weights.add(name, format_, rows, columns, stored, matrices)
        self._formats = {name: (data[name][0], _places(data[name][0])) for name in self.scaled}

    def differentiator(self) -> _core.Differentiator:
        """The plan with the present scales and norms."""
        for name, values in self.norms.items():
            row = values.astype(np.float32)[None]
            self._weights.add(name, "F32", 1, row.shape[1], row.view(np.uint8))
        return _core.Differentiator(self.plan, self._weights, self.scaled, self.threads)

    def divergence(self, teacher: _Teacher, windows: Ids) -> float:
        """The mean KL(base || this) of all positions, in nats."""
        model, total = self.differentiator(), 0.0
        ctx = windows.shape[1]
        for some in _batches(windows, HELD_OUT_BATCH):
            tokens, lengths = np.ascontiguousarray(some).reshape(-1), [ctx] * len(some)
            first = teacher.differentiator.forward(tokens, lengths, False)
            second = model.forward(tokens, lengths, False)
            total += float(model.divergence(second, teacher.differentiator, first).sum())
        return total / windows.size

    def round(self) -> None:
        """Round scales to f16, as the file stores them."""
        for name, tensor in self.scaled.items():
            format_, places = self._formats[name]
            assert places is not None
            columns = tensor.d.shape[1] * find_format(format_).block
            self.scaled[name] = _core.ScaledTensor(tensor.data(), format_, columns, *places)


def _batches(windows: Ids, tokens: int) -> Iterator[Ids]:
    step = max(1, tokens // windows.shape[1])
    return (windows[start : start + step] for start in range(0, len(windows), step))


def _places(format_: str) -> tuple[int, int | None] | None:
    """The first bytes of a block's scale and of its minimum; None if they are no f16."""
    found = find_format(format_)
    if found.is_float:
        return None
    layout = layout_of(found)
    starts = {
        field.name: field.start for field in layout.fields if layout.kinds.get(field.name) == "f16"
    }
    if "d" not in starts:
        return None
    return starts["d"], starts.get("dmin", starts.get("m"))


def _train(
    student: _Student, teacher: _Teacher, windows: Ids, schedule: Schedule,
    progress: Progress | None,
) -> tuple[float, ...]:  # fmt: skip
    """Take all steps; the loss of each."""
    parameters = _Parameters(student)
    rng, order, losses = np.random.default_rng(schedule.seed), list[int](), list[float]()
    count = min(len(windows), -(-schedule.batch // windows.shape[1]))
    for step in range(schedule.steps):
        while len(order) < count:
            order += rng.permutation(len(windows)).tolist()
        some, order = windows[order[:count]], order[count:]
        tokens, lengths = np.ascontiguousarray(some).reshape(-1), [windows.shape[1]] * count
        model = student.differentiator()
        first = teacher.differentiator.forward(tokens, lengths, False)
        second = model.forward(tokens, lengths)
        found = _core.ScaleGradients(student.scaled, set(student.norms))
        losses.append(float(model.divergence(second, teacher.differentiator, first, found).mean()))
        while model.back(second, found) is not None:
            pass
        parameters.step(found, schedule.rate_at(step))
        if progress:
            progress(step + 1, schedule.steps, f"KL divergence {losses[-1]:.5f}")
    return tuple(losses)


class _Parameters:
    """All parameters: logarithms of scales and minima, norms in units of their mean size."""

    def __init__(self, student: _Student) -> None:
        self._student = student
        self._scales = {
            name: (_Adam(t.d.size), _Adam(t.m.size)) for name, t in student.scaled.items()
        }
        self._norms = {name: _Adam(value.size) for name, value in student.norms.items()}
        self._sizes = {name: float(np.abs(v).mean()) or 1.0 for name, v in student.norms.items()}

    def step(self, found: _core.ScaleGradients, rate: float) -> None:
        """Change all parameters along their gradients."""
        for name, gradients in found.tensors().items():
            tensor, values = self._student.scaled[name], list[NDArray[np.float32]]()
            for old, g, adam in zip(
                (tensor.d, tensor.m), gradients, self._scales[name], strict=True
            ):
                value = old.reshape(-1).astype(np.float64)
                values.append((value * np.exp(-rate * adam(g * value))).astype(np.float32))
            tensor.set(*values)
        for name, g in found.vectors().items():
            size = self._sizes[name]
            self._student.norms[name] -= rate * size * self._norms[name](g * size)


class _Adam:
    """The running means of one array of gradients."""

    def __init__(self, size: int) -> None:
        self._mean, self._square, self._steps = np.zeros(size), np.zeros(size), 0

    def __call__(self, g: Floats) -> Floats:
        """The direction of a step: the mean gradient divided by the root mean square."""
        self._steps += 1
        first, second = BETAS
        self._mean = first * self._mean + (1 - first) * g
        self._square = second * self._square + (1 - second) * g * g
        mean = self._mean / (1 - first**self._steps)
        square = self._square / (1 - second**self._steps)
        direction: Floats = mean / (np.sqrt(square) + TINY)
        return direction

"""Predict what each tensor loses in each format: its output error times the cost of such an error.

Output errors are measured on some rows of the tensor, in the metric of its product's input. What an
output error costs is measured with the entire tensor in few bits (`sensitivity`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import FormatError
from fewbit.files.checkpoint import LazyTensor
from fewbit.improve.covariance import InputCovariance, Judges, importance_of
from fewbit.improve.sensitivity import Substitution, Substitutions
from fewbit.improve.tensors import output_error
from fewbit.plan.shapes import tensor_bytes
from fewbit.recipes import choose as recipes
from fewbit.run.model import LoadedModel

SUPER_BLOCKS = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
"""Formats for rows of a multiple of 256 columns."""
BLOCKS = ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
"""Formats for other rows, of a multiple of 32 columns."""
SAMPLED = 256
"""Rows of a tensor whose output error is measured in each format."""


@dataclass(frozen=True)
class TensorLosses:
    """The predicted KL divergence of a tensor in each format, nats per token.

    `importance` is the mean square of each column of its input, f32 [columns], of experts one
    after another.
    """

    by_format: Mapping[str, float]
    importance: NDArray[np.float32]


@dataclass(frozen=True)
class TensorErrors:
    """The output error of a tensor by format, and with plain codes in the format `probe`."""

    by_format: Mapping[str, float]
    importance: NDArray[np.float32]
    probe: str
    probe_error: float


def candidates(columns: int) -> tuple[str, ...]:
    """The formats that a tensor with rows of `columns` elements may have."""
    if columns % 256 == 0:
        return SUPER_BLOCKS
    return BLOCKS if columns % 32 == 0 else ()


@dataclass(frozen=True)
class Predictor:
    """Predicts the losses of `model`'s tensors; `options` are those of `_core.improve`.

    `options` None means plain codes.
    """

    model: LoadedModel
    options: Mapping[str, Any] | None
    threads: int = 0

    def errors(self, judges: Iterable[tuple[Any, Mapping[str, Judges]]]) -> dict[str, TensorErrors]:
        """The output errors of each tensor that a recipe may quantize."""
        tensors, found = self.model.checkpoint.tensors, {}
        architecture = self.model.config.architecture
        for name, judge in self._each(judges):
            shape = tensors[name].shape
            formats = candidates(shape[-1])
            if formats and recipes.is_quantizable(name, shape, architecture):
                found[name] = self._tensor(tensors[name], formats, judge)
        return {name: found[name] for name in tensors if name in found}

    def _each(
        self, judges: Iterable[tuple[Any, Mapping[str, Judges]]]
    ) -> Iterator[tuple[str, Judges]]:
        """Each tensor with what multiplies it; a table of rows has no product."""
        seen: set[str] = set()
        for _, inputs in judges:
            for name, judge in inputs.items():
                seen.add(name)
                yield name, judge
        for op in self.model.plan.ops:
            for name in op.weights if op.kind == "embed" else ():
                if name not in seen:
                    same = _identity(name, op.width)
                    yield name, Judges(same, same)

    def _tensor(self, tensor: LazyTensor, formats: tuple[str, ...], judge: Judges) -> TensorErrors:
        matrices = math.prod(tensor.shape[:-2])
        rows = math.prod(tensor.shape[:-1]) // matrices
        probe = sorted(formats, key=lambda f: tensor_bytes(tensor.shape, f))[1]
        errors, probe_error = dict.fromkeys(formats, 0.0), 0.0
        some = np.unique(np.linspace(0, matrices - 1, min(matrices, 4)).round().astype(int))
        for matrix in some.tolist():
            fitted, held_out = judge.fitted.mean(matrix), judge.held_out.mean(matrix)
            weights = self._some_rows(tensor, matrix * rows, rows, rows * matrices)
            scale = rows / len(weights) * matrices / len(some)
            for format_ in formats:
                errors[format_] += scale * self._error(weights, format_, fitted, held_out)
            probe_error += scale * self._error(weights, probe, fitted, held_out, plain=True)
        importance = np.concatenate(
            [importance_of(judge.fitted.mean(matrix)) for matrix in range(matrices)]
        )
        return TensorErrors(errors, importance, probe, probe_error)

    def _some_rows(
        self, tensor: LazyTensor, first: int, count: int, rows: int
    ) -> NDArray[np.float32]:
        at = first + np.arange(0, count, max(1, count // SAMPLED))
        data = np.concatenate([tensor.slab(row, row + 1, rows) for row in at.tolist()])
        return _core.decode(data, tensor.format, tensor.shape[-1], self.threads)

    def _error(
        self,
        weights: NDArray[np.float32],
        format_: str,
        fitted: NDArray[np.float64],
        held_out: NDArray[np.float64],
        plain: bool = False,
    ) -> float:
        """The output error of `weights` in a format, with plain codes if `plain` is True."""
        data = None
        if self.options is not None and not plain and fitted.any():
            data = self._improved(weights, format_, fitted)
        if data is None:
            importance = importance_of(fitted)
            data = _core.encode(
                weights.view(np.uint8), "F32", weights.shape[1], format_, importance, self.threads
            )
        values = _core.decode(data, format_, weights.shape[1], self.threads)
        return output_error(weights - values, held_out)

    def _improved(
        self, weights: NDArray[np.float32], format_: str, covariance: NDArray[np.float64]
    ) -> NDArray[np.uint8] | None:
        """Improved codes; None for a format that has none."""
        data: NDArray[np.uint8]
        try:
            data, _ = _core.improve(
                weights, format_, covariance, importance=importance_of(covariance),
                threads=self.threads, **(self.options or {}),
            )  # fmt: skip
        except FormatError:
            return None
        return data

    def losses(
        self,
        errors: Mapping[str, TensorErrors],
        windows: NDArray[np.uint32],
        progress: Progress | None = None,
    ) -> dict[str, TensorLosses]:
        """The predicted divergence of each tensor in each format.

        Each tensor in turn is stored in its second-smallest format; the divergence of that model,
        over this tensor's output error, is what an output error costs.
        """
        measured, found = Substitutions(self.model, windows, self.threads), {}
        for done, (name, own) in enumerate(errors.items()):
            if progress:
                progress(done, len(errors), f"measuring {name}")
            plain = self.model.encoded(name, own.probe, own.importance)
            loss = measured.divergence([Substitution(name, own.probe, plain)])
            cost = loss / own.probe_error if own.probe_error > 0 else 0.0
            by_format = {format_: cost * error for format_, error in own.by_format.items()}
            found[name] = TensorLosses(by_format, own.importance)
        return found


def _identity(name: str, columns: int) -> InputCovariance:
    return InputCovariance((name,), columns, np.ones(1, np.uint64), lambda _: np.eye(columns))

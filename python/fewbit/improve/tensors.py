"""Improve the codes of one tensor, and judge them by the error of the product's output.

The output error of a tensor is tr(E H E^T) with E = weights - stored values and H = E[x x^T] of the
product's input: the expected squared error of the output of one token, summed over its elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import FewbitError, FormatError
from fewbit.files.checkpoint import LazyTensor
from fewbit.formats.table import find_format
from fewbit.improve.covariance import Covariance, Judges, importance_of
from fewbit.improve.output_covariance import OutputCovariance

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

JUDGED = 1024
"""Most rows of a matrix whose output error is computed; evenly spaced ones of a larger matrix."""
SLAB = 256 << 20
"""Bytes of weights as f32 that are improved at a time."""


@dataclass(frozen=True)
class TensorGain:
    """Output errors of a tensor's plain codes and of its improved ones, on both kinds of windows.

    `fitted` are the windows that codes were made from, `held_out` those that they were judged on;
    each is (plain, improved), weighed by the covariance of outputs if gradients were computed.
    `improved` is False if the plain codes were kept, for `reason`. `predicted` are the predicted
    KL divergences in nats per token, None without gradients.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    tokens: int
    fitted: tuple[float, float]
    held_out: tuple[float, float]
    improved: bool
    reason: str = ""
    predicted: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """The output error on held-out windows over that of plain codes; 1 if those were kept."""
        plain, better = self.held_out
        return better / plain if self.improved and plain > 0 else 1.0


@dataclass(frozen=True)
class Improver:
    """Improves tensors with the options of `_core.improve`; `threads` 0 is all cores."""

    options: Mapping[str, Any]
    threads: int = 0

    def improve(
        self,
        tensor: LazyTensor,
        format_: str,
        judges: Judges,
        outputs: OutputCovariance | None = None,
    ) -> tuple[Bytes, TensorGain]:
        """The bytes of `tensor` in `format_`, uint8 [rows, row bytes], and what was gained.

        Plain codes are those of `encode` with the inputs' mean squares as importance. A matrix
        whose improved codes are not better on the held-out windows keeps them. With `outputs` rows
        are improved together: an error of one is made up for by others.

        Raises:
            FormatError: a weight cannot be stored.

        """
        matrices = math.prod(tensor.shape[:-2])
        found = [
            self._matrix(tensor, format_, Metric.of(judges, outputs, matrix), matrix)
            for matrix in range(matrices)
        ]
        reasons = dict.fromkeys(each.reason for each in found if each.reason)
        if matrices > 1 and reasons:
            kept = sum(bool(each.reason) for each in found)
            reasons = {f"{kept} of {matrices} experts keep their codes: {'; '.join(reasons)}": None}
        plain, better = (np.sum([each.errors[i] for each in found], axis=0) for i in (0, 1))
        gain = TensorGain(
            tensor.name, format_, tensor.shape, int(judges.fitted.counts.sum()),
            (float(plain[0]), float(better[0])), (float(plain[1]), float(better[1])),
            not all(each.reason for each in found), "; ".join(reasons),
            None if outputs is None else (float(plain[2]), float(better[2])),
        )  # fmt: skip
        data = [each.data for each in found]
        return np.concatenate(data) if matrices > 1 else data[0], gain

    def _matrix(self, tensor: LazyTensor, format_: str, metric: Metric, matrix: int) -> _Encoded:
        """One matrix, a slab of rows at a time unless its rows are improved together."""
        matrices, columns = math.prod(tensor.shape[:-2]), tensor.shape[-1]
        rows = math.prod(tensor.shape[:-1]) // matrices
        plain, better, reason = list[Bytes](), list[Bytes](), metric.reason
        errors = np.zeros((2, 3))
        step = rows if metric.outputs is not None else max(JUDGED, SLAB // (4 * columns))
        spacing = 1 if metric.outputs is not None else max(1, rows // JUDGED)
        for start in range(0, rows, step):
            at = matrix * rows + start
            weights = self._weights(tensor, at, min(step, rows - start), rows * matrices)
            plain.append(self._plain(tensor, weights, format_, metric, at))
            try:
                better += [] if reason else [self._better(weights, format_, metric)]
            except FormatError as error:  # a format without a code of its own for each weight
                reason = error.message
            some = slice(None, None, spacing)
            for kind, data in enumerate((plain[-1], plain[-1] if reason else better[-1])):
                rows_of = np.ascontiguousarray(data[some])
                values = _core.decode(rows_of, format_, columns, self.threads)
                errors[kind] += spacing * metric.errors(weights[some] - values)
        if not reason and not errors[1, 1] < errors[0, 1]:
            reason = "improved codes are no better on the held-out windows"
        if reason:
            errors[1] = errors[0]
        return _Encoded(np.concatenate(plain if reason else better), errors, reason)

    def _weights(self, tensor: LazyTensor, start: int, count: int, rows: int) -> Floats:
        data = tensor.slab(start, start + count, rows)
        return _core.decode(data, tensor.format, tensor.shape[-1], self.threads)

    def _plain(
        self, tensor: LazyTensor, weights: Floats, format_: str, metric: Metric, first: int
    ) -> Bytes:
        importance = importance_of(metric.fitted)
        try:
            return _core.encode(
                weights.view(np.uint8), "F32", weights.shape[1], format_, importance, self.threads
            )
        except FewbitError as error:
            where = f"tensor `{tensor.name}`, from row {first}"
            raise type(error)(f"{where}: {error.message}", hint=error.hint) from None

    def _better(self, weights: Floats, format_: str, metric: Metric) -> Bytes:
        encoded, _ = _core.improve(
            weights, format_, metric.fitted, output_covariance=metric.outputs,
            importance=importance_of(metric.fitted), threads=self.threads, **self.options,
        )  # fmt: skip
        return encoded


@dataclass(frozen=True)
class _Encoded:
    """The bytes of a matrix; `errors` [plain and improved, as `Metric.errors` gives them]."""

    data: Bytes
    errors: NDArray[np.float64]
    reason: str


@dataclass(frozen=True)
class Metric:
    """How errors of one matrix are weighed: covariances of its input, and perhaps of its output.

    `outputs` are E[g g^T] of output gradients, f64 [blocks, outputs, outputs]; `fraction` is the
    fraction of tokens that meet the matrix. A `reason` says why its codes cannot be improved.
    """

    fitted: Covariance
    held_out: Covariance
    outputs: NDArray[np.float64] | None = None
    fraction: float = 1.0
    reason: str = ""

    @classmethod
    def of(cls, judges: Judges, outputs: OutputCovariance | None, matrix: int) -> Metric:
        """The metric of one matrix."""
        reason = "" if judges.fitted.counts[matrix] else "no token met it"
        fitted, held_out = judges.fitted.mean(matrix), judges.held_out.mean(matrix)
        if outputs is None or not outputs.counts[matrix]:
            return cls(fitted, held_out, reason=reason)
        fraction = float(outputs.counts[matrix]) / max(outputs.tokens, 1)
        return cls(fitted, held_out, outputs.blocks(matrix), fraction, reason)

    def errors(self, off: Floats) -> NDArray[np.float64]:
        """Of errors [rows, columns]: output errors on both kinds of windows, predicted nats.

        With `outputs` the output errors are weighed by these: tr(G E H E^T).
        """
        weighed = off
        if self.outputs is not None:
            size = self.outputs.shape[-1]
            blocks = off.reshape(-1, size, off.shape[-1])
            weighed = (self.outputs.astype(np.float32) @ blocks).reshape(off.shape)
        found = [output_error(off, each, weighed) for each in (self.fitted, self.held_out)]
        return np.array([*found, 0.5 * self.fraction * found[1]])


def output_error(errors: Floats, covariance: Covariance, weighed: Floats | None = None) -> float:
    """tr(E H E^T) of errors [rows, columns]; the products are f32, their sum f64.

    With `weighed` = G E it is tr(G E H E^T).
    """
    products = errors @ covariance.astype(np.float32)
    other = errors if weighed is None else weighed
    return float(np.einsum("rc,rc->", products, other, dtype=np.float64))


def targets(
    tensors: Mapping[str, LazyTensor], formats: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The tensors that are quantized, by name, with their new formats."""
    for name, tensor in tensors.items():
        format_ = formats[name]
        if format_ != tensor.format and not find_format(format_).is_float:
            yield name, format_

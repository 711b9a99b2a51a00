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
    each is (plain, improved). `improved` is False if the plain codes were kept, for `reason`.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    tokens: int
    fitted: tuple[float, float]
    held_out: tuple[float, float]
    improved: bool
    reason: str = ""

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

    def improve(self, tensor: LazyTensor, format_: str, judges: Judges) -> tuple[Bytes, TensorGain]:
        """The bytes of `tensor` in `format_`, uint8 [rows, row bytes], and what was gained.

        Plain codes are those of `encode` with the inputs' mean squares as importance. A matrix
        whose improved codes are not better on the held-out windows keeps them.

        Raises:
            FormatError: a weight cannot be stored.

        """
        matrices = math.prod(tensor.shape[:-2])
        found = [
            self._matrix(tensor, format_, judges, matrix, matrices) for matrix in range(matrices)
        ]
        data = [each for each, *_ in found]
        errors = np.array([each[1] for each in found])
        improved = [each[2] for each in found]
        reasons = dict.fromkeys(each[3] for each in found if each[3])
        if matrices > 1 and reasons:
            kept = improved.count(False)
            reasons = {f"{kept} of {matrices} experts keep their codes: {'; '.join(reasons)}": None}
        gain = TensorGain(
            tensor.name, format_, tensor.shape, int(judges.fitted.counts.sum()),
            (float(errors[:, 0].sum()), float(errors[:, 1].sum())),
            (float(errors[:, 2].sum()), float(errors[:, 3].sum())),
            any(improved), "; ".join(reasons),
        )  # fmt: skip
        return np.concatenate(data) if matrices > 1 else data[0], gain

    def _matrix(
        self, tensor: LazyTensor, format_: str, judges: Judges, matrix: int, matrices: int
    ) -> tuple[Bytes, tuple[float, float, float, float], bool, str]:
        """The bytes of one matrix, its four errors, whether it is improved, and why not."""
        rows = math.prod(tensor.shape[:-1]) // matrices
        fitted, held_out = judges.fitted.mean(matrix), judges.held_out.mean(matrix)
        plain, better, errors, reason = [], [], np.zeros(4), ""
        step = max(JUDGED, SLAB // (4 * tensor.shape[-1]))
        spacing = max(1, rows // JUDGED)
        if judges.fitted.counts[matrix] == 0:
            reason = "no token met it"
        for start in range(0, rows, step):
            at = matrix * rows + start
            weights = self._weights(tensor, at, min(step, rows - start), rows * matrices)
            plain.append(self._plain(tensor, weights, format_, fitted, at))
            if not reason:
                try:
                    better.append(self._better(weights, format_, fitted))
                except FormatError as error:  # a format without codes of its own for each weight
                    reason = error.message
            some = slice(None, None, spacing)
            for kind, data in enumerate((plain[-1], plain[-1] if reason else better[-1])):
                values = _core.decode(
                    np.ascontiguousarray(data[some]), format_, tensor.shape[-1], self.threads
                )
                off = weights[some] - values
                errors[kind] += spacing * output_error(off, fitted)
                errors[2 + kind] += spacing * output_error(off, held_out)
        if not reason and not errors[3] < errors[2]:
            reason = "improved codes are no better on the held-out windows"
        chosen = np.concatenate(plain if reason else better)
        return chosen, (errors[0], errors[1], errors[2], errors[3]), not reason, reason

    def _weights(self, tensor: LazyTensor, start: int, count: int, rows: int) -> Floats:
        data = tensor.slab(start, start + count, rows)
        return _core.decode(data, tensor.format, tensor.shape[-1], self.threads)

    def _plain(
        self, tensor: LazyTensor, weights: Floats, format_: str, covariance: Covariance, first: int
    ) -> Bytes:
        importance = importance_of(covariance)
        try:
            return _core.encode(
                weights.view(np.uint8), "F32", weights.shape[1], format_, importance, self.threads
            )
        except FewbitError as error:
            where = f"tensor `{tensor.name}`, from row {first}"
            raise type(error)(f"{where}: {error.message}", hint=error.hint) from None

    def _better(self, weights: Floats, format_: str, covariance: Covariance) -> Bytes:
        importance = importance_of(covariance)
        encoded: Bytes
        encoded, _ = _core.improve(  # type: ignore[attr-defined]

            weights, format_, covariance, importance=importance, threads=self.threads,
            **self.options,
        )  # fmt: skip
        return encoded


def output_error(errors: Floats, covariance: Covariance) -> float:
    """tr(E H E^T) of errors [rows, columns]; the products are f32, their sum f64."""
    products = errors @ covariance.astype(np.float32)
    return float(np.einsum("rc,rc->", products, errors, dtype=np.float64))


def targets(
    tensors: Mapping[str, LazyTensor], formats: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The tensors that are quantized, by name, with their new formats."""
    for name, tensor in tensors.items():
        format_ = formats[name]
        if format_ != tensor.format and not find_format(format_).is_float:
            yield name, format_

"""Quantize a file as a recipe says, whether fewbit can run it or not, and write it as GGUF."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewbit.callbacks import Progress
from fewbit.convert.encode import TensorEncoder
from fewbit.convert.gguf import gguf_formats, write_model
from fewbit.convert.split import Split
from fewbit.errors import InputError, UnsupportedError
from fewbit.files.gguf_config import not_described
from fewbit.files.tensor_file import Source, TensorFile
from fewbit.formats.table import find_format
from fewbit.models import build_plan
from fewbit.plan.shapes import matrix_shape
from fewbit.plan.sizes import Sizes, row_size, sizes_of
from fewbit.recipes.choose import Options, choose, deviations, is_quantizable

Importance = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Quantization:
    """The tensors of `source` in `formats`, to be written.

    `importance` is f32 [columns] by tensor name, expert after expert; `threads` 0 is all cores.
    """

    source: Source
    formats: Mapping[str, str]
    recipe: str | None = None
    importance: Importance = field(default_factory=dict)
    threads: int = 0

    @property
    def sizes(self) -> Sizes:
        """Weights, bytes and bits per weight; of a file without a plan, those of all tensors."""
        if not isinstance(self.source, TensorFile):
            return sizes_of(build_plan(self.source.config), self.formats)
        weights = total = 0
        for name, tensor in self.source.tensors.items():
            row_bytes, rows = row_size(self.formats[name], tensor.shape)
            weights += rows * matrix_shape(tensor.shape)[1]
            total += rows * row_bytes
        return Sizes(weights, total, total)

    def deviations(self) -> dict[str, tuple[str, str]]:
        """Tensors that do not have the recipe's format: the recipe's and their own."""
        assert self.recipe is not None
        return deviations(
            self.recipe, self.formats, self.source.tensors, self.source.counts, self.importance
        )

    def save(
        self,
        path: str | PathLike[str],
        *,
        split: Split | None = None,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Write a GGUF file, or pieces as `split` has them; a failure leaves no file behind.

        Warns of what GGUF cannot describe. Returns the paths of the files.

        Raises:
            FormatError: GGUF cannot hold one of the formats, or a weight cannot be stored.
            UnsupportedError: GGUF cannot describe something that the model does not run without.
            OSError: a file cannot be written.

        """
        if self.source.metadata is None:
            for what in not_described(self.source.config):
                warnings.warn(what, stacklevel=3)
        formats = gguf_formats(self.source, self.formats)
        encoder = TensorEncoder(self.source, formats, self.importance, self.threads)
        return write_model(Path(path), encoder, self.recipe, progress, split)


def as_stored(source: Source) -> dict[str, str]:
    """The formats of the tensors in the file."""
    return {name: tensor.format for name, tensor in source.tensors.items()}


def quantized(
    source: Source,
    recipe: str,
    importance: Importance | None = None,
    *,
    options: Options | None = None,
    requantize: bool = False,
    threads: int = 0,
) -> Quantization:
    """The tensors of `source` as `recipe` says; nothing is read yet.

    Raises:
        FormatError: the recipe is unknown or needs an importance matrix.
        InputError: an override matches no tensor, or the file holds nothing to quantize.
        UnsupportedError: the model is quantized already and `requantize` is False, or the file
            is an importance matrix.

    """
    if isinstance(source, TensorFile):
        _refuse_without_matrices(source)
    weights = importance or {}
    formats = choose(
        recipe, source.tensors, source.counts, importance=weights.keys(), options=options
    )
    stored = as_stored(source)
    refuse_rounding_twice(stored, stored, formats, requantize)
    return Quantization(source, formats, recipe, weights, threads)


def refuse_rounding_twice(
    stored: Mapping[str, str],
    formats: Mapping[str, str],
    chosen: Mapping[str, str],
    requantize: bool,
) -> None:
    """Refuse to round quantized tensors again, unless they keep their format or it is asked.

    `stored` are the formats in the file, `formats` those of the model before it gets `chosen`.

    Raises:
        UnsupportedError: a tensor would be rounded twice.

    """
    coded = [name for name, format_ in formats.items() if not find_format(format_).is_float]
    changed = [name for name in coded if chosen[name] != formats[name]]
    altered = [name for name, format_ in formats.items() if format_ != stored[name]]
    if altered or (changed and not requantize):
        name = (changed or altered)[0]
        raise UnsupportedError(
            f"the model is quantized already: `{name}` is {formats[name]}",
            hint="quantize the original; `--allow-requantize` (`requantize=True`) rounds twice",
        )


def _refuse_without_matrices(source: TensorFile) -> None:
    """Refuse files in which a recipe finds nothing to quantize."""
    if source.kind == "imatrix":
        raise UnsupportedError(
            f"`{source.path}` is an importance matrix: its tensors are sums, not weights",
            hint="name the model, and this file with `--imatrix`",
            path=str(source.path),
        )
    if not _matrices(source):
        what = f"none of its {len(source.tensors)} tensors is a matrix of weights"
        raise InputError(
            f"`{source.path}` holds nothing to quantize: "
            + (what if source.tensors else "it has no tensors, only metadata"),
            hint="recipes quantize tensors of two and more dimensions whose names end in `weight`",
            path=str(source.path),
        )


def _matrices(source: TensorFile) -> Collection[str]:
    architecture = source.counts.architecture
    return [n for n, t in source.tensors.items() if is_quantizable(n, t.shape, architecture)]

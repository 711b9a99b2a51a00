"""How `fewbit quantize` improves codes and chooses formats for a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fewbit.api import Model, load
from fewbit.cli.calibrating import windows_of
from fewbit.cli.options import model_path
from fewbit.cli.progress import progress
from fewbit.cli.sizing import fit
from fewbit.convert.quantization import (
    Quantization,
    as_stored,
    quantized,
    refuse_rounding_twice,
)
from fewbit.errors import UnsupportedError
from fewbit.files.tensor_file import Source, TensorFile
from fewbit.improve.calibration import Calibration
from fewbit.improve.covariance_file import CovarianceFile, read_covariances
from fewbit.improve.driver import Effort
from fewbit.improve.mixture import Mixture
from fewbit.improve.report import Improvement
from fewbit.recipes.choose import Options


def encoding(
    source: Source,
    recipe: str | Mixture,
    importance: Mapping[str, Any] | None,
    options: Options,
    requantize: bool,
    threads: int,
) -> Quantization:
    """The tensors of `source` with plain codes.

    Raises:
        FormatError: the recipe is unknown, or needs an importance matrix.
        UnsupportedError: the model is quantized already and `requantize` is False.

    """
    if isinstance(recipe, str):
        return quantized(
            source, recipe, importance, options=options, requantize=requantize, threads=threads
        )
    stored = as_stored(source)
    refuse_rounding_twice(stored, stored, recipe.formats, requantize)
    return Quantization(source, recipe.formats, None, recipe.importance, threads)


@dataclass(frozen=True)
class Improving:
    """Options of `fewbit quantize` that need the model to run."""

    name: str
    effort: Effort
    calibration: Path | None
    statistics: Path | None
    windows: int | None
    seed: int
    work: Path | None
    threads: int

    @cached_property
    def model(self) -> Model:
        """The model, on the CPU."""
        return load(model_path(self.name), "cpu", threads=self.threads)

    @cached_property
    def inputs(self) -> Calibration | CovarianceFile | None:
        """What the options name; None if the model is to write the default windows itself."""
        if self.statistics is not None:
            return read_covariances(self.statistics)
        if self.calibration is None and self.windows is None and self.seed == 0:
            return None
        return windows_of(self.model, self.calibration, self.windows, self.seed)

    def fit(self, source: Source, size: str | None, bpw: float | None) -> Mixture:
        """The formats for a size.

        Raises:
            InputError: the size is not one, or too small for the model.
            UnsupportedError: fewbit cannot run the model.

        """
        self._refuse(source)
        inputs = self.inputs or windows_of(self.model, None, None, 0)
        with progress("choosing formats") as update:
            return fit(self.model, size, bpw, self.effort, inputs, update)

    def run(
        self,
        source: Source,
        recipe: str | Mixture,
        options: Options,
        requantize: bool,
        name: str,
        count: int,
    ) -> tuple[Quantization, Improvement | None]:
        """The model with improved codes, and what was gained; `name` is one of `count` formats.

        Raises:
            UnsupportedError: fewbit cannot run the model.

        """
        self._refuse(source)
        inputs = self.inputs
        work = self.work / name if self.work is not None and count > 1 else self.work
        with progress(f"improving {name}") as update:
            model = self.model.quantize(
                recipe, options=options if isinstance(recipe, str) else None,
                requantize=requantize, effort=self.effort, calibration=inputs, work=work,
                progress=update,
            )  # fmt: skip
        made = Quantization(model.checkpoint, model.formats, model.recipe, threads=self.threads)
        return made, model.improvement

    def _refuse(self, source: Source) -> None:
        if isinstance(source, TensorFile):
            raise UnsupportedError(
                f"fewbit cannot run `{source.path}`, so it cannot choose codes or formats by what "
                f"they lose: {source.problem}",
                hint="name a format, and leave `--effort` out",
            )

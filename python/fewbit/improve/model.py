"""A model whose codes can be improved: `quantize` with more effort, calibration, mixtures."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewbit.callbacks import Progress
from fewbit.convert.quantization import refuse_rounding_twice
from fewbit.errors import InputError
from fewbit.files.checkpoint import with_data
from fewbit.improve.calibration import WINDOWS, Calibration, sampled_calibration, text_calibration
from fewbit.improve.covariance_file import CovarianceFile, write_covariances
from fewbit.improve.driver import OPTIONS, Effort, Work, check_effort, inputs_of
from fewbit.improve.losses import Predictor
from fewbit.improve.mixture import Mixture, mixture
from fewbit.improve.report import Improvement
from fewbit.improve.sensitivity_rows import Sensitivity
from fewbit.improve.sensitivity_run import SensitivityRun
from fewbit.recipes.choose import Options
from fewbit.run.model import Importance, LoadedModel

MEASURED = 4
"""Windows on which the divergence of one tensor's rounding is measured."""


class ImprovableModel(LoadedModel):
    """A model on the CPU or a card that can be stored in fewer bits with chosen codes."""

    improvement: Improvement | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path and the formats, and the bytes of improved tensors."""
        if self.improvement is None:
            return super().__reduce__()
        data = {gain.name: self.data(gain.name) for gain in self.improvement.gains}
        return _improved_again, (super().__reduce__(), self.formats, data, self.improvement)

    def quantize(
        self,
        recipe: str | Mixture,
        imatrix: Importance | None = None,
        *,
        options: Options | None = None,
        requantize: bool = False,
        effort: Effort = "fast",
        calibration: str | Calibration | CovarianceFile | None = None,
        work: str | PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """This model with its tensors stored as `recipe` says ("Q4_0", "Q4_K_M", "asym4-g32", ...).

        `recipe` may also be a `mixture` of formats. `imatrix` gives each tensor's importance of
        columns, f32 [columns], of experts one after another; `options` say which tensors depart
        from the recipe.

        `effort` "good" and "best" take much longer and give the same formats and bytes with better
        codes: errors of one column are made up for by the next, in the metric of the products'
        inputs (GPTQ, arXiv 2210.17323). The inputs are those of `calibration`: a text, the result
        of `calibrate`, or a file of `read_covariances`; None lets the model write windows itself.
        Finished tensors are kept in the folder `work`, from which an interrupted call goes on.

        Raises:
            FormatError: the recipe is unknown or needs an importance matrix.
            UnsupportedError: the model is quantized already and `requantize` is False.
            InputError: an option contradicts `effort`, or `work` belongs to something else.

        """
        if check_effort(effort) == "fast":
            if calibration is not None or work is not None:
                raise InputError(
                    'effort "fast" takes no calibration and no folder',
                    hint='take effort "good" or "best"',
                )
            return self._plain(recipe, imatrix, options, requantize, progress)
        if imatrix is not None:
            raise InputError(
                f'effort "{effort}" takes no importance matrix: its calibration gives one',
                hint="leave it out, or name the text that it was made from as the calibration",
            )
        if isinstance(calibration, str):
            calibration = text_calibration(self, calibration)
        plain = self._plain(recipe, None, options, requantize)
        run = Work(self, plain.formats, effort, calibration, self._threads)
        checkpoint, improvement = run.run(None if work is None else Path(work), progress)
        model = type(self)(
            checkpoint, plain.formats, threads=self._threads, kv=self._kv, recipe=plain.recipe,
            device=self._device,
        )  # fmt: skip
        model.improvement = improvement
        return model

    def calibrate(
        self,
        text: str | None = None,
        *,
        windows: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Calibration:
        """Windows of 512 tokens to calibrate on: of `text`, or written by the model itself.

        `windows` is their number: all of a text, or 128 that the model writes, if None. `seed`
        decides what it writes.

        Raises:
            InputError: the text is too short for two windows, or a number is out of range.

        """
        if text is not None:
            return text_calibration(self, text, windows)
        return sampled_calibration(self, windows or WINDOWS, seed, progress=progress)

    def save_covariances(
        self,
        path: str | PathLike[str],
        calibration: Calibration,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Write the covariances of all products' inputs to a file, for `read_covariances`.

        Raises:
            OSError: the file cannot be written; nothing is left of it.

        """
        write_covariances(self, path, calibration, self._threads, progress)

    def mixture(
        self,
        budget: int,
        *,
        effort: Effort = "fast",
        calibration: str | Calibration | CovarianceFile | None = None,
        progress: Progress | None = None,
    ) -> Mixture:
        """The formats whose tensors have at most `budget` bytes and lose least, for `quantize`.

        What a tensor loses in a format is predicted: from the output error of some of its rows with
        the codes of `effort`, and from the divergence of the model with this tensor alone in few
        bits. `calibration` is as for `quantize`; covariances from a file need the model to write
        windows too, on which the divergence is measured.

        Raises:
            InputError: the smallest formats are larger.

        """
        if isinstance(calibration, str):
            calibration = text_calibration(self, calibration)
        if calibration is None:
            calibration = sampled_calibration(self, progress=progress)
        predictor = Predictor(self, OPTIONS.get(check_effort(effort)), self._threads)
        errors = predictor.errors(inputs_of(self, calibration, self._threads, progress))
        if isinstance(calibration, CovarianceFile):
            windows = sampled_calibration(self, MEASURED).tokens
        else:
            windows = calibration.held_out[:MEASURED]
        losses = predictor.losses(errors, windows, progress)
        return mixture(self, losses, budget, f"{budget:,} bytes")

    def sensitivity(
        self,
        recipe: str | Mixture,
        text: str,
        *,
        by: str = "tensor",
        all_but_one: bool = False,
        imatrix: Importance | None = None,
        ctx: int = 512,
        chunks: int | None = 4,
        results: str | PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Sensitivity:
        """How far predictions move when one tensor alone is stored as `recipe` says.

        `by` "layer" takes all tensors of a layer together. With `all_but_one` it is also measured
        how far they move when all tensors but that one are quantized. The text is cut into windows
        as `perplexity` does, the first `chunks` of them are measured (None: all). Each loss has the
        bits that `divergence` of such a model from this one gives with `acts="f32"`; what comes
        before the changed tensor is computed once for all. It runs on the CPU.

        Finished rows are kept in the JSON file `results`, from which an interrupted call goes on.

        Raises:
            FormatError: the recipe is unknown or needs an importance matrix.
            UnsupportedError: the model is quantized already.
            InputError: the text is too short for two windows, an option is out of range, the recipe
                changes no tensor, or `results` belongs to another measurement.
            FileFormatError: `results` is damaged.
            OSError: `results` cannot be written.

        """
        run = SensitivityRun(self, self._plain(recipe, imatrix, None, False), by, self._threads)
        file = None if results is None else Path(results)
        return run.measured(text, ctx, chunks, all_but_one, file, progress)

    def _plain(
        self,
        recipe: str | Mixture,
        imatrix: Importance | None,
        options: Options | None,
        requantize: bool,
        progress: Progress | None = None,
    ) -> Self:
        """This model with plain codes."""
        if isinstance(recipe, str):
            return super().quantize(
                recipe, imatrix, options=options, requantize=requantize, progress=progress
            )
        if options is not None or imatrix is not None:
            raise InputError(
                "a mixture takes no options and no importance matrix: it has its own",
                hint="leave them out",
            )
        stored = {name: tensor.format for name, tensor in self.checkpoint.tensors.items()}
        refuse_rounding_twice(stored, self.formats, recipe.formats, requantize)
        return type(self)(
            self.checkpoint, recipe.formats, importance=recipe.importance, threads=self._threads,
            kv=self._kv, progress=progress, device=self._device,
        )  # fmt: skip


def _improved_again(
    plain: tuple[Any, ...],
    formats: dict[str, str],
    data: dict[str, NDArray[np.uint8]],
    improvement: Improvement,
) -> ImprovableModel:
    """The model that a pickle holds, with its improved tensors."""
    reopen, arguments = plain
    model: ImprovableModel = reopen(*arguments)
    model.checkpoint = with_data(model.checkpoint, formats, data)
    model.improvement = improvement
    return model

"""Collect output covariances of a model, last layer first, and keep them on disk until needed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewbit.callbacks import Progress
from fewbit.errors import FileFormatError
from fewbit.files.replace import replacing
from fewbit.improve.calibration import Calibration
from fewbit.improve.covariance import InputCovariance, Judges
from fewbit.improve.output_covariance import OutputCovariance, output_covariances
from fewbit.run.model import LoadedModel

HIDDEN_BYTES = 1 << 30
"""Most bytes that the inputs of all layers may take while gradients are computed."""


@dataclass(frozen=True)
class OutputStore:
    """Output covariances in `folder`, one file for each tensor."""

    folder: Path

    def collect(
        self,
        model: LoadedModel,
        calibration: Calibration,
        wanted: Collection[str],
        threads: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Compute those of the tensors `wanted`, unless an earlier run did; `wanted` decides.

        As many of the fitted windows are used as `HIDDEN_BYTES` hold.

        Raises:
            UnsupportedError: the model's layers are not connected by one value.
            OSError: the folder cannot be written.

        """
        complete = self.folder / "complete"
        if complete.exists():
            return
        tokens = calibration.fitted
        config = model.config
        window_bytes = 4 * tokens.shape[1] * config.width * (config.layers + 1)
        count = max(2, min(len(tokens), HIDDEN_BYTES // window_bytes))
        some = tokens[np.linspace(0, len(tokens) - 1, count).round().astype(int)]
        for layer in output_covariances(
            model, some, wanted=wanted, threads=threads, progress=progress
        ):
            for name, found in layer.items():
                with replacing(self._file(name)) as temporary, temporary.open("wb") as opened:
                    np.savez(
                        opened, sums=found.sums.astype(np.float32), counts=found.counts,
                        tokens=found.tokens,
                    )  # fmt: skip
        complete.touch()

    def get(self, name: str) -> OutputCovariance | None:
        """Those of one tensor; None if it has none.

        Raises:
            FileFormatError: the file is damaged.

        """
        file = self._file(name)
        if not file.exists():
            return None
        try:
            with np.load(file) as found:
                sums, counts = found["sums"].astype(np.float64), found["counts"]
                return OutputCovariance(name, sums, counts, int(found["tokens"]))
        except (ValueError, KeyError, OSError, EOFError):
            raise FileFormatError(
                f"`{file}` is damaged", hint=f"delete `{file.parent}`", path=str(file)
            ) from None

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def table_judges(judges: Judges | None, outputs: OutputCovariance) -> Judges:
    """How rows of the embedding's table are weighed: by what follows from them, and as outputs.

    `judges` are those of the table as the output layer, None if that has its own matrix. The rows
    of both have the frequency of their token, so the two second moments add up.
    """
    gradient = outputs.mean()

    def plus(covariance: InputCovariance | None) -> InputCovariance:
        if covariance is None:
            counts = np.array([outputs.tokens], np.uint64)
            return InputCovariance(
                (outputs.name,), outputs.width, counts, lambda _: gradient * outputs.tokens
            )
        count = float(covariance.counts[0])
        return InputCovariance(
            covariance.names, covariance.columns, covariance.counts,
            lambda matrix: covariance.sums(matrix) + gradient * count,
        )  # fmt: skip

    if judges is None:
        return Judges(plus(None), plus(None))
    return Judges(plus(judges.fitted), plus(judges.held_out))

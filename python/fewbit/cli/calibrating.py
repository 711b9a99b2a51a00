"""`fewbit calibrate`, and how options name windows to calibrate on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from fewbit.api import Model, load
from fewbit.cli.options import Json, ModelName, Threads, model_path, read_text
from fewbit.cli.outputs import refuse_replacing
from fewbit.cli.progress import progress, tell
from fewbit.improve.calibration import WINDOWS, Calibration, sampled_calibration, text_calibration
from fewbit.reports import write as report

WindowCount: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Windows of 512 tokens to calibrate on (default: all of a text, or 128 that the model "
        "writes).",
        min=2,
        show_default=False,
    ),
]
CalibrationSeed: TypeAlias = Annotated[
    int, typer.Option(help="Seed of the windows that the model writes.", min=0)
]


def calibrate(
    output: Annotated[Path, typer.Option("--output", "-o", help="safetensors file to write.")],
    model: ModelName = None,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            "-t",
            help="Text file (UTF-8); `demo` is the demo's own. The model writes windows itself if "
            "left out.",
            show_default=False,
        ),
    ] = None,
    windows: WindowCount = None,
    seed: CalibrationSeed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUTPUT even if it is an input.")
    ] = False,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Collect the covariances of all products' inputs, for `fewbit quantize --statistics`.

    The file appears under its name only when it is complete.
    """
    loaded = load(model_path(model), "cpu", threads=threads)
    refuse_replacing(output, [loaded.checkpoint.path, text], force)
    calibration = windows_of(loaded, text, windows, seed)
    with progress("calibrate") as update:
        loaded.save_covariances(output, calibration, progress=update)
    for warning in calibration.warnings:
        tell(f"warning: {warning}")
    size = output.stat().st_size
    if json:
        report.write_json({
            "path": str(output), "bytes": size, "source": calibration.source,
            "windows": len(calibration.tokens), "held_out": len(calibration.held_out),
        })  # fmt: skip
    else:
        report.show(f"{output}: {size:,} bytes, covariances of {calibration.source}")


def windows_of(model: Model, text: Path | None, windows: int | None, seed: int) -> Calibration:
    """The windows of a text, or those that the model writes."""
    if text is not None:
        return text_calibration(model, read_text(text, None), windows, str(text))
    with progress("writing calibration text") as update:
        return sampled_calibration(model, windows or WINDOWS, seed, progress=update)

"""Commands that store a model in fewer bits: quantize, and calibrate before it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, TypeAlias

import typer

from fewbit.api import Model, load
from fewbit.cli.options import Json, ModelName, Threads, model_path, read_text
from fewbit.cli.outputs import output_paths, refuse_replacing
from fewbit.cli.progress import progress, stderr
from fewbit.cli.sizing import check_fit, fit
from fewbit.cli.summary import Quantized, listing, planned
from fewbit.errors import InputError
from fewbit.files.importance import read_imatrix
from fewbit.formats.table import find_format
from fewbit.improve.calibration import WINDOWS, Calibration, sampled_calibration, text_calibration
from fewbit.improve.covariance_file import CovarianceFile, read_covariances
from fewbit.improve.driver import Effort, check_effort
from fewbit.improve.mixture import Mixture
from fewbit.recipes.choose import Options, canonical
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


def quantize(
    model: Annotated[
        str, typer.Argument(help="GGUF file, Hugging Face folder, hub name or `demo`.")
    ],
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUTPUT]",
            help="GGUF file to write; `{format}` in it becomes the format. MODEL-FORMAT.gguf in "
            "the current folder if left out.",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            help="Format, for example Q8_0, or mixture, for example Q4_K_M; can be repeated. "
            "`fewbit inspect --format list` lists them with bits per weight.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="Instead of a format: the file's largest size, as 4.5GB, 700MiB or a number of "
            "bytes. Each tensor's format is chosen by the loss that is predicted for it.",
            show_default=False,
        ),
    ] = None,
    bpw: Annotated[
        float | None,
        typer.Option(
            help="Instead of a format: the bits per weight of all tensors together, as --size.",
            show_default=False,
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            help="Importance matrix of the columns, from `fewbit imatrix` or llama-imatrix.",
            show_default=False,
        ),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX=FORMAT",
            help="Format of the tensors whose names match; can be repeated.",
            show_default=False,
        ),
    ] = None,
    token_embedding_type: Annotated[
        str | None, typer.Option(help="Format of token_embd.weight.", show_default=False)
    ] = None,
    output_tensor_type: Annotated[
        str | None, typer.Option(help="Format of output.weight.", show_default=False)
    ] = None,
    pure: Annotated[
        bool, typer.Option("--pure", help="Use one format for all tensors, no mixture.")
    ] = False,
    allow_requantize: Annotated[
        bool,
        typer.Option(
            "--allow-requantize", help="Allow a model that is quantized already; it loses more."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUTPUT even if it is a file of MODEL.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List formats and bytes of tensors; write nothing.")
    ] = False,
    effort: Annotated[
        str,
        typer.Option(
            help="Work on codes: fast (llama.cpp's encoders), good (errors of a column are made up "
            "for by the next ones; minutes to hours) or best (slower still). All give the same "
            "formats and bytes."
        ),
    ] = "fast",
    best: Annotated[bool, typer.Option("--best", help="Short for `--effort best`.")] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="With good or best: text (UTF-8) whose tokens say what products take in; `demo` "
            "is the demo's own. The model writes windows itself if left out.",
            show_default=False,
        ),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="With good or best: covariances that `fewbit calibrate` saved.",
            show_default=False,
        ),
    ] = None,
    windows: WindowCount = None,
    seed: CalibrationSeed = 0,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With good or best: keep finished tensors here, so that the same command goes on "
            "where it was interrupted.",
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="List the gain of each tensor.")
    ] = False,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Store a model in fewer bits as a GGUF file.

    Only a slab of rows is in memory at a time; with --effort good or best one layer, and the
    hidden states of the calibration's windows. The file appears under its name only when it is
    complete; a file that stood there is replaced, but an input only with --force, or with
    --allow-requantize if it is quantized already.
    """
    options = Options(_overrides(tensor_type or []), token_embedding_type, output_tensor_type, pure)
    importance = None if imatrix is None else read_imatrix(imatrix)
    level = check_effort("best" if best else effort)
    fits = size is not None or bpw is not None
    check_fit(format_, size, bpw, imatrix, options)
    _check_calibration(level, imatrix, calibration, statistics, windows, seed, work, fits)
    recipes = ["mixture"] if format_ is None else format_
    paths = output_paths(output, model, recipes, known=not fits)
    source = load(model_path(model), threads=threads)
    allowed = force or (allow_requantize and _is_quantized(source))
    for path in paths:
        refuse_replacing(path, [source.checkpoint.path], allowed)
        refuse_replacing(path, [imatrix, calibration, statistics], force)
    chosen: list[str | Mixture] = list(format_ or [])
    inputs = None
    if fits:
        inputs = _calibration(source, calibration, statistics, windows, seed) or _default(source)
        with progress("choosing formats") as update:
            fitted = fit(source, size, bpw, level, inputs, update)
        chosen = [fitted]
        if verbose and not json:
            report.show(*fitted.page())
    runs = []
    for recipe, path in zip(chosen, paths, strict=True):
        encoded = source.quantize(
            recipe, importance, options=None if fits else options, requantize=allow_requantize
        )
        name = recipe.name if isinstance(recipe, Mixture) else canonical(recipe)
        plan = planned(
            source,
            encoded,
            name,
            path,
            (importance or {}).keys(),
            recipe if isinstance(recipe, Mixture) else None,
        )
        runs.append((recipe, encoded, plan))
    found = []
    for recipe, encoded, plan in runs:
        result = plan
        if not dry_run and level == "fast":
            result = _write(encoded, plan)
        elif not dry_run:
            inputs = inputs or _calibration(source, calibration, statistics, windows, seed)
            start = perf_counter()
            with progress(f"improving {plan.recipe}") as update:
                encoded = source.quantize(
                    recipe, options=None if fits else options, requantize=allow_requantize,
                    effort=level, calibration=inputs, work=_folder(work, plan, len(runs)),
                    progress=update,
                )  # fmt: skip
            result = _write(encoded, replace(plan, improvement=encoded.improvement), start)
        found.append(result.json())
        if not json:
            if verbose and result.improvement is not None:
                report.show(*result.improvement.page()[:2])
            if dry_run:
                report.show(*(listing(source, encoded) if not fits else fitted.page()[:2]))
            report.show(result.line())
            for note in result.notes():
                stderr().print(note, markup=False, soft_wrap=True)
    if json:
        report.write_json(found if len(found) > 1 else found[0])


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
    calibration = _windows(loaded, text, windows, seed)
    with progress("calibrate") as update:
        loaded.save_covariances(output, calibration, progress=update)
    for warning in calibration.warnings:
        stderr().print(f"warning: {warning}", markup=False, soft_wrap=True)
    size = output.stat().st_size
    if json:
        report.write_json({
            "path": str(output), "bytes": size, "source": calibration.source,
            "windows": len(calibration.tokens), "held_out": len(calibration.held_out),
        })  # fmt: skip
    else:
        report.show(f"{output}: {size:,} bytes, covariances of {calibration.source}")


def _check_calibration(
    effort: Effort,
    imatrix: Path | None,
    calibration: Path | None,
    statistics: Path | None,
    windows: int | None,
    seed: int,
    work: Path | None,
    fits: bool,
) -> None:
    """Refuse options that contradict each other; `fits` if formats are chosen for a size.

    Raises:
        InputError: they do.

    """
    given = {
        "--calibration": calibration, "--statistics": statistics, "--windows": windows,
        "--seed": seed or None, "--work": work,
    }  # fmt: skip
    names = [name for name, value in given.items() if value is not None]
    if effort == "fast" and names and not (fits and "--work" not in names):
        raise InputError(
            f"`{names[0]}` is for `--effort good` or `best`", hint="name one of these too"
        )
    if effort != "fast" and imatrix is not None:
        raise InputError(
            f"`--effort {effort}` takes no `--imatrix`: its calibration gives one",
            hint="leave it out, or name the text that it was made from: `--calibration TEXT`",
        )
    if statistics is not None and len(names) > 1 and names != ["--statistics", "--work"]:
        raise InputError(
            f"`--statistics` and `{names[0] if names[0] != '--statistics' else names[1]}` "
            "both say what to calibrate on",
            hint="use one of them",
        )


def _calibration(
    model: Model, text: Path | None, statistics: Path | None, windows: int | None, seed: int
) -> Calibration | CovarianceFile | None:
    """What the options name; None if the model is to write the default windows itself."""
    if statistics is not None:
        return read_covariances(statistics)
    if text is None and windows is None and seed == 0:
        return None
    return _windows(model, text, windows, seed)


def _default(model: Model) -> Calibration:
    """The windows that the model writes if nothing else is named."""
    return _windows(model, None, None, 0)


def _windows(model: Model, text: Path | None, windows: int | None, seed: int) -> Calibration:
    if text is not None:
        return text_calibration(model, read_text(text, None), windows, str(text))
    with progress("writing calibration text") as update:
        return sampled_calibration(model, windows or WINDOWS, seed, progress=update)


def _folder(work: Path | None, plan: Quantized, count: int) -> Path | None:
    """The folder of finished tensors of one of `count` formats."""
    return work / plan.recipe if work is not None and count > 1 else work


def _is_quantized(model: Model) -> bool:
    return any(not find_format(format_).is_float for format_ in model.formats.values())


def _write(encoded: Model, plan: Quantized, start: float | None = None) -> Quantized:
    """Write a model to its file; warnings go to stderr after the progress bar.

    The time is that since `start`, or that of writing if it is None.
    """
    start = perf_counter() if start is None else start
    with (
        warnings.catch_warnings(record=True) as caught,
        progress(f"quantizing to {plan.recipe}", in_bytes=True) as update,
    ):
        warnings.simplefilter("always", UserWarning)
        encoded.save(plan.path, progress=update)
    for warning in caught:
        stderr().print(f"warning: {warning.message}", markup=False, soft_wrap=True)
    seconds = perf_counter() - start
    return replace(plan, file_bytes=plan.path.stat().st_size, seconds=seconds)


def _overrides(pairs: list[str]) -> dict[str, str]:
    """``REGEX=FORMAT`` pairs as a mapping.

    Raises:
        InputError: a pair has no format.

    """
    found = {}
    for pair in pairs:
        pattern, separator, format_ = pair.rpartition("=")
        if not separator:
            raise InputError(
                f"`--tensor-type` takes REGEX=FORMAT, got `{pair}`",
                hint="for example `--tensor-type attn_v=Q6_K`",
                pair=pair,
            )
        found[pattern] = format_
    return found

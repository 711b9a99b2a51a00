"""`fewbit quantize`: store a model in fewer bits."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from fewbit.cli.calibrating import CalibrationSeed, WindowCount
from fewbit.cli.improving import Improving, encoding
from fewbit.cli.options import Json, Threads, complete_format, model_path, names_of
from fewbit.cli.outputs import output_paths, refuse_replacing
from fewbit.cli.progress import progress, tell
from fewbit.cli.sizing import check_fit
from fewbit.cli.summary import Quantized, listing, pieces_of, planned
from fewbit.convert.quantization import Quantization
from fewbit.convert.split import Split, split_of
from fewbit.demo import demo_or
from fewbit.errors import InputError
from fewbit.files.importance import read_imatrix
from fewbit.files.tensor_file import Source, TensorFile, open_tensors
from fewbit.formats.table import find_format
from fewbit.improve.driver import Effort, check_effort
from fewbit.improve.mixture import Mixture
from fewbit.recipes.choose import Options, canonical
from fewbit.reports import write as report


def quantize(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="GGUF file, Hugging Face folder, hub name or `demo`."),
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
            metavar="FORMAT",
            autocompletion=complete_format,
            help="Format, for example Q8_0, or mixture, for example Q4_K_M; several with commas "
            "or one -f each. They are listed below.",
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
            metavar="FILE",
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
        str | None,
        typer.Option(metavar="FORMAT", help="Format of token_embd.weight.", show_default=False),
    ] = None,
    output_tensor_type: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Format of output.weight.", show_default=False),
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
    split_max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Write pieces of at most this size of tensors, for example 500M or 2G (10^9 "
            "bytes): NAME-00001-of-00003.gguf and so on.",
            show_default=False,
        ),
    ] = None,
    split_max_tensors: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Write pieces of at most this many tensors.", show_default=False
        ),
    ] = None,
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

    Only a slab of rows is in memory at a time; with --effort good one layer, and the hidden states
    of the calibration's windows; with best the entire model. The file appears under its name only
    when it is complete, pieces all at once; a file that stood there is replaced, but an input only
    with --force, or with --allow-requantize if it is quantized already.

    MODEL may also be a GGUF file that fewbit cannot run: of another architecture, a vision
    projector, an adapter. Its tensors are chosen by name and shape as llama-quantize does.
    """
    split = split_of(split_max_size, split_max_tensors)
    options = Options(_overrides(tensor_type or []), token_embedding_type, output_tensor_type, pure)
    importance = None if imatrix is None else read_imatrix(imatrix)
    level = check_effort("best" if best else effort)
    fits = size is not None or bpw is not None
    check_fit(format_, size, bpw, imatrix, options)
    _check_calibration(level, imatrix, calibration, statistics, windows, seed, work, fits)
    names = names_of(format_ or ["mixture"])
    paths = output_paths(output, model, names, known=not fits)
    source = open_tensors(demo_or(model_path(model)))
    allowed = force or (allow_requantize and _is_quantized(source))
    chosen: list[str | Mixture] = list(names)
    improving = Improving(model, level, calibration, statistics, windows, seed, work, threads)
    for path in paths:
        refuse_replacing(path, [source.path], allowed)
        refuse_replacing(path, [imatrix, calibration, statistics], force)
    if fits:
        chosen = [improving.fit(source, size, bpw)]
    runs = []
    for recipe, path in zip(chosen, paths, strict=True):
        encoded = encoding(source, recipe, importance, options, allow_requantize, threads)
        pieces = pieces_of(encoded, path, split)
        for piece in pieces:
            refuse_replacing(piece, [source.path], allowed)
            refuse_replacing(piece, [imatrix, calibration, statistics], force)
        name = canonical(recipe) if isinstance(recipe, str) else recipe.name
        plan = planned(source, encoded, name, path)
        plan = replace(plan, mixture=None if isinstance(recipe, str) else recipe)
        plan = plan if split is None else replace(plan, pieces=tuple(pieces))
        runs.append((recipe, encoded, plan))
    if isinstance(source, TensorFile):
        what = f"`{source.path}` is quantized by the names of its tensors, fewbit cannot run it"
        tell(f"warning: {what}: {source.problem}")
    found = []
    for recipe, encoded, plan in runs:
        result, start = plan, perf_counter()
        if level != "fast" and not dry_run:
            encoded, gained = improving.run(
                source, recipe, options, allow_requantize, plan.recipe, len(runs)
            )
            result = replace(plan, improvement=gained)
        if not dry_run:
            result = _write(encoded, result, split, start)
        found.append(result.json())
        if not json:
            if result.mixture is not None and (dry_run or verbose):
                report.show(*result.mixture.page()[:2])
            elif dry_run:
                report.show(*listing(source, encoded))
            if verbose and result.improvement is not None:
                report.show(*result.improvement.page()[:2])
            report.show(result.line())
            for note in result.notes():
                tell(note)
    if json:
        report.write_json(found if len(found) > 1 else found[0])


def _is_quantized(source: Source) -> bool:
    return any(not find_format(tensor.format).is_float for tensor in source.tensors.values())


def _write(encoded: Quantization, plan: Quantized, split: Split | None, start: float) -> Quantized:
    """Write a model to its file; warnings go to stderr after the progress bar.

    The time is that since `start`.
    """
    with (
        warnings.catch_warnings(record=True) as caught,
        progress(f"quantizing to {plan.recipe}", in_bytes=True) as update,
    ):
        warnings.simplefilter("always", UserWarning)
        files = encoded.save(plan.path, split=split, progress=update)
    for warning in caught:
        tell(f"warning: {warning.message}")
    seconds = perf_counter() - start
    return replace(plan, file_bytes=sum(f.stat().st_size for f in files), seconds=seconds)


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

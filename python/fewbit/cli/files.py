"""Commands on model files: inspect, quantize, verify."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import typer

from fewbit.cli.options import (
    FormatOption,
    Json,
    ModelName,
    Threads,
    complete_format,
    model_path,
    names_of,
)
from fewbit.cli.outputs import output_paths, refuse_replacing, show_each, show_result
from fewbit.cli.progress import LateProgress, progress, tell
from fewbit.cli.summary import Quantized, listing, pieces_of, planned
from fewbit.convert.quantization import Quantization, quantized
from fewbit.convert.split import Split, split_of
from fewbit.convert.verify import verify as verify_file
from fewbit.demo import demo_or
from fewbit.errors import InputError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.files.importance import read_imatrix
from fewbit.files.tensor_file import Source, TensorFile, open_tensors
from fewbit.formats.table import find_format
from fewbit.recipes.choose import Options, canonical
from fewbit.reports import contents as inspect_file
from fewbit.reports import write as report
from fewbit.reports.distributions import distributions
from fewbit.reports.encoded import as_encoded
from fewbit.reports.plan_listing import list_plan


def inspect(
    model: ModelName = None,
    tensor: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Show the distribution of values of tensors whose names match this regex.",
            show_default=False,
        ),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --tensor: show this block number by number (0 is the first; row by row).",
            show_default=False,
        ),
    ] = None,
    format_: FormatOption = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="List the ops that run the model, with shapes, weights and bytes."
        ),
    ] = False,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="List every metadata key of a GGUF file.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a model file: configuration, tokenizer, tensors, formats, bits per weight.

    With --format it shows the model as `fewbit quantize` would store it, and writes nothing.
    """
    _refuse_combinations(tensor, block, format_, plan, metadata)
    if metadata:
        show_result(inspect_file.metadata(model_path(model)), json)
        return
    if tensor is None and not plan and format_ is None:
        show_result(inspect_file.inspect(model_path(model)), json)
        return
    if tensor is not None:
        _show_tensors(model_path(model), tensor, block, format_, json)
        return
    checkpoint = open_checkpoint(model_path(model))
    if format_ is not None:
        checkpoint = as_encoded(checkpoint, format_)
    show_result(list_plan(checkpoint) if plan else inspect_file.inspect(checkpoint), json)


def _show_tensors(
    path: str, tensor: str, block: int | None, format_: str | None, json: bool
) -> None:
    bar, source = LateProgress(), open_tensors(demo_or(path), damaged=True)
    if format_ is not None:
        source = as_encoded(open_checkpoint(path), format_)
    if block is None:
        show_each(distributions(source, tensor, bar), json, bar)
    else:
        show_each(inspect_file.blocks(source, tensor, block), json, bar)


def _refuse_combinations(
    tensor: str | None, block: int | None, format_: str | None, plan: bool, metadata: bool
) -> None:
    """Refuse options of `inspect` that contradict each other.

    Raises:
        InputError: they do.

    """
    of_tensors = tensor is not None or block is not None
    if metadata and (plan or of_tensors or format_ is not None):
        raise InputError(
            "`--metadata` goes with none of `--plan`, `--tensor`, `--block`, `--format`",
            hint="use one of them",
        )
    if plan and of_tensors:
        raise InputError(
            "`--plan` cannot be combined with `--tensor` or `--block`", hint="use one of them"
        )
    if block is not None and tensor is None:
        raise InputError(
            f"`--block {block}` needs a tensor", hint="for example `--tensor 'blk.0.attn_q'`"
        )


def quantize(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="GGUF file, Hugging Face folder, hub name or `demo`."),
    ],
    format_: Annotated[
        list[str],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            autocompletion=complete_format,
            help="Format, for example Q8_0, or mixture, for example Q4_K_M; several with commas "
            "or one -f each. They are listed below.",
        ),
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
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Store a model in fewer bits as a GGUF file.

    Only a slab of rows is in memory at a time. The file appears under its name only when it is
    complete, pieces all at once; a file that stood there is replaced, but an input only with
    --force, or with --allow-requantize if it is quantized already.

    MODEL may also be a GGUF file that fewbit cannot run: of another architecture, a vision
    projector, an adapter. Its tensors are chosen by name and shape as llama-quantize does.
    """
    split = split_of(split_max_size, split_max_tensors)
    options = Options(_overrides(tensor_type or []), token_embedding_type, output_tensor_type, pure)
    importance = None if imatrix is None else read_imatrix(imatrix)
    names = names_of(format_)
    paths = output_paths(output, model, names)
    source = open_tensors(demo_or(model_path(model)))
    allowed = force or (allow_requantize and _is_quantized(source))
    runs = []
    for name, path in zip(names, paths, strict=True):
        encoded = quantized(
            source, name, importance,
            options=options, requantize=allow_requantize, threads=threads,
        )  # fmt: skip
        pieces = pieces_of(encoded, path, split)
        for piece in pieces:
            refuse_replacing(piece, [source.path], allowed)
            refuse_replacing(piece, [imatrix], force)
        plan = planned(source, encoded, canonical(name), path)
        runs.append((encoded, plan if split is None else replace(plan, pieces=tuple(pieces))))
    if isinstance(source, TensorFile):
        what = f"`{source.path}` is quantized by the names of its tensors, fewbit cannot run it"
        tell(f"warning: {what}: {source.problem}")
    found = []
    for encoded, plan in runs:
        result = plan if dry_run else _write(encoded, plan, split)
        found.append(result.json())
        if not json:
            report.show(*(listing(source, encoded) if dry_run else ()), result.line())
            for note in result.notes():
                tell(note)
    if json:
        report.write_json(found if len(found) > 1 else found[0])


def _is_quantized(source: Source) -> bool:
    return any(not find_format(tensor.format).is_float for tensor in source.tensors.values())


def _write(encoded: Quantization, plan: Quantized, split: Split | None) -> Quantized:
    """Write a model to its file; warnings go to stderr after the progress bar."""
    start = perf_counter()
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


def verify(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The GGUF file to check, or a hub name of it.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="What the file was quantized from (a folder, a GGUF file, a hub name or `demo`): "
            "encode it again and compare bytes.",
            show_default=False,
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --source: the importance matrix that the file was made with.",
            show_default=False,
        ),
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Check only tensors whose names match.", show_default=False
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Rows of each tensor to check, evenly spaced; 64 with --source and all without it "
            "if not set.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Check a GGUF file byte by byte; exit code 1 if anything is wrong in it.

    With --source its tensors must be what the source is encoded as: the first difference of each
    is shown with its row, block, field and byte. In any case no block may hold values that no
    encoder writes, as a scale that is NaN, and bytes between tensors must be zero.
    """
    if imatrix is not None and source is None:
        raise InputError("`--imatrix` is for encoding again", hint="name the `--source` too")
    with progress("verifying", in_bytes=True) as update:
        found = verify_file(
            file,
            None if source is None else model_path(source),
            imatrix=None if imatrix is None else read_imatrix(imatrix),
            tensor=tensor,
            rows=_rows(rows),
            threads=threads,
            progress=update,
        )
    show_result(replace(found, file=str(file), source=source), json)
    if not found.ok:
        raise typer.Exit(1)


def _rows(text: str | None) -> int | Literal["all"] | None:
    """What `--rows` says.

    Raises:
        InputError: it is neither a number nor `all`.

    """
    if text is None:
        return None
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise InputError(
            f"`--rows` takes a number or `all`, got `{text}`", hint="as in `--rows 64`"
        )
    return int(text)


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

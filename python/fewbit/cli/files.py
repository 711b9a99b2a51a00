"""Commands on model files: inspect, verify."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewbit.cli.options import (
    FormatOption,
    Json,
    ModelName,
    Threads,
    model_path,
)
from fewbit.cli.outputs import show_each, show_result
from fewbit.cli.progress import LateProgress, progress
from fewbit.convert.verify import verify as verify_file
from fewbit.demo import demo_or
from fewbit.errors import InputError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.files.importance import read_imatrix
from fewbit.files.tensor_file import open_tensors
from fewbit.measure.base_files import is_base_file
from fewbit.reports import contents as inspect_file
from fewbit.reports.base_summary import inspect_base
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

    Of a base file (`fewbit divergence --save-base`) it shows windows, tokens and precision.
    With --format it shows the model as `fewbit quantize` would store it, and writes nothing.
    """
    _refuse_combinations(tensor, block, format_, plan, metadata)
    if metadata:
        show_result(inspect_file.metadata(model_path(model)), json)
        return
    if tensor is None and not plan and format_ is None:
        path = model_path(model)
        show_result(inspect_base(path) if is_base_file(path) else inspect_file.inspect(path), json)
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

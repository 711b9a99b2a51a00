"""Commands that read model files: inspect, verify."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewbit.cli.options import Json, ModelName, Threads, model_path
from fewbit.cli.progress import progress
from fewbit.convert.verify import verify as verify_file
from fewbit.errors import InputError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.files.importance import read_imatrix
from fewbit.reports import contents as inspect_file
from fewbit.reports import write as report
from fewbit.reports.format_list import list_formats
from fewbit.reports.plan_listing import list_plan
from fewbit.tables import Shown


def inspect(
    model: ModelName = None,
    tensor: Annotated[
        str | None,
        typer.Option(
            help="Show the distribution of values of tensors whose names match this regex.",
            show_default=False,
        ),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(
            help="With --tensor: show this block number by number (0 is the first; row by row).",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="Explain a number format, for example Q4_K or asym4-g32; needs no model. `list` "
            "lists formats and mixtures with their bits per weight.",
            show_default=False,
        ),
    ] = None,
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
    """Show a model file: configuration, tokenizer, tensors, formats, bits per weight."""
    if format_ is not None:
        if model is not None or tensor is not None or block is not None or plan or metadata:
            raise InputError(
                "`--format` takes no model and no `--tensor`, `--block`, `--plan` or `--metadata`",
                hint="for a block of a file use `--tensor REGEX --block N`",
            )
        _show(list_formats() if format_ == "list" else inspect_file.explain(format_), json)
        return
    if metadata:
        if plan or tensor is not None or block is not None:
            raise InputError(
                "`--metadata` cannot be combined with `--plan`, `--tensor` or `--block`",
                hint="use one of them",
            )
        _show(inspect_file.metadata(model_path(model)), json)
        return
    if plan and (tensor is not None or block is not None):
        raise InputError(
            "`--plan` cannot be combined with `--tensor` or `--block`", hint="use one of them"
        )
    if block is not None and tensor is None:
        raise InputError(
            f"`--block {block}` needs a tensor", hint="for example `--tensor 'blk.0.attn_q'`"
        )
    if tensor is None and not plan:
        _show(inspect_file.inspect(model_path(model)), json)
        return
    checkpoint = open_checkpoint(model_path(model))
    if tensor is None:
        _show(list_plan(checkpoint), json)
    elif block is None:
        _show_each(inspect_file.distributions(checkpoint, tensor), json)
    else:
        _show_each(inspect_file.blocks(checkpoint, tensor, block), json)


def verify(
    file: Annotated[Path, typer.Argument(help="The GGUF file to check.")],
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
            help="With --source: the importance matrix that the file was made with.",
            show_default=False,
        ),
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option(
            help="Check only tensors with such names (a regular expression).", show_default=False
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
    _show(replace(found, file=str(file), source=source), json)
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


def _show(found: Shown, json: bool) -> None:
    if json:
        report.write_json(found)
    else:
        report.show(*found.page())


def _show_each(found: Iterable[Shown], json: bool) -> None:
    """Write one JSON list, or the page of each result as soon as it is computed."""
    if json:
        report.write_json(list(found))
        return
    for one in found:
        report.show(*one.page())

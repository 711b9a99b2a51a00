"""The command that measures which tensors and layers a format hurts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewbit.api import load
from fewbit.cli.diverging import note_context
from fewbit.cli.options import (
    Chunks,
    Ctx,
    FormatOption,
    Json,
    ModelName,
    Text,
    Threads,
    model_path,
    read_text,
)
from fewbit.cli.outputs import refuse_replacing
from fewbit.cli.progress import progress
from fewbit.errors import InputError
from fewbit.files.importance import read_imatrix
from fewbit.reports.write import show, write_json


def sensitivity(
    model: ModelName = None,
    format_: FormatOption = None,
    text: Text = None,
    by: Annotated[
        str, typer.Option("--by", metavar="KIND", help="One row for each tensor or each layer.")
    ] = "tensor",
    all_but_one: Annotated[
        bool,
        typer.Option(
            "--all-but-one", help="Measure too what is lost when all but one are quantized."
        ),
    ] = False,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Importance matrix of the columns, from `fewbit imatrix` or llama-imatrix.",
            show_default=False,
        ),
    ] = None,
    ctx: Ctx = 512,
    chunks: Chunks = 4,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE",
            help="JSON file that keeps finished rows: the same command goes on from there.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = 0,
    json: Json = False,
) -> None:  # fmt: skip
    """Measure how much each tensor or layer loses when it alone is quantized, and per byte saved.

    The losses are KL divergences from the model as it is, with f32 activations.
    """
    if format_ is None:
        raise InputError("no format named", hint="for example `--format Q4_0`")
    content = read_text(text, model)
    used = load(model_path(model), "cpu", threads=threads)
    if out is not None:
        refuse_replacing(out, [used.checkpoint.path, text, imatrix], force=False)
    with progress("measuring") as update:
        found = used.sensitivity(
            format_, content, by=by, all_but_one=all_but_one,
            imatrix=None if imatrix is None else read_imatrix(imatrix), ctx=ctx, chunks=chunks,
            results=out, progress=update,
        )  # fmt: skip
    note_context(used, ctx)
    if json:
        write_json(found.to_dict())
    else:
        show(*found.page())

"""The command that finds a model's outliers and measures which of them matter."""

from __future__ import annotations

from typing import Annotated

import typer

from fewbit.api import load
from fewbit.cli.options import (
    Chunks,
    Ctx,
    FormatOptions,
    Json,
    ModelName,
    Text,
    Threads,
    model_path,
    names_of,
    read_text,
)
from fewbit.cli.outputs import show_result
from fewbit.cli.progress import progress
from fewbit.reports.outliers import find_outliers


def outliers(
    model: ModelName = None,
    text: Text = None,
    formats: FormatOptions = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="Farthest weights to list.")
    ] = 8,
    single: Annotated[
        int,
        typer.Option(
            "--single",
            metavar="N",
            min=0,
            help="Candidates for super weights, and outliers, to set to zero one by one.",
        ),
    ] = 3,
    fraction: Annotated[
        float,
        typer.Option(
            "--fraction", metavar="F", help="Fraction of each tensor's weights to keep apart."
        ),
    ] = 1e-4,
    ctx: Ctx = 512,
    chunks: Chunks = 4,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Find a model's outliers and super weights, and measure what each does to its predictions.

    With `-f FORMAT` it also measures what keeping the largest weights apart costs and gains.
    """
    used = load(model_path(model), "cpu", threads=threads)
    names = names_of(formats or [])
    words = read_text(text, model) if single or names else ""
    with progress("looking for outliers") as update:
        found = find_outliers(
            used, words, formats=names, count=count, single=single, fraction=fraction, ctx=ctx,
            chunks=chunks, progress=update,
        )  # fmt: skip
    show_result(found, json)

"""Models as files: inspect, quantize."""

from __future__ import annotations

from typing import Annotated

import typer
from fewbit.checkpoint import open_checkpoint

from fewbit import inspect_file, report
from fewbit.commands.options import Json, ModelName
from fewbit.demo import DEMO


def inspect(
    model: ModelName = None,
    tensor: Annotated[
        str | None,
        typer.Option(
            help="Show how the values of the tensors with such names lie (a regular expression).",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """What is in a file: configuration, tokenizer, tensors, formats, bits per weight."""
    checkpoint = open_checkpoint(str(DEMO) if model is None else model)
    if tensor is None:
        contents = inspect_file.inspect(checkpoint)
        if json:
            report.write_json(contents)
        else:
            report.show(*report.contents_tables(contents))
        return
    found = inspect_file.distributions(checkpoint, tensor)
    if json:
        report.write_json(list(found))
        return
    for distribution in found:
        report.show(report.distribution_lines(distribution))

"""The commands that list and explain formats, and the terms of quantization."""

from __future__ import annotations

from typing import Annotated

import typer

from fewbit.cli.options import Json
from fewbit.cli.outputs import show_result
from fewbit.reports import explain as explaining
from fewbit.reports.contents import explain as layout
from fewbit.reports.format_list import list_formats


def formats(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[FORMAT]",
            help="Format to explain, for example Q4_K or asym4-g32; all are listed if left out.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List formats and mixtures with their bits per weight, or explain one format byte by byte."""
    show_result(list_formats() if name is None else layout(name), json)


def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A term (block, KLD, imatrix, ...), a format, a mixture or a float format; all "
            "are listed if left out.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Explain a term or a format with a formula and an example from the built-in model."""
    found = explaining.explainable() if name is None else explaining.explain(name)
    show_result(found, json)

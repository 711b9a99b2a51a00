"""The command that lists and explains number formats."""

from __future__ import annotations

from typing import Annotated

import typer

from fewbit.cli.options import Json
from fewbit.cli.outputs import show_result
from fewbit.reports.contents import explain
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
    show_result(list_formats() if name is None else explain(name), json)

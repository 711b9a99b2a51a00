"""The command that draws pictures as PNG or SVG files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewbit.cli.numbers import read_interval, read_numbers
from fewbit.cli.options import Chunks, Json, names_of, read_text
from fewbit.cli.progress import progress, tell
from fewbit.plots.draw import KINDS
from fewbit.plots.draw import plot as drawn
from fewbit.plots.figure import save
from fewbit.reports.write import write_json

NUMBERS = ("mapping", "kl")
"""Kinds whose inputs are numbers, not models."""
LIST = "; ".join(f"{kind}: {words}" for kind, (_, words) in KINDS.items())


def plot(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"{LIST}.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="Models, or numbers for mapping and kl; the built-in demo if left out.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="PNG, SVG or PDF to write (default: KIND.png).",
            show_default=False,
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--as", metavar="FORMAT", help="Formats, with commas or one --as each.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(
            "--range", metavar="LOW,HIGH", help="Lowest and highest value shown.",
            show_default=False,
        ),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Draw on logarithmic axes.")] = False,
    factor: Annotated[
        float, typer.Option("--factor", metavar="F", help="What multiplies the curve of sine.")
    ] = 1.0,
    tensor: Annotated[
        str,
        typer.Option(
            "--tensor", metavar="REGEX", help="Tensors to show, as in `fewbit inspect`.",
            show_default=False,
        ),
    ] = "",
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="Text whose next token is shown.")
    ] = "The old house",
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", "-t", metavar="FILE", help="Text that sizes and layers measure on "
            "(default: the demo's).", show_default=False,
        ),
    ] = None,
    chunks: Chunks = 4,
    json: Json = False,
) -> None:  # fmt: skip
    """Draw a picture of number formats, of a model's weights or of what quantization costs."""
    given = inputs or []
    with progress("drawing") as update:
        figure = drawn(
            kind,
            read_numbers(given) if kind in NUMBERS else given,
            formats=names_of(formats or []),
            interval=None if interval is None else read_interval("--range", interval),
            log=log,
            factor=factor,
            tensor=tensor,
            prompt=prompt,
            text=None if text is None else read_text(text, None),
            chunks=chunks,
            progress=update,
        )
    target = output or Path(f"{kind}.png")
    save(figure, target)
    if json:
        titles = [panel.get_title() for panel in figure.axes]
        write_json({"kind": kind, "file": str(target), "titles": [t for t in titles if t]})
    else:
        tell(f"wrote {target}")

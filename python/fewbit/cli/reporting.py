"""The command `fewbit report`: one page, table or set of pictures from saved results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fewbit.cli.options import Json
from fewbit.cli.outputs import refuse_replacing
from fewbit.cli.progress import tell
from fewbit.errors import InputError
from fewbit.files.replace import replacing
from fewbit.plots.results import save_pictures
from fewbit.reports import write
from fewbit.reports.result_files import read_results
from fewbit.reports.result_page import report_html
from fewbit.reports.result_tables import Report


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...",
            help="JSON of compare, divergence, perplexity, benchmark or bench: what `--json` "
            "prints, or `fewbit compare --out FILE.json`.",
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", show_default=False,
            help="Write a page with charts and tables, which loads nothing and has no script.",
        ),
    ] = None,
    md: Annotated[
        Path | None,
        typer.Option(
            "--md", metavar="FILE", show_default=False,
            help="Write the tables in Markdown, for a model card.",
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png", metavar="DIR", show_default=False,
            help="Write the charts into this folder as PNG and SVG; needs `fewbit[plots]`.",
        ),
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Show saved results together: loss against size, percentiles, positions, answers, speed.

    Prints the tables unless a file is asked for. Names of models are shown without their folders.
    """
    if html is not None and md is not None and html.absolute() == md.absolute():
        raise InputError(f"`{html}` is named twice", hint="give `--md` another name")
    found = Report(read_results(files))
    written = []
    if html is not None:
        written.append(_written(html, report_html(found.results), files))
    if md is not None:
        written.append(_written(md, found.to_markdown(), files))
    if png is not None:
        written += save_pictures(found.results, png)
    for path in written:
        tell(f"wrote {path}")
    if json:
        write.write_json(found.results)
    elif not written:
        write.show(*found.page())


def _written(path: Path, content: str, inputs: Sequence[Path]) -> Path:
    """Write a file that is not one of `inputs`; it replaces what stood there when complete."""
    refuse_replacing(path, inputs, force=False)
    with replacing(path) as temporary:
        temporary.write_text(content, "utf-8")
    return path

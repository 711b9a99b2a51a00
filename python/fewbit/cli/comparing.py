"""The command `fewbit compare`: several models and formats in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from fewbit import api_compare
from fewbit.api import Model, load
from fewbit.cli.diverging import note_context
from fewbit.cli.options import (
    Chunks,
    Ctx,
    Device,
    Json,
    Kv,
    Text,
    Threads,
    complete_format,
    model_path,
    names_of,
    read_text,
)
from fewbit.cli.outputs import refuse_replacing
from fewbit.cli.progress import progress, tell
from fewbit.errors import InputError
from fewbit.files.importance import read_imatrix
from fewbit.files.replace import replacing
from fewbit.measure.comparison import DEFAULT_FORMATS, ORDERS, Comparison
from fewbit.reports import write as report
from fewbit.run.limits import kv_type_named
from fewbit.tables import markdown

SUFFIXES = (".md", ".csv", ".json", ".html")


def compare(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="GGUF files, Hugging Face folders or hub names of one vocabulary; the built-in "
            "demo if left out.",
            show_default=False,
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            "--formats",
            metavar="FORMAT",
            autocompletion=complete_format,
            help="Formats in which the base is stored, for example Q8_0,Q4_0: with commas or one "
            "-f each (default: nine of a single MODEL, none beside several).",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Model that all others are measured against; default: the first MODEL.",
            show_default=False,
        ),
    ] = None,
    imatrix: Annotated[
        list[str] | None,
        typer.Option(
            "--imatrix",
            help="Importance matrix to encode the formats with; repeat it for several, `none` "
            "encodes without.",
            show_default=False,
        ),
    ] = None,
    text: Text = None,
    ctx: Ctx = 512,
    chunks: Chunks = None,
    sort: Annotated[
        str, typer.Option("--sort", help="Order of the rows: given, size or kld.")
    ] = "given",
    against: Annotated[
        str | None,
        typer.Option(
            help="Row that the others are compared with, pair by pair; default: the row before.",
            show_default=False,
        ),
    ] = None,
    until_significant: Annotated[
        bool,
        typer.Option(
            "--until-significant",
            help="Stop when the order of the rows by KLD is certain (level 5 %, looks after 8, "
            "12, 18, 27... windows included).",
        ),
    ] = False,
    one_by_one: Annotated[
        bool | None,
        typer.Option(
            "--one-by-one/--together",
            help="Load one model at a time, the base's logits on disk; default: if the models do "
            "not fit into memory together.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o",
            help="Write the table to this .md, .csv, .json or .html file. Measured windows are "
            "kept in the folder NAME.results beside it: the same command goes on from there.",
            show_default=False,
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Show errors, percentiles and Δp too.")
    ] = False,
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:  # fmt: skip
    """Measure what models and formats cost in bits and lose in quality, all against one base.

    The table separates the loss of the weights alone from the loss that int8 activations add. A
    second table says which row is better or worse than another, as far as the text can tell.
    """
    names = models or []
    first = base if base is not None else names[0] if names else None
    content = read_text(text, first)
    _check_order(sort)
    wanted = _formats(formats, alone=len(names) < 2 and base is None)
    matrices = [None if name == "none" else read_imatrix(name) for name in imatrix or ["none"]]
    if out is not None:
        paths = [Path(each) for each in (*names, *(imatrix or []), *([base] if base else []))]
        _check_out(out)
        refuse_replacing(out, [*paths, text], force=False)
    kind = kv_type_named(kv)
    opened = {
        path: load(path, device, threads=threads, kv=kind)
        for path in dict.fromkeys(map(model_path, [first, *names]))
    }

    def on_row(found: Comparison) -> None:
        row = found[-1]
        tell(f"{row.format}: KLD {row.fast.kld.value:.6f}, {len(found)} rows measured")
        _write(out, found.ordered(sort), details)

    with progress("compare") as update:
        rows = api_compare.compare(
            opened[model_path(first)], wanted, content, ctx=ctx, chunks=chunks, progress=update,
            models=_rows_of(names, first, opened), imatrix=matrices, against=against,
            until_significant=until_significant, one_by_one=one_by_one, on_row=on_row,
            results=None if out is None else out.with_suffix(".results"),
        )  # fmt: skip
    rows = rows.ordered(sort)
    note_context(opened[model_path(first)], ctx)
    _write(out, rows, details)
    if json:
        report.write_json(rows)
    else:
        report.show(*rows.page(details))


def _rows_of(
    names: Sequence[str], base: str | None, opened: Mapping[str, Model]
) -> dict[str, Model] | None:
    """Models by the names of their rows; None if the base alone is measured."""
    paths = list(dict.fromkeys(map(model_path, [base, *names])))
    if len(paths) < 2:
        return None
    short = {path: Path(path).name for path in paths}
    count = Counter(short.values())
    return {
        short[path] if count[short[path]] == 1 else path: opened[path] for path in paths
    }  # fmt: skip


def _formats(formats: Sequence[str] | None, *, alone: bool) -> tuple[str, ...]:
    if not formats:
        return DEFAULT_FORMATS if alone else ()
    return tuple(n.lower() if "sym" in n.lower() else n.upper() for n in names_of(formats))


def _check_order(sort: str) -> None:
    if sort not in ORDERS:
        raise InputError(f"unknown order `{sort}`", hint=f"`--sort` takes {', '.join(ORDERS)}")


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"cannot tell the format of `{out}`", hint=f"name a file that ends with {SUFFIXES}"
        )


def _write(out: Path | None, rows: Comparison, details: bool) -> None:
    """Write the table in the format of the file's suffix; it replaces the file when complete."""
    if out is None:
        return
    suffix = out.suffix.lower()
    if suffix == ".md":
        content = markdown(rows.page(details))
    elif suffix == ".csv":
        content = rows.to_csv()
    elif suffix == ".json":
        content = report.json_text(rows)
    else:
        content = rows.to_html()
    with replacing(out) as temporary:
        temporary.write_text(content, "utf-8")

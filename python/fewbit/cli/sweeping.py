"""The command `fewbit sweep`: models x formats x texts in several processes, one line a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewbit.cli.options import Json, complete_format, each_acts, names_of, read_text
from fewbit.cli.progress import progress, tell
from fewbit.cli.sizing import bytes_of
from fewbit.errors import InputError
from fewbit.files.folder_lock import locked_folder
from fewbit.reports import write as report
from fewbit.sweep.spec import Spec, read_spec
from fewbit.sweep.store import Line, Results
from fewbit.tables import Table

if TYPE_CHECKING:
    from fewbit.sweep.cells import Cell, Cells


def sweep(
    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SPEC.yaml]",
            help="File of models, formats, texts, acts, kv, ctx and chunks; options replace what "
            "it says.",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", show_default=False,
            help="Model to measure, one -m each; default: the built-in demo.",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", metavar="FORMAT", autocompletion=complete_format, show_default=False,
            help="Formats, for example Q8_0,Q4_0: with commas or one -f each; `original` is the "
            "model as it is.",
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--text", "-t", metavar="FILE", show_default=False,
            help="Text file to measure on, one -t each; `demo` is the demo's own, the default for "
            "models made from it.",
        ),
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option("--ctx", "-c", metavar="N", min=1, show_default=False,
                     help="Tokens in a window (default: 512)."),
    ] = None,
    chunks: Annotated[
        int | None,
        typer.Option("--chunks", metavar="N", min=1, show_default=False,
                     help="Number of windows to measure (default: all)."),
    ] = None,
    acts: Annotated[
        str | None,
        typer.Option("--acts", metavar="TYPE", show_default=False,
                     help="Activations: int8 (default), f32 or both."),
    ] = None,
    kv: Annotated[
        list[str] | None,
        typer.Option("--kv", metavar="TYPE", show_default=False,
                     help="Types of the KV cache: f32 (default), f16, int8; with commas or one "
                     "--kv each."),
    ] = None,
    imatrix: Annotated[
        list[str] | None,
        typer.Option("--imatrix", metavar="FILE", show_default=False,
                     help="Importance matrix to encode with, one for each --model in their order; "
                     "`none` encodes without."),
    ] = None,
    workers: Annotated[
        str,
        typer.Option("--workers", metavar="N", help="Number of processes; auto: as many as cores "
                     "and free memory allow."),
    ] = "auto",
    memory: Annotated[
        str,
        typer.Option("--memory-per-worker", metavar="SIZE", help="Memory that a process takes, as "
                     "4.5GB; auto: an estimate of the largest cell."),
    ] = "auto",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", show_default=False,
                     help="Folder of results.jsonl; the same command goes on from there."),
    ] = ...,  # type: ignore[assignment]
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show cells, memory and disk; measure nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure cells again that failed.")
    ] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Measure models x formats x texts (x acts x kv) on the CPU, in several processes.

    A line for each cell is appended to DIR/results.jsonl when it is measured. Whatever ends a
    sweep, the same command measures what is missing. Each cell has the bits of `fewbit divergence`.
    """
    from fewbit.sweep import run  # late: it loads multiprocessing
    from fewbit.sweep.cells import cells_of

    wanted = _filled(Spec() if spec is None else read_spec(spec))
    wanted = _with_options(wanted, models, formats, texts, acts, kv, imatrix)
    wanted = replace(wanted, ctx=ctx or wanted.ctx, chunks=chunks or wanted.chunks)
    most = _count(workers)
    bytes_each = None if memory == "auto" else bytes_of(memory)
    cells = cells_of(wanted, _contents(wanted))
    if dry_run:
        results = Results(out)
        lacking = run.missing(cells, results, retry_failed)
        count = run.workers_for(cells, most, bytes_each, max(1, len(lacking)))
        _show_plan(cells, results, len(lacking), count, bytes_each, json)
        return
    with locked_folder(out):
        results = Results(out)
        lacking = run.missing(cells, results, retry_failed)
        count = run.workers_for(cells, most, bytes_each, max(1, len(lacking)))
        _run(cells, lacking, results, out, count)
    lines = [results.lines[cell.key] for cell in cells.cells]
    if json:
        report.write_json(lines)
    else:
        report.show(_table(lines))
    if failed := sum(not line["ok"] for line in lines):
        tell(f"{failed} of {len(lines)} cells failed; `--retry-failed` measures them again")
        raise typer.Exit(1)


def _run(cells: Cells, lacking: Sequence[Cell], results: Results, out: Path, count: int) -> None:
    from fewbit.sweep.run import run_cells

    done = len(cells.cells) - len(lacking)
    with progress("sweep") as update:

        def on_line(line: Line) -> None:
            nonlocal done
            done += 1
            update(done, len(cells.cells), f"{line['model']} {line['format']}")
            if not line["ok"]:
                tell(f"failed: {line['model']} {line['format']}: {line['error']}")

        run_cells(lacking, results, out, count, on_line)


def _filled(spec: Spec) -> Spec:
    """The sweep with the defaults of what it does not name."""
    return replace(
        spec,
        models=spec.models or (("demo", None),),
        texts=spec.texts,
        acts=tuple(dict.fromkeys(k for name in spec.acts for k in each_acts(name))) or ("int8",),
        kv=spec.kv or ("f32",),
    )


def _with_options(
    spec: Spec, models: list[str] | None, formats: list[str] | None, texts: list[str] | None,
    acts: str | None, kv: list[str] | None, imatrix: list[str] | None,
) -> Spec:  # fmt: skip
    """The sweep with what options say in place of what the file says."""
    named = models or [name for name, _ in spec.models]
    pairs = spec.models if models is None else tuple((name, None) for name in models)
    if imatrix:
        if len(imatrix) not in (1, len(named)) or (len(imatrix) == 1 and len(named) > 1):
            raise InputError(
                f"{len(imatrix)} importance matrices for {len(named)} models",
                hint="name one `--imatrix` for each model in their order, or `none`",
            )
        matrices = [None if name == "none" else name for name in imatrix]
        pairs = tuple(zip(named, matrices, strict=True))
    return replace(
        spec,
        models=pairs,
        formats=tuple(names_of(formats)) if formats else spec.formats,
        texts=tuple(texts) if texts else spec.texts or ("demo",) * _all_demo(named),
        acts=each_acts(acts) if acts else spec.acts,
        kv=tuple(name.strip() for each in kv for name in each.split(",")) if kv else spec.kv,
    )


def _all_demo(models: Sequence[str]) -> bool:
    """Whether the demo's text suits all models.

    Raises:
        InputError: it does not suit one.

    """
    for name in models:
        read_text(None, name)
    return True


def _contents(spec: Spec) -> dict[str, str]:
    return {name: read_text(Path(name), None) for name in spec.texts}


def _count(workers: str) -> int | None:
    if workers == "auto":
        return None
    if not workers.isdecimal() or int(workers) < 1:
        raise InputError(
            f"cannot run `{workers}` workers", hint="name a number of 1 or more, or auto"
        )
    return int(workers)


def _show_plan(
    cells: Cells, results: Results, lacking: int, workers: int, memory: int | None, json: bool
) -> None:
    each = memory or cells.memory
    facts = {
        "cells": len(cells.cells), "to_measure": lacking, "workers": workers,
        "memory_per_worker": each, "memory": workers * each,
        "largest_base_bytes": max(base.bytes for base in cells.bases),
        "bases": len(cells.bases),
    }  # fmt: skip
    lines = [{**cell.names, "state": _state(results, cell.key)} for cell in cells.cells]
    if json:
        report.write_json({**facts, "list": lines})
        return
    table = Table(["model", "format", "text", "acts", "kv", "state"], text=6, folds=1)
    for line in lines:
        table.add_row(*(str(line[name]) for name in table.columns))
    report.show(
        table,
        f"\n{facts['cells']} cells, {lacking} to measure with {workers} processes of about "
        f"{each / 1e9:.2f} GB\nlogits of {facts['bases']} bases, the largest "
        f"{facts['largest_base_bytes'] / 1e9:.3f} GB on disk while its cells run",
    )


def _state(results: Results, key: str) -> str:
    line = results.lines.get(key)
    return "missing" if line is None else "done" if line["ok"] else "failed"


def _table(lines: Sequence[Line]) -> Table:
    columns = ["model", "format", "text", "acts", "kv", "bits per\nweight", "PPL", "KLD", "seconds"]
    table = Table(columns, text=5, folds=1, keys=2)
    for line in lines:
        names = [str(line[name]) for name in columns[:5]]
        if line["ok"]:
            table.add_row(
                *names, f"{line['bits_per_weight']:.3f}", _number(line["ppl"], 4),
                _number(line["kld"], 6), f"{line['seconds']:.1f}",
            )  # fmt: skip
        else:
            table.add_row(*names, "failed", "", "", "")
    return table


def _number(value: float | None, digits: int) -> str:
    return "not finite" if value is None else f"{value:.{digits}f}"

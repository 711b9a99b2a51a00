"""Commands that measure a model: perplexity, divergence, imatrix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewbit.cli import diverging
from fewbit.cli.diverging import note_context
from fewbit.cli.options import (
    Acts,
    Chunks,
    Ctx,
    Device,
    FormatOption,
    Json,
    Kv,
    ModelName,
    Text,
    Threads,
    each_acts,
    open_model,
    read_text,
)
from fewbit.cli.outputs import refuse_replacing
from fewbit.cli.progress import progress, tell
from fewbit.measure import collect as calibrate
from fewbit.measure import evaluate
from fewbit.measure.results import divergence_page, perplexity_page, position_page
from fewbit.reports import write as report


def perplexity(
    model: ModelName = None,
    text: Text = None,
    format_: FormatOption = None,
    ctx: Ctx = 512,
    chunks: Chunks = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Begin a window every STRIDE tokens and score every token of the text once, "
            "also of a short text; a text that one window holds is scored as a whole.",
            show_default=False,
        ),
    ] = None,
    acts: Acts = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Measure how well a model predicts a text, in llama.cpp's windows (second half scored).

    With --stride windows overlap and every token is scored.
    """
    kinds, content = each_acts(acts), read_text(text, model)
    loaded = open_model(model, format_, threads, device, kv)
    results = []
    for kind in kinds:
        with progress(f"perplexity, acts {kind}") as update:
            results.append(evaluate.perplexity(loaded, content, ctx, chunks, kind, update, stride))
    note_context(loaded, ctx)
    if json:
        report.write_json(results)
    else:
        report.show(*perplexity_page(results))


def divergence(
    model: ModelName = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|FILE",
            help="Model to compare with, or a base file (of `--save-base` or llama-perplexity), "
            "whose tokens are the text; with --format or --kv the default is MODEL itself.",
            show_default=False,
        ),
    ] = None,
    text: Text = None,
    format_: FormatOption = None,
    ctx: Ctx = 512,
    chunks: Chunks = None,
    acts: Acts = "both",
    save_base: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the base's predictions into FILE: llama.cpp's kind with all tokens, "
            "compact with --top or a name that ends in .fbkld.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="With --save-base: keep the K likeliest tokens of a row and the rest's mass "
            "(default for .fbkld: a tenth of the full file).",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Formula for a base file: fewbit (normalised, without the tokens that the file "
            "cuts) or llama.cpp (as stored, without terms of ln p <= -16).",
        ),
    ] = "fewbit",
    by_position: Annotated[
        bool, typer.Option("--by-position", help="Show the KLD by position in the window too.")
    ] = False,
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Compare two models' predictions: KL divergence, perplexity ratio, top-token agreement.

    Both models run side by side; with --save-base the base's predictions are also written, and
    --base FILE reads them again. The base runs with f32 activations and an f32 KV cache.
    """
    asked = diverging.Asked(
        model, base, text, format_, ctx, chunks, each_acts(acts), save_base, top, like,
        threads, device, kv,
    )  # fmt: skip
    results = diverging.measured(asked)
    if json:
        report.write_json(results)
        return
    report.show(*divergence_page(results))
    if by_position:
        report.show(*position_page(results))


def imatrix(
    output: Annotated[Path, typer.Option("--output", "-o", help="GGUF file to write.")],
    model: ModelName = None,
    text: Text = None,
    ctx: Ctx = 512,
    chunks: Chunks = None,
    process_output: Annotated[
        bool, typer.Option("--process-output", help="Collect output.weight too.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUTPUT even if it is an input.")
    ] = False,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Collect an importance matrix from a text, for `fewbit quantize --imatrix`.

    The file is llama.cpp's. It appears under its name only when it is complete.
    """
    content, loaded = read_text(text, model), open_model(model, None, threads)
    refuse_replacing(output, [loaded.checkpoint.path, text], force)
    with progress("imatrix") as update:
        found = calibrate.imatrix(
            loaded, content, ctx, chunks, output=process_output, dataset=str(text or "demo"),
            progress=update,
        )  # fmt: skip
    found.save(output)
    for warning in found.warnings:
        tell(f"warning: {warning}")
    note_context(loaded, ctx)
    if json:
        report.write_json({
            "path": str(output), "entries": len(found), "chunks": found.chunks,
            "tokens": found.tokens, "unseen": found.unseen,
        })  # fmt: skip
    else:
        report.show(f"{output}: {len(found)} entries of {found.tokens:,} tokens")

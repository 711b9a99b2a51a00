"""Commands that measure a model: perplexity, divergence, compare, imatrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fewbit.api import Model
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
    complete_format,
    each_acts,
    names_of,
    open_model,
    read_text,
)
from fewbit.cli.outputs import refuse_replacing
from fewbit.cli.progress import progress, stderr, tell
from fewbit.errors import InputError
from fewbit.measure import collect as calibrate
from fewbit.measure import comparison, evaluate
from fewbit.measure.evaluate import Variant
from fewbit.measure.results import divergence_page, perplexity_page
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
    _note_context(loaded, ctx)
    if json:
        report.write_json(results)
    else:
        report.show(*perplexity_page(results))


def divergence(
    model: ModelName = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Model to compare with; with --format or --kv the default is MODEL itself.",
            show_default=False,
        ),
    ] = None,
    text: Text = None,
    format_: FormatOption = None,
    ctx: Ctx = 512,
    chunks: Chunks = None,
    acts: Acts = "both",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Compare two models' predictions: KL divergence, perplexity ratio, top-token agreement.

    Both models run side by side, so no file of logits is written. The base runs with f32
    activations and an f32 KV cache.
    """
    if base is None and format_ is None and kv == "f32":
        raise InputError(
            "nothing to compare with", hint="name a `--base MODEL`, a `--format` or a `--kv`"
        )
    kinds, content = each_acts(acts), read_text(text, model)
    original = open_model(model if base is None else base, None, threads, device)
    loaded = open_model(model, format_, threads, device, kv)
    variants = [Variant(loaded, kind) for kind in kinds]
    with progress("divergence") as update:
        results = evaluate.divergences(
            variants, Variant(original, "f32"), content, ctx, chunks, update
        )
    _note_context(original, ctx)
    if json:
        report.write_json(results)
    else:
        report.show(*divergence_page(results))


def compare(
    model: ModelName = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            "--formats",
            metavar="FORMAT",
            autocompletion=complete_format,
            help="Formats, for example Q8_0,Q4_0: with commas or one -f each (default: nine).",
            show_default=False,
        ),
    ] = None,
    text: Text = None,
    ctx: Ctx = 512,
    chunks: Chunks = None,
    details: Annotated[
        bool, typer.Option("--details", help="Show errors, percentiles and Δp too.")
    ] = False,
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Measure what a model costs in bits and loses in quality, in each of several formats.

    The table separates the loss of the weights alone from the loss that int8 activations add.
    """
    content = read_text(text, model)
    names = _names(formats) if formats else comparison.DEFAULT_FORMATS
    loaded = open_model(model, None, threads, device, kv)
    with progress("compare") as update:
        rows = comparison.compare(loaded, names, content, ctx, chunks, update)
    _note_context(loaded, ctx)
    if json:
        report.write_json(rows)
    else:
        report.show(*rows.page(details))


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
    _note_context(loaded, ctx)
    if json:
        report.write_json({
            "path": str(output), "entries": len(found), "chunks": found.chunks,
            "tokens": found.tokens, "unseen": found.unseen,
        })  # fmt: skip
    else:
        report.show(f"{output}: {len(found)} entries of {found.tokens:,} tokens")


def _note_context(model: Model, ctx: int) -> None:
    if ctx > model.config.context:
        stderr().print(
            f"note: windows of {ctx} tokens, the model was made for {model.config.context}"
        )


def _names(formats: Sequence[str]) -> tuple[str, ...]:
    return tuple(n.lower() if "sym" in n.lower() else n.upper() for n in names_of(formats))

"""What a model predicts: perplexity, divergence, compare."""

from __future__ import annotations

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
    each_acts,
    open_model,
    read_text,
)
from fewbit.cli.progress import progress, stderr
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
    acts: Acts = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """How well a model predicts a text, in llama.cpp's windows: the second half of each counts."""
    kinds, content = each_acts(acts), read_text(text, model)
    loaded = open_model(model, format_, threads, device, kv)
    results = []
    for kind in kinds:
        with progress(f"perplexity, acts {kind}") as update:
            results.append(evaluate.perplexity(loaded, content, ctx, chunks, kind, update))
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
            help="What to compare with; with --format or --kv, the model itself.",
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
    """How a model's predictions differ from a base's: KL divergence and all that goes with it.

    Both run side by side, so nothing is stored in between; the base's activations, keys and values
    stay f32.
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
        str | None,
        typer.Option("--formats", help="Separated by commas, as Q8_0,Q4_0.", show_default=False),
    ] = None,
    text: Text = None,
    ctx: Ctx = 512,
    chunks: Chunks = None,
    details: Annotated[bool, typer.Option("--details", help="Errors, percentiles, Δp.")] = False,
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """A table over formats: what each costs in bits and what it loses, measured here and now.

    What the weights alone lose is told apart from what the fast arithmetic adds.
    """
    content = read_text(text, model)
    names = comparison.DEFAULT_FORMATS if formats is None else _names(formats)
    loaded = open_model(model, None, threads, device, kv)
    with progress("compare") as update:
        rows = comparison.compare(loaded, names, content, ctx, chunks, update)
    _note_context(loaded, ctx)
    if json:
        report.write_json(rows)
    else:
        report.show(*rows.page(details))


def imatrix(
    output: Annotated[Path, typer.Option("--output", "-o", help="The GGUF file to write.")],
    model: ModelName = None,
    text: Text = None,
    ctx: Ctx = 512,
    chunks: Chunks = None,
    process_output: Annotated[
        bool, typer.Option("--process-output", help="Look at output.weight too.")
    ] = False,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """How much each column of the weights counts in a text, for `fewbit quantize --imatrix`.

    The file is one that llama.cpp reads and writes; it appears under its name when it is whole.
    """
    content, loaded = read_text(text, model), open_model(model, None, threads)
    with progress("imatrix") as update:
        found = calibrate.imatrix(
            loaded, content, ctx, chunks, output=process_output, dataset=str(text or "demo"),
            progress=update,
        )  # fmt: skip
    found.save(output)
    for warning in found.warnings:
        stderr().print(f"warning: {warning}", markup=False, soft_wrap=True)
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


def _names(formats: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in formats.split(",") if name.strip())
    names = tuple(n.lower() if "sym" in n.lower() else n.upper() for n in names)
    if not names:
        raise InputError("no format to compare", hint="as in `--formats Q8_0,Q4_0`")
    return names

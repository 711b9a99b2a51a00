"""Models as files: inspect, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewbit import inspect_file, report
from fewbit.api import load
from fewbit.checkpoint import open_checkpoint
from fewbit.commands.options import Json, ModelName, Threads, model_path
from fewbit.progress import progress
from fewbit.sizes import sizes


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
    checkpoint = open_checkpoint(model_path(model))
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


def quantize(
    model: Annotated[
        str, typer.Argument(help="A GGUF file, a Hugging Face folder, a hub name or `demo`.")
    ],
    output: Annotated[Path, typer.Argument(help="The GGUF file to write.")],
    format_: Annotated[
        str, typer.Option("--format", "-f", help="As Q8_0, Q4_0 or a mixture as Q4_K_M.")
    ],
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Write a model in fewer bits as GGUF, one tensor in memory at a time.

    The file appears under its name only when it is whole.
    """
    encoded = load(model_path(model), recipe=format_, threads=threads)
    with progress(f"encoding {format_}") as update:
        encoded.save(output, progress=update)
    size, written = sizes(encoded), output.stat().st_size
    if json:
        report.write_json({"path": str(output), "bytes": written, "sizes": size})
    else:
        bits = f"{size.bits_per_weight:.2f} bits per weight"
        report.show(f"{output}: {written:,} bytes, {size.weights:,} weights, {bits}")

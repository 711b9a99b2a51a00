"""The command that measures speed: bench."""

from __future__ import annotations

from typing import Annotated

import typer

from fewbit.cli.options import Device, FormatOption, Json, Kv, ModelName, Threads, open_model
from fewbit.cli.progress import progress
from fewbit.cli.writing import RunActs
from fewbit.errors import InputError
from fewbit.measure import speed as benches
from fewbit.reports import write as report
from fewbit.run.limits import activations_named


def bench(
    model: ModelName = None,
    format_: FormatOption = None,
    prompt: Annotated[int, typer.Option("--prompt", "-p", help="Tokens in the prompt.")] = 512,
    generate: Annotated[
        int, typer.Option("--generate", "-n", help="Tokens to generate one by one.")
    ] = 128,
    depth: Annotated[
        str,
        typer.Option(
            "--depth",
            "-d",
            help="Tokens in the KV cache beforehand, comma-separated, for example 0,2048.",
        ),
    ] = "0",
    sequences: Annotated[
        int, typer.Option("--sequences", "-s", help="Sequences that generate at the same time.")
    ] = 1,
    repetitions: Annotated[
        int, typer.Option("--repetitions", "-r", help="Repetitions after one warm-up.")
    ] = 5,
    acts: RunActs = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Measure tokens per second of prompts and generation, beside the memory's read rate."""
    loaded = open_model(model, format_, threads, device, kv)
    with progress("bench") as update:
        result = benches.bench(
            loaded,
            prompt=prompt,
            generate=generate,
            depths=_numbers(depth),
            sequences=sequences,
            repetitions=repetitions,
            acts=activations_named(acts),
            threads=threads,
            progress=update,
        )
    if json:
        report.write_json(result)
    else:
        report.show(*result.page())


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"`--depth` takes comma-separated numbers, got `{text}`", hint="for example 0,2048"
        ) from None

"""The command that measures speed: bench, of several models, formats and numbers of threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Annotated

import typer

from fewbit._core import check_threads
from fewbit.cli.options import Device, FormatOptions, Json, Kv, names_of, prepared
from fewbit.cli.progress import progress
from fewbit.cli.writing import RunActs
from fewbit.errors import InputError
from fewbit.measure import speed as benches
from fewbit.reports import write as report
from fewbit.run.limits import activations_named


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="GGUF files, Hugging Face folders or hub names; the built-in demo if left out.",
            show_default=False,
        ),
    ] = None,
    format_: FormatOptions = None,
    prompt: Annotated[
        int, typer.Option("--prompt", "-p", metavar="N", help="Tokens in the prompt.")
    ] = 512,
    generate: Annotated[
        int, typer.Option("--generate", "-n", metavar="N", help="Tokens to generate one by one.")
    ] = 128,
    depth: Annotated[
        str,
        typer.Option(
            "--depth",
            "-d",
            metavar="N,...",
            help="Tokens in the KV cache beforehand, comma-separated, for example 0,2048.",
        ),
    ] = "0",
    sequences: Annotated[
        int,
        typer.Option(
            "--sequences", "-s", metavar="N", help="Sequences that generate at the same time."
        ),
    ] = 1,
    repetitions: Annotated[
        int, typer.Option("--repetitions", "-r", metavar="N", help="Repetitions after one warm-up.")
    ] = 5,
    acts: RunActs = "int8",
    threads: Annotated[
        str,
        typer.Option(
            "--threads",
            metavar="N,...",
            help="Numbers of threads, comma-separated, for example 1,2; 0 uses all cores.",
        ),
    ] = "0",
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Measure tokens per second of prompts and generation, and what limits each.

    Every model runs in every format with every number of threads. The limit is memory or arithmetic
    if the speed is half or more of the memory's read rate or of the peak of int8 multiply-adds,
    threads if all cores would raise that bound, cache if the weights fit in it, overhead otherwise.
    """
    kind, depths, counts = activations_named(acts), _numbers("--depth", depth), _threads(threads)
    names: Sequence[str | None] = models or [None]
    formats: Sequence[str | None] = names_of(format_ or ()) or [None]
    cases = list(product(names, formats, counts))
    loaded = [prepared(name, chosen, count, device, kv) for name, chosen, count in cases]
    results = []
    for (name, chosen, count), model in zip(cases, loaded, strict=True):
        title = " ".join(filter(None, ["bench", name, chosen, f"{count} threads" if count else ""]))
        with model, progress(title) as update:
            found = benches.bench(
                model, prompt=prompt, generate=generate, depths=depths, sequences=sequences,
                repetitions=repetitions, acts=kind, threads=count, progress=update,
            )  # fmt: skip
        results.append(replace(found, model=name or found.model))
    if json:
        report.write_json(results if len(results) > 1 else results[0])
    else:
        report.show(*benches.bench_page(results))


def _threads(text: str) -> list[int]:
    """The numbers that `--threads` names.

    Raises:
        InputError: one is not a number of threads.

    """
    return [check_threads(count) for count in _numbers("--threads", text)]


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"`{option}` takes comma-separated numbers, got `{text}`",
            hint=f"for example {'1,2' if option == '--threads' else '0,2048'}",
        ) from None

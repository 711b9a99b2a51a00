"""Options that several subcommands share, and how they open models and texts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from fewbit.api import Model, load
from fewbit.cli.progress import progress
from fewbit.demo import demo_or, demo_text, is_demo
from fewbit.errors import InputError
from fewbit.run.limits import ACTIVATIONS, Activations, activations_named, kv_type_named

ModelName: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A GGUF file, a Hugging Face folder or a hub name (owner/repository, "
        "owner/repository:Q4_K_M); the built-in demo if left out.",
        show_default=False,
    ),
]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", show_default=False,
        help="A GGUF file, a Hugging Face folder or a hub name (owner/repository, "
        "owner/repository:Q4_K_M); the built-in demo if left out.",
    ),
]  # fmt: skip
FormatOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="Quantize the model to this format first, for example Q4_0 or Q4_K_M.",
        show_default=False,
    ),
]
Text: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--text",
        "-t",
        help="Text file to measure on (UTF-8); `demo` is the demo's own, its default.",
        show_default=False,
    ),
]
Ctx: TypeAlias = Annotated[int, typer.Option("--ctx", "-c", help="Tokens in a window.")]
Chunks: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--chunks", help="Number of windows to measure (default: all).", show_default=False
    ),
]
Acts: TypeAlias = Annotated[
    str, typer.Option("--acts", help="Activations: f32 (exact), int8 (fast) or both.")
]
Threads: TypeAlias = Annotated[
    int, typer.Option("--threads", help="Number of threads; 0 uses all cores.", min=0)
]
Device: TypeAlias = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, gpu, or gpu:N with N from `fewbit devices`."),
]
Kv: TypeAlias = Annotated[
    str, typer.Option("--kv", help="Type of keys and values in the KV cache: f32, f16 or int8.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


def model_path(name: str | None) -> str:
    """The path of the model called `name`; None and `demo` mean the built-in one."""
    return str(demo_or(name))


def open_model(
    name: str | None,
    format_: str | None = None,
    threads: int = 0,
    device: str = "auto",
    kv: str = "f32",
) -> Model:
    """Load the model called `name`, or the demo, quantized to `format_` if one is given."""
    path = model_path(name)
    with progress("loading" if format_ is None else f"quantizing to {format_}") as update:
        kind = kv_type_named(kv)
        model = load(path, device, recipe=format_, threads=threads, kv=kind, progress=update)
        _ = model.executor  # packs the weights now, while progress is shown
    return model


def read_text(path: Path | None, model: str | None) -> str:
    """The text of `path`, or the demo's own text for `demo` and for the demo model.

    Raises:
        InputError: another model has no text of its own, or the file is not UTF-8.

    """
    if is_demo(model if path is None else path):
        return demo_text()
    if path is None:
        raise InputError(
            "no text to measure on", hint="name a file with `--text FILE`, or `--text demo`"
        )
    data = path.read_bytes()
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode()
    raise InputError(f"`{path}` is not UTF-8 text", hint="save the text as UTF-8", path=str(path))


def each_acts(acts: str) -> tuple[Activations, ...]:
    """The kinds of activations that `--acts` names.

    Raises:
        InputError: the option names no kind.

    """
    if acts == "both":
        return ("f32", "int8")
    if acts in ACTIVATIONS:
        return (activations_named(acts),)
    raise InputError(f"unknown activations `{acts}`", hint="known: f32, int8, both", acts=acts)

"""Options that several subcommands share, and how they open models and texts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from fewbit.api import Model, is_from_demo, load
from fewbit.callbacks import Progress
from fewbit.cli.progress import progress
from fewbit.demo import demo_or, demo_text, is_demo
from fewbit.errors import InputError, did_you_mean
from fewbit.files.checkpoint import open_checkpoint
from fewbit.recipes.mixtures import FILE_TYPES, OTHER_FILE_TYPES
from fewbit.run.limits import ACTIVATIONS, Activations, activations_named, kv_type_named


def complete_format(incomplete: str) -> list[str]:
    """The formats and mixtures that begin so, for completion in shells; the last of several."""
    before, comma, start = incomplete.rpartition(",")
    known = dict.fromkeys([*FILE_TYPES, *OTHER_FILE_TYPES])
    return [before + comma + name for name in known if name.startswith(start.upper())]


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
        metavar="FORMAT",
        autocompletion=complete_format,
        help="Quantize the model to this format first, for example Q4_0 or Q4_K_M.",
        show_default=False,
    ),
]
FormatOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        autocompletion=complete_format,
        help="Quantize the model to this format first, for example Q4_0 or Q4_K_M; several with "
        "commas or one -f each.",
        show_default=False,
    ),
]
Text: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--text",
        "-t",
        metavar="FILE",
        help="Text file to measure on (UTF-8); `demo` is the demo's own text, the default for the "
        "demo and models made from it.",
        show_default=False,
    ),
]
Ctx: TypeAlias = Annotated[
    int, typer.Option("--ctx", "-c", metavar="N", help="Tokens in a window.")
]
Chunks: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--chunks",
        metavar="N",
        help="Number of windows to measure (default: all).",
        show_default=False,
    ),
]
Acts: TypeAlias = Annotated[
    str,
    typer.Option("--acts", metavar="TYPE", help="Activations: f32 (exact), int8 (fast) or both."),
]
Threads: TypeAlias = Annotated[
    int, typer.Option("--threads", metavar="N", help="Number of threads; 0 uses all cores.", min=0)
]
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", help="auto, cpu, gpu, or gpu:N with N from `fewbit devices`."
    ),
]
Kv: TypeAlias = Annotated[
    str,
    typer.Option(
        "--kv", metavar="TYPE", help="Type of keys and values in the KV cache: f32, f16 or int8."
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


def model_path(name: str | None) -> str:
    """The path of the model called `name`; None and `demo` mean the built-in one."""
    return str(demo_or(name))


def names_of(formats: Sequence[str]) -> list[str]:
    """Split the items of `formats` at commas into names.

    Raises:
        InputError: there are texts, but no name in them.

    """
    names = [name.strip() for text in formats for name in text.split(",")]
    if formats and not any(names):
        raise InputError("`--format` names no format", hint="for example `--format Q8_0,Q4_0`")
    return [name for name in names if name]


def prepared(
    name: str | None,
    format_: str | None = None,
    threads: int = 0,
    device: str = "auto",
    kv: str = "f32",
    progress: Progress | None = None,
) -> Model:
    """Open the model called `name`, or the demo; weights are encoded and packed when it runs."""
    kind = kv_type_named(kv)
    return load(
        model_path(name), device, recipe=format_, threads=threads, kv=kind, progress=progress
    )


def open_model(
    name: str | None,
    format_: str | None = None,
    threads: int = 0,
    device: str = "auto",
    kv: str = "f32",
) -> Model:
    """Load the model called `name`, or the demo, quantized to `format_` if one is given."""
    with progress("loading" if format_ is None else f"quantizing to {format_}") as update:
        model = prepared(name, format_, threads, device, kv, update)
        _ = model.executor  # packs the weights now, while progress is shown
    return model


def read_text(path: Path | None, model: str | None) -> str:
    """The text of `path`, or the demo's own for `demo`, the demo, and models made from it.

    Raises:
        InputError: another model has no text of its own, or the file is not UTF-8.

    """
    if is_demo(model if path is None else path):
        return demo_text()
    if path is None and model is not None and is_from_demo(open_checkpoint(model)):
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
    raise InputError(
        f"unknown activations `{acts}`",
        hint=f"{did_you_mean(acts, ('f32', 'int8', 'both'))}known: f32, int8, both",
        acts=acts,
    )

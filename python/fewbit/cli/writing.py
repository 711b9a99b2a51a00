"""The command `generate`, and what it shares with `chat`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from fewbit.cli.options import (
    Device,
    FormatOption,
    Json,
    Kv,
    ModelOption,
    Threads,
    open_model,
)
from fewbit.cli.progress import stderr
from fewbit.cli.sampling import Given, facts_of, sampling_of, with_sampling
from fewbit.generation.text import Generation
from fewbit.generation.text import generate as write
from fewbit.reports import write as report
from fewbit.run.limits import activations_named

MaxTokens: TypeAlias = Annotated[
    int,
    typer.Option("--max-tokens", "-n", metavar="N", help="Maximum number of tokens to generate."),
]
RunActs: TypeAlias = Annotated[
    str, typer.Option("--acts", metavar="TYPE", help="Activations: int8 (fast) or f32 (exact).")
]
PromptCache: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--prompt-cache",
        metavar="FILE",
        show_default=False,
        help="Keep the prompt's KV cache in FILE: what the next prompt shares is not read again.",
    ),
]


@with_sampling
def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="Beginning of the text; - reads it from stdin.")
    ],
    given: Given,
    model: ModelOption = None,
    format_: FormatOption = None,
    max_tokens: MaxTokens = 256,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="Stop before this text; can be repeated.", show_default=False),
    ] = None,
    special: Annotated[
        bool, typer.Option("--special", help="Show special tokens, such as the end token.")
    ] = False,
    prompt_cache: PromptCache = None,
    acts: RunActs = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Continue a prompt: text streams to stdout, counts and speed go to stderr."""
    kind = activations_named(acts)
    loaded = open_model(model, format_, threads, device, kv)
    sampling = sampling_of(loaded, given)
    text = sys.stdin.read() if prompt == "-" else prompt
    made = write(
        loaded, text, max_tokens=max_tokens, sampling=sampling, stop=stop or (), acts=kind,
        skip_special=not special, prompt_cache=prompt_cache,
    )  # fmt: skip
    if json:
        for _ in made:
            pass
        report.write_json(facts(made))
        return
    first = next(made, "")  # a prompt that is refused leaves nothing on stdout
    if special:
        text = loaded.tokenizer.decode(made.prompt, skip_special=False)
    sys.stdout.write(text + first)
    _write_pieces(made)
    note(made)


def _write_pieces(made: Generation) -> None:
    for piece in made:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def note(made: Generation) -> None:
    """Tell counts, speed and seed on stderr."""
    prompt = len(made.prompt) / made.prompt_seconds if made.prompt_seconds else 0.0
    seed = "" if made.sampling.greedy else f", seed {made.sampling.seed}"
    stderr().print(
        f"{len(made.prompt)} token{'s' if len(made.prompt) != 1 else ''} read ({prompt:,.0f}/s), "
        f"{len(made.tokens)} written ({made.tokens_per_second:,.0f}/s){seed}"
    )
    if made.finish == "context":
        stderr().print("the text ends here because the context is full")


def facts(made: Generation) -> dict[str, object]:
    """Text, counts, speed and options of a generation for JSON."""
    return {
        "text": made.text,
        "finish": made.finish,
        "prompt_tokens": len(made.prompt),
        "tokens": len(made.tokens),
        "prompt_seconds": made.prompt_seconds,
        "tokens_per_second": made.tokens_per_second,
        "sampling": facts_of(made.sampling),
    }

"""Commands that make a model write: generate, chat."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import sys
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import typer

from fewbit.cli.options import (
    Device,
    FormatOption,
    Json,
    Kv,
    ModelName,
    ModelOption,
    Threads,
    open_model,
)
from fewbit.cli.progress import stderr
from fewbit.errors import InputError
from fewbit.generation.conversation import Conversation, Reply
from fewbit.generation.text import Generation
from fewbit.generation.text import generate as write
from fewbit.reports import write as report
from fewbit.run.limits import activations_named
from fewbit.run.sampling import Sampling

MaxTokens: TypeAlias = Annotated[
    int, typer.Option("--max-tokens", "-n", help="Maximum number of tokens to generate.")
]
Temperature: TypeAlias = Annotated[
    float, typer.Option(help="Randomness of the choice; 0 always takes the likeliest token.")
]
TopK: TypeAlias = Annotated[
    int, typer.Option(help="Choose among the k likeliest tokens; 0 means all.")
]
TopP: TypeAlias = Annotated[
    float,
    typer.Option(help="Choose among the fewest tokens whose probabilities reach p; 1 means all."),
]
MinP: TypeAlias = Annotated[
    float,
    typer.Option(help="Leave out tokens below this fraction of the likeliest one's probability."),
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Seed of the random choice; the same seed writes the same text.", show_default=False
    ),
]
RunActs: TypeAlias = Annotated[
    str, typer.Option("--acts", help="Activations: int8 (fast) or f32 (exact).")
]


def generate(
    prompt: Annotated[str, typer.Argument(help="Beginning of the text; - reads it from stdin.")],
    model: ModelOption = None,
    format_: FormatOption = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.8,
    top_k: TopK = 40,
    top_p: TopP = 0.95,
    min_p: MinP = 0.05,
    seed: Seed = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="Stop before this text; can be repeated.", show_default=False),
    ] = None,
    acts: RunActs = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Continue a prompt: text streams to stdout, counts and speed go to stderr."""
    sampling = _sampling(temperature, top_k, top_p, min_p, seed)
    kind = activations_named(acts)
    loaded = open_model(model, format_, threads, device, kv)
    text = sys.stdin.read() if prompt == "-" else prompt
    made = write(loaded, text, max_tokens=max_tokens, sampling=sampling, stop=stop or (), acts=kind)
    if json:
        for _ in made:
            pass
        report.write_json(_facts(made, sampling))
        return
    sys.stdout.write(text)
    _write_pieces(made)
    _note(made, sampling)


def chat(
    model: ModelName = None,
    format_: FormatOption = None,
    system: Annotated[
        str | None,
        typer.Option(
            help="System message: an instruction for the whole conversation.", show_default=False
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            help="Context in tokens (default: the model's, at most 4096).", show_default=False
        ),
    ] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.8,
    top_k: TopK = 40,
    top_p: TopP = 0.95,
    min_p: MinP = 0.05,
    seed: Seed = None,
    acts: RunActs = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Talk with a model: type a line, read an answer; /reset starts anew, /exit ends.

    Reasoning before an answer is dim on a terminal; without a terminal it goes to stderr. With
    --json each answer is one line of JSON with the reasoning in a field of its own.
    """
    sampling = _sampling(temperature, top_k, top_p, min_p, seed)
    talk = Conversation(
        open_model(model, format_, threads, device, kv),
        system=system,
        context=context,
        acts=activations_named(acts),
    )
    if sys.stdin.isatty():
        stderr().print("/reset forgets the conversation, /exit ends it")
    for line in _lines():
        if line == "/exit":
            return
        if line == "/reset":
            talk.reset()
            stderr().print("forgotten")
        elif line:
            _turn(talk, line, max_tokens, sampling, json)


def _turn(talk: Conversation, line: str, max_tokens: int, sampling: Sampling, json: bool) -> None:
    reply = talk.ask(line, max_tokens=max_tokens, sampling=sampling)
    try:
        if json:
            for _ in reply:
                pass
            said = {"text": reply.text, "reasoning": reply.reasoning}
            report.write_json_line(_facts(reply.made, sampling) | said)
        else:
            show_reply(reply)
            _note(reply.made, sampling)
    except InputError as error:  # too long for the context: the talk can go on anew
        stderr().print(f"error: {error.message}\n\nhint: /reset forgets the conversation")
        return
    talk.remember(line, reply.text)


def show_reply(reply: Reply) -> None:
    """Write the answer to stdout, and reasoning dim on a terminal or else to stderr."""
    terminal = sys.stdout.isatty()
    dim, plain = ("\x1b[2m", "\x1b[0m") if terminal and not os.environ.get("NO_COLOR") else ("", "")
    before = "answer"
    for kind, text in reply:
        if kind != before:
            sys.stdout.write(f"{plain}\n\n" if kind == "answer" and terminal else dim)
        before = kind
        out = sys.stdout if terminal or kind == "answer" else sys.stderr
        out.write(text)
        out.flush()
    if before == "reasoning":
        sys.stdout.write(plain)
    sys.stdout.write("\n")
    sys.stdout.flush()


def _lines() -> Iterator[str]:
    """The lines that the user types at a prompt or pipes in."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield from (line.strip() for line in sys.stdin)
        return
    with contextlib.suppress(EOFError):
        while True:
            yield input("> ").strip()


def _sampling(
    temperature: float, top_k: int, top_p: float, min_p: float, seed: int | None
) -> Sampling:
    """The options, with a random seed if none is given, so that it can be printed and reused."""
    return Sampling(
        temperature, top_k, top_p, min_p, secrets.randbits(32) if seed is None else seed
    )


def _write_pieces(made: Generation) -> None:
    for piece in made:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def _note(made: Generation, sampling: Sampling) -> None:
    prompt = len(made.prompt) / made.prompt_seconds if made.prompt_seconds else 0.0
    seed = "" if sampling.greedy else f", seed {sampling.seed}"
    stderr().print(
        f"{len(made.prompt)} tokens read ({prompt:,.0f}/s), "
        f"{len(made.tokens)} written ({made.tokens_per_second:,.0f}/s){seed}"
    )
    if made.finish == "context":
        stderr().print("the text ends here because the context is full")


def _facts(made: Generation, sampling: Sampling) -> dict[str, object]:
    return {
        "text": made.text,
        "finish": made.finish,
        "prompt_tokens": len(made.prompt),
        "tokens": len(made.tokens),
        "prompt_seconds": made.prompt_seconds,
        "tokens_per_second": made.tokens_per_second,
        "sampling": dataclasses.asdict(sampling),
    }

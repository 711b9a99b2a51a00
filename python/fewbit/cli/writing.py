"""Commands that make a model write: generate, chat."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import sys
from collections.abc import Iterator
from json import loads as json_of
from typing import Annotated, TypeAlias

import typer

from fewbit.api import Model
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
from fewbit.generation.defaults import recommended
from fewbit.generation.text import Generation
from fewbit.generation.text import generate as write
from fewbit.reports import write as report
from fewbit.run.limits import activations_named
from fewbit.run.sampling import Sampling, sampling_from

MaxTokens: TypeAlias = Annotated[
    int,
    typer.Option("--max-tokens", "-n", metavar="N", help="Maximum number of tokens to generate."),
]
Temperature: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="Randomness of the choice; 0 always takes the likeliest token "
        "(default: the model's, or 0.8).",
        show_default=False,
    ),
]
TopK: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Choose among the k likeliest tokens; 0 means all (default: the model's, or 40).",
        show_default=False,
    ),
]
TopP: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="Choose among the fewest tokens whose probabilities reach p; 1 means all "
        "(default: the model's, or 0.95).",
        show_default=False,
    ),
]
MinP: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="Leave out tokens below this fraction of the likeliest one's probability "
        "(default: the model's, or 0.05).",
        show_default=False,
    ),
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Seed of the random choice; the same seed writes the same text.", show_default=False
    ),
]
RunActs: TypeAlias = Annotated[
    str, typer.Option("--acts", metavar="TYPE", help="Activations: int8 (fast) or f32 (exact).")
]


def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="Beginning of the text; - reads it from stdin.")
    ],
    model: ModelOption = None,
    format_: FormatOption = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
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
    sampling_from(None, temperature, top_k, top_p, min_p, seed)  # refuses before it loads
    kind = activations_named(acts)
    loaded = open_model(model, format_, threads, device, kv)
    sampling = _sampling(loaded, temperature, top_k, top_p, min_p, seed)
    text = sys.stdin.read() if prompt == "-" else prompt
    made = write(loaded, text, max_tokens=max_tokens, sampling=sampling, stop=stop or (), acts=kind)
    if json:
        for _ in made:
            pass
        report.write_json(_facts(made, sampling))
        return
    first = next(made, "")  # a prompt that is refused leaves nothing on stdout
    sys.stdout.write(text + first)
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
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    seed: Seed = None,
    acts: RunActs = "int8",
    template: Annotated[
        str | None,
        typer.Option(
            "--chat-template-kwargs",
            metavar="JSON",
            show_default=False,
            help='What the chat template is told, such as {"enable_thinking": false}.',
        ),
    ] = None,
    no_think: Annotated[
        bool,
        typer.Option("--no-think", help='Short for {"enable_thinking": false} to the template.'),
    ] = False,
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Talk with a model: type a line, read an answer; /reset starts anew, /exit ends.

    Ctrl-C stops an answer. If the context is full, the oldest turns are forgotten.

    Reasoning before an answer is dim on a terminal; without a terminal it goes to stderr. With
    --json each answer is one line of JSON with the reasoning in a field of its own.
    """
    sampling_from(None, temperature, top_k, top_p, min_p, seed)  # refuses before it loads
    options = _template_options(template, no_think)
    kind = activations_named(acts)
    loaded = open_model(model, format_, threads, device, kv)
    sampling = _sampling(loaded, temperature, top_k, top_p, min_p, seed)
    talk = Conversation(
        loaded, system=system, context=context, acts=kind, chat_template_kwargs=options
    )
    if sys.stdin.isatty():
        stderr().print(_HELP)
    for line in _lines():
        if line == "/exit":
            return
        if _is_command(line):
            _obey(talk, line, json)
        elif line:
            _turn(talk, line, max_tokens, sampling, json)


_HELP = "/reset forgets the conversation, /exit ends it, /help shows this; Ctrl-C stops an answer"


def _template_options(text: str | None, no_think: bool) -> dict[str, object]:
    """What `--chat-template-kwargs` and `--no-think` tell the chat template."""
    try:
        found = json_of("{}" if text is None else text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"`--chat-template-kwargs {text}` is not a JSON object",
            hint="""such as '{"enable_thinking": false}'""",
        )
    return found | ({"enable_thinking": False} if no_think else {})


def _is_command(line: str) -> bool:
    """Whether a line is `/` and a word, not a path or other text that begins with `/`."""
    return re.fullmatch(r"/[A-Za-z?]+", line) is not None


def _obey(talk: Conversation, line: str, json: bool) -> None:
    if line == "/reset":
        talk.reset()
    known = {"/reset": "forgotten", "/help": _HELP, "/?": _HELP}
    said = known.get(line, f"unknown command `{line}`\n\nhint: {_HELP}")
    stderr().print(said if line in known else f"error: {said}", markup=False)
    if json and line not in known:
        report.write_json_line({"text": "", "finish": "error", "message": said})


def _turn(talk: Conversation, line: str, max_tokens: int, sampling: Sampling, json: bool) -> None:
    try:
        reply = talk.ask(line, max_tokens=max_tokens, sampling=sampling)
        if reply.dropped:
            stderr().print(f"the context is full: the oldest turns are forgotten ({reply.dropped})")
        if json:
            for _ in reply:
                pass
            said = {"text": reply.text, "reasoning": reply.reasoning, "dropped": reply.dropped}
            report.write_json_line(_facts(reply.made, sampling) | said)
        else:
            _show_until_interrupt(reply)
            _note(reply.made, sampling)
    except InputError as error:  # the talk can go on with another text
        hint = error.hint or "/reset forgets the conversation"
        stderr().print(f"error: {error.message}\n\nhint: {hint}", markup=False)
        if json:
            report.write_json_line({"text": "", "finish": "error", "message": error.message})
        return
    talk.remember(line, reply.text)


def _show_until_interrupt(reply: Reply) -> None:
    """Show the answer; on a terminal Ctrl-C ends the answer, elsewhere the program."""
    try:
        show_reply(reply)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        reset = "" if os.environ.get("NO_COLOR") or not sys.stdout.isatty() else "\x1b[0m"
        sys.stdout.write(f"{reset}\n")
        sys.stdout.flush()
        stderr().print("stopped")


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
    with contextlib.suppress(ImportError):  # Windows has line editing of its own
        import readline  # noqa: F401 - `input` edits lines and recalls them once it is loaded
    with contextlib.suppress(EOFError):
        while True:
            yield input("> ").strip()


def _sampling(
    model: Model,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | None,
) -> Sampling:
    """The options given, else those the model's files recommend, told if not ours, else ours.

    A seed is drawn if none is given, so that it can be printed and reused.
    """
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    found = recommended(model.checkpoint)
    ours = dataclasses.asdict(Sampling())
    used = {
        name: value for name, value in found.items() if given[name] is None and value != ours[name]
    }
    if used and temperature != 0:
        said = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in used.items())
        stderr().print(f"sampling as the model recommends: {said}")
    base = Sampling(**found, seed=secrets.randbits(32) if seed is None else seed)
    return sampling_from(base, temperature, top_k, top_p, min_p, seed)


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
        f"{len(made.prompt)} token{'s' if len(made.prompt) != 1 else ''} read ({prompt:,.0f}/s), "
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

"""The command `chat`: a conversation on a terminal, or as lines of JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Callable
from json import loads as json_of
from typing import Annotated

import typer

from fewbit.cli.options import Device, FormatOption, Json, Kv, ModelName, Threads, open_model
from fewbit.cli.progress import stderr
from fewbit.cli.sampling import Given, sampling_of, with_sampling
from fewbit.cli.writing import MaxTokens, PromptCache, RunActs, facts, note
from fewbit.errors import InputError
from fewbit.generation.conversation import Conversation, Reply
from fewbit.reports import write as report
from fewbit.run.limits import activations_named
from fewbit.run.sampling import Sampling


@with_sampling
def chat(
    given: Given,
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
    reasoning_budget: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="End a reasoning after N tokens; -1 means no limit.",
        ),
    ] = -1,
    prompt_cache: PromptCache = None,
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:
    """Talk with a model: type a line, read an answer; /help lists the commands, /exit ends.

    A line that ends with a backslash goes on in the next one, and three double quotes enclose
    several lines. Ctrl-C stops an answer. If the context is full, the oldest turns are forgotten.

    Reasoning before an answer is dim on a terminal; without a terminal it goes to stderr. With
    --json each answer is one line of JSON with the reasoning in a field of its own.
    """
    options = _template_options(template, no_think)
    kind = activations_named(acts)
    loaded = open_model(model, format_, threads, device, kv)
    sampling = sampling_of(loaded, given)
    talk = Conversation(
        loaded, system=system, context=context, acts=kind, chat_template_kwargs=options,
        reasoning_budget=None if reasoning_budget == -1 else reasoning_budget,
    )  # fmt: skip
    if sys.stdin.isatty():
        stderr().print(_HELP, markup=False)
    if prompt_cache is not None and prompt_cache.exists():
        talk.session.load(prompt_cache)
    try:
        _Chat(talk, max_tokens, sampling, json).run(_reader())
    finally:
        if prompt_cache is not None and talk.session.ids:
            talk.session.save(prompt_cache)


_COMMANDS = {
    "/undo": "forgets the last turn",
    "/regen": "answers it again",
    "/reset": "forgets the conversation",
    "/exit": "ends it",
    "/help": "shows this",
}
_HELP = (
    ", ".join(f"{name} {does}" for name, does in _COMMANDS.items())
    + '; \\ at the end of a line or """ around several go on; Ctrl-C stops an answer'
)


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


class _Chat:
    """A conversation that reads texts and commands, and writes answers."""

    def __init__(self, talk: Conversation, max_tokens: int, sampling: Sampling, json: bool) -> None:
        self._talk, self._max_tokens, self._json = talk, max_tokens, json
        self._sampling = sampling

    def run(self, read: Callable[[str], str | None]) -> None:
        """Answer each text that `read` gives, until it ends or says `/exit`."""
        while (text := next_text(read)) not in (None, "/exit"):
            if _is_command(text):
                self._obey(text)
            elif text:
                self._answer(text, self._sampling)

    def _obey(self, command: str) -> None:
        match command:
            case "/reset":
                self._talk.reset()
                stderr().print("forgotten")
            case "/undo":
                stderr().print("forgotten" if self._talk.undo() else "there is nothing to forget")
            case "/regen":
                self._regenerate()
            case "/help" | "/?":
                stderr().print(_HELP, markup=False)
            case _:
                self._fail(f"unknown command `{command}`", _HELP)

    def _regenerate(self) -> None:
        """Answer the last text again, with the next seed so that the answer is another."""
        turn = self._talk.undo()
        if not turn:
            self._fail("there is no answer to make again", "type a text first")
            return
        self._sampling = dataclasses.replace(
            self._sampling, seed=((self._sampling.seed or 0) + 1) % 2**64
        )
        if not self._answer(turn[0]["content"], self._sampling):
            self._talk.messages.extend(turn)

    def _answer(self, text: str, sampling: Sampling) -> bool:
        """Answer and remember; False if the text is refused."""
        talk = self._talk
        try:
            reply = talk.ask(text, max_tokens=self._max_tokens, sampling=sampling)
            if reply.dropped:
                said = f"the context is full: the oldest turns are forgotten ({reply.dropped})"
                stderr().print(said)
            if self._json:
                for _ in reply:
                    pass
                said_too = {"reasoning": reply.reasoning, "dropped": reply.dropped}
                report.write_json_line(facts(reply.made) | {"text": reply.text} | said_too)
            else:
                _show_until_interrupt(reply)
                note(reply.made)
        except InputError as error:  # the talk can go on with another text
            self._fail(error.message, error.hint or "/reset forgets the conversation")
            return False
        talk.remember(text, reply.text)
        return True

    def _fail(self, message: str, hint: str) -> None:
        stderr().print(f"error: {message}\n\nhint: {hint}", markup=False)
        if self._json:
            report.write_json_line({"text": "", "finish": "error", "message": message})


def next_text(read: Callable[[str], str | None]) -> str | None:
    """The next text, None at the end; `read` gives a line for a prompt, None at the end.

    A line that ends with a backslash goes on in the next one. Three double quotes begin a text of
    several lines, which the next three end.

    >>> lines = iter(["one\\\\", "two", '\"\"\"three', '', 'four\"\"\"'])
    >>> next_text(lambda prompt: next(lines)), next_text(lambda prompt: next(lines))
    ('one\\ntwo', 'three\\n\\nfour')
    """
    line = read("> ")
    if line is None:
        return None
    text = line.strip()
    if text.startswith(_QUOTES):
        return _quoted(line.lstrip()[len(_QUOTES) :], read)
    while text.endswith("\\"):
        line = read("... ")
        text = text[:-1] + "\n" + (line or "").rstrip()
    return text.strip()


_QUOTES = '"""'


def _quoted(text: str, read: Callable[[str], str | None]) -> str:
    while _QUOTES not in text:
        line = read("... ")
        if line is None:
            return text.strip()
        text = f"{text}\n{line}"
    return text.partition(_QUOTES)[0].strip()


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


def _reader() -> Callable[[str], str | None]:
    """What reads a line that the user types at a prompt, or pipes in; None at the end."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _piped
    with contextlib.suppress(ImportError):  # Windows has line editing of its own
        import readline  # noqa: F401 - `input` edits lines and recalls them once it is loaded
    return _typed


def _piped(_: str) -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def _typed(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        return None

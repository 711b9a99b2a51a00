"""Separate a model's reasoning from its answer while text is generated.

Two kinds of markers are known: ``<think>`` ... ``</think>`` before the answer (Qwen, DeepSeek), and
the channels of GPT-OSS's harmony format, ``<|channel|>analysis<|message|>`` ... ``<|end|>``, whose
channel ``final`` is the answer. Text may arrive cut anywhere, even inside a marker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, TypeAlias

from fewbit.tokenizer.tokenizer import Tokenizer

OPENING, CLOSING = "<think>", "</think>"
START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
ENDS = ("<|end|>", "<|return|>", "<|call|>")
HARMONY = (START, CHANNEL, MESSAGE, *ENDS, "<|constrain|>")
ANSWER_CHANNEL = "final"


Kind: TypeAlias = Literal["answer", "reasoning", "tool_call"]


class Piece(NamedTuple):
    """Some text: of the answer, of the reasoning before it, or of a call of a tool."""

    kind: Kind
    text: str


class Splitter(Protocol):
    """Takes text as it arrives and gives it back as pieces of a known kind."""

    def push(self, text: str) -> Iterator[Piece]:
        """The pieces that `text` completes; a possible beginning of a marker waits."""
        ...

    def finish(self) -> Iterator[Piece]:
        """The text that waited, which was no marker."""
        ...


def splitter(tokenizer: Tokenizer, prompt: str, tools: bool = False) -> Thinking | Harmony:
    """The splitter for text after `prompt`, which the model's chat template wrote.

    With `tools`, harmony's messages to functions are calls.
    """
    vocab = tokenizer.vocab
    if CHANNEL in vocab and MESSAGE in vocab:
        return Harmony(prompt, tools)
    return Thinking(prompt)


def marker_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of marker tokens, which must show in the text although they are special."""
    spelled = (OPENING, CLOSING, *HARMONY)
    return frozenset(id_ for text in spelled if (id_ := tokenizer.vocab.get(text)) is not None)


class Thinking:
    """``<think>`` ... ``</think>``: before the answer or not at all.

    A template may open it in the prompt already. White space around the markers is left out.
    """

    def __init__(self, prompt: str = "") -> None:
        opened = prompt.rstrip().endswith(OPENING)
        self._state: Literal["before", "within", "after"] = "within" if opened else "before"
        self._held = ""
        self._bare = True  # nothing but white space since the last marker

    @property
    def reasons(self) -> bool:
        """Whether the next text belongs to the reasoning."""
        return self._state == "within"

    def push(self, text: str) -> Iterator[Piece]:
        """See `Splitter`."""
        self._held += text
        if self._state == "before":
            self._begin()
        if self._state == "within":
            yield from self._think()
        if self._state == "after":
            yield from self._show("answer", len(self._held))

    def finish(self) -> Iterator[Piece]:
        """See `Splitter`."""
        if self._state == "before":
            self._state, self._bare = "after", False
        if self._state == "within":
            yield from self._show("reasoning", len(self._held.rstrip()))
        else:
            yield from self._show("answer", len(self._held))

    def _begin(self) -> None:
        """Decide whether the text begins with the opening marker, once it is long enough."""
        text = self._held.lstrip()
        if text.startswith(OPENING):
            self._state, self._held = "within", text[len(OPENING) :]
        elif not OPENING.startswith(text):
            self._state, self._bare = "after", False

    def _think(self) -> Iterator[Piece]:
        at = self._held.find(CLOSING)
        if at < 0:
            ready = self._held[: len(self._held) - held_back(self._held, (CLOSING,))]
            yield from self._show("reasoning", len(ready.rstrip()))
            return
        rest = self._held[at + len(CLOSING) :]
        yield from self._show("reasoning", len(self._held[:at].rstrip()))
        self._held = rest
        self._state, self._bare = "after", True

    def _show(self, kind: Literal["answer", "reasoning"], length: int) -> Iterator[Piece]:
        """The first `length` characters that wait, less the white space behind a marker."""
        text, self._held = self._held[:length], self._held[length:]
        if self._bare:
            text = text.lstrip()
        if text:
            self._bare = False
            yield Piece(kind, text)


class Harmony:
    """GPT-OSS's messages: a header with a channel, ``<|message|>``, a body, and an end.

    With `tools`, a message to a function is a call: its header comes with it.
    """

    def __init__(self, prompt: str = "", tools: bool = False) -> None:
        self._held = ""
        self._header: str | None = None
        self._kind: Kind = "answer"
        self._tools = tools
        begun = prompt.rfind(START)
        if begun >= 0:  # the prompt may have begun the answer's message
            for _ in self.push(prompt[begun:]):
                pass
        self._given: int | None = len(self._header or "")  # None once a message has begun

    @property
    def reasons(self) -> bool:
        """Whether the next text belongs to the body of a message that is reasoning."""
        return self._header is None and self._kind == "reasoning"

    def push(self, text: str) -> Iterator[Piece]:
        """See `Splitter`."""
        self._held += text
        while (found := first_of(self._held, HARMONY)) is not None:
            at, marker = found
            yield from self._take(at)
            self._held = self._held[len(marker) :]
            yield from self._pass(marker)
        yield from self._take(len(self._held) - held_back(self._held, HARMONY))

    def finish(self) -> Iterator[Piece]:
        """See `Splitter`; text without any marker is an answer."""
        yield from self._take(len(self._held))
        header = self._header
        if header is None or self._given is None or CHANNEL in header:
            return
        if text := header[self._given :]:
            yield Piece("answer", text)

    def _take(self, length: int) -> Iterator[Piece]:
        """The first `length` characters that wait: a body's are shown, a header's kept."""
        text, self._held = self._held[:length], self._held[length:]
        if self._header is not None:
            self._header += text
        elif text:
            yield Piece(self._kind, text)

    def _pass(self, marker: str) -> Iterator[Piece]:
        if marker == MESSAGE:
            header = self._header or ""
            _, named, channel = header.rpartition(CHANNEL)
            name = channel.split()[:1]
            self._kind = "answer" if not named or name == [ANSWER_CHANNEL] else "reasoning"
            if self._tools and "to=functions." in header:
                self._kind = "tool_call"
                yield Piece("tool_call", header + MESSAGE)
            self._header = self._given = None
        elif marker == START:
            self._header = ""
        elif marker == CHANNEL:
            self._header = (self._header or "") + CHANNEL


def first_of(text: str, markers: tuple[str, ...]) -> tuple[int, str] | None:
    """Where the first of `markers` in `text` begins, and which it is."""
    found = [(at, marker) for marker in markers if (at := text.find(marker)) >= 0]
    return min(found, default=None)


def held_back(text: str, markers: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may begin a marker."""
    return max(
        (n for m in markers for n in range(1, min(len(m), len(text) + 1)) if text.endswith(m[:n])),
        default=0,
    )

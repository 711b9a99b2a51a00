"""Tool calls in a model's answer, in the formats that models are trained to write.

- Hermes, Qwen, SmolLM: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``
- Qwen 3 Coder and later: ``<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function>``
- Llama 3: ``{"name": ..., "parameters": {...}}``, alone or behind ``<|python_tag|>``
- Mistral: ``[TOOL_CALLS][{"name": ..., "arguments": {...}}]`` or ``[TOOL_CALLS]NAME[ARGS]{...}``
- Phi 4: ``<|tool_call|>[{"name": ..., "arguments": {...}}]<|/tool_call|>``
- GPT-OSS: ``<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>``
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fewbit.generation.reasoning import MESSAGE, Piece, Splitter, first_of, held_back
from fewbit.tokenizer.tokenizer import Tokenizer

Tool: TypeAlias = Mapping[str, Any]
"""A function as OpenAI describes one: `{"type": "function", "function": {"name": ..., ...}}`."""
ToolCall: TypeAlias = dict[str, Any]
"""OpenAI's call: `id`, `type` and `function` with `name` and `arguments`, here a dict."""

OPENINGS = ("<tool_call>", "<|tool_call|>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")
_SPELLED = (*OPENINGS, "</tool_call>", "<|/tool_call|>", "[ARGS]", "[CALL_ID]")
_IGNORED = re.compile(r"</?tool_call>|<\|/?tool_call\|>|<\|python_tag\|>|[\s,;]+")
_HARMONY = re.compile(r"to=functions\.([\w.-]+)[^{]*?" + re.escape(MESSAGE))
_XML = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_MISTRAL = re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\s*(\w+)\s*)?(?:\[ARGS\])?\s*(?=\{)")


def tool_marker_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of tokens that mark calls, which must show in the text although they are special."""
    return frozenset(id_ for text in _SPELLED if (id_ := tokenizer.vocab.get(text)) is not None)


class Calls:
    """A splitter that takes the calls out of another one's answers, as pieces `tool_call`.

    From the first opening marker on all of an answer belongs to calls; so does an answer that
    begins with a brace, until `parse` finds that it is none.
    """

    def __init__(self, inner: Splitter) -> None:
        self._inner = inner
        self._held = ""
        self._state = "before"  # any answer, then "within" an answer, or a "call"

    def push(self, text: str) -> Iterator[Piece]:
        """See `Splitter`."""
        yield from self._sort(self._inner.push(text))

    def finish(self) -> Iterator[Piece]:
        """See `Splitter`."""
        yield from self._sort(self._inner.finish())
        if self._held:
            yield Piece("answer", self._held)

    def _sort(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            if piece.kind != "answer":
                yield piece
                continue
            self._held += piece.text
            yield from self._take()

    def _take(self) -> Iterator[Piece]:
        if self._state == "before" and (begun := self._held.lstrip()):
            self._state = "call" if begun[0] == "{" else "within"
        if self._state == "within" and (found := first_of(self._held, OPENINGS)) is not None:
            before = self._held[: found[0]].rstrip()
            if before:
                yield Piece("answer", before)
            self._state, self._held = "call", self._held[found[0] :]
        if self._state == "call":
            text, self._held = self._held, ""
            yield Piece("tool_call", text)
        elif self._state == "within":
            ready = len(self._held) - held_back(self._held, OPENINGS)
            ready = len(self._held[:ready].rstrip())  # white space before a call is no answer
            if ready:
                text, self._held = self._held[:ready], self._held[ready:]
                yield Piece("answer", text)


def parse(text: str, tools: Sequence[Tool], first_id: int = 0) -> list[ToolCall]:
    """The calls that `text` holds; none if it cannot be read as calls.

    Calls without an id get one of nine digits, as Mistral's templates want, from `first_id` on.
    """
    known = {name_of(tool) for tool in tools}
    marked = MESSAGE in text or first_of(text, OPENINGS) is not None
    try:
        found = list(_read(text, tools))
    except (ValueError, RecursionError, TypeError):
        return []
    if not all(isinstance(f[1], dict) for f in found) or not (
        marked or all(name in known for name, _, _ in found)
    ):
        return []
    return [
        {
            "id": id_ or f"{(first_id + index) % 10**9:09d}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for index, (name, arguments, id_) in enumerate(found)
    ]


def name_of(tool: Tool) -> str:
    """The name of a function; it may be described without OpenAI's frame."""
    return str(_function(tool).get("name", ""))


def _function(tool: Tool) -> Mapping[str, Any]:
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


_Read: TypeAlias = tuple[str, Any, str | None]
"""Name, arguments and id of a call."""


def _read(text: str, tools: Sequence[Tool]) -> Iterator[_Read]:
    if MESSAGE in text:
        for found in _HARMONY.finditer(text):
            yield found[1], _value_at(text, found.end())[0], None
    elif "<function=" in text:
        yield from _read_xml(text, tools)
    elif "[TOOL_CALLS]" in text:
        for each in text.split("[TOOL_CALLS]")[1:]:
            yield from _read_mistral(each)
    else:
        yield from _read_json(text)


def _read_json(text: str) -> Iterator[_Read]:
    """JSON objects or lists of them, whatever markers lie between."""
    at = 0
    while True:
        while (skipped := _IGNORED.match(text, at)) is not None:
            at = skipped.end()
        if at >= len(text):
            return
        value, at = _value_at(text, at)
        for each in value if isinstance(value, list) else [value]:
            yield _call(each)


def _call(value: Any) -> _Read:
    named = value.get("name") if isinstance(value, dict) else None
    if not isinstance(named, str):
        raise ValueError("a call has no name")
    given = value.get("arguments", value.get("parameters", {}))
    return named, json.loads(given) if isinstance(given, str) else given, value.get("id")


def _read_mistral(text: str) -> Iterator[_Read]:
    begun = text.lstrip()
    if begun.startswith(("[", "{")):
        yield from _read_json(begun)
        return
    at = 0
    while (found := _MISTRAL.match(begun, at)) is not None:
        arguments, at = _value_at(begun, found.end())
        yield found[1], arguments, found[2]
        at += len(begun[at:]) - len(begun[at:].lstrip())
    if at < len(begun) or at == 0:
        raise ValueError("not a call")


def _read_xml(text: str, tools: Sequence[Tool]) -> Iterator[_Read]:
    """Values are texts: the schema of the function says which of them are JSON."""
    for name, body in _XML.findall(text):
        described = next((t for t in tools if name_of(t) == name), {})
        schema = _function(described).get("parameters", {})
        kinds = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
        yield (
            name,
            {key: _typed(value, kinds.get(key)) for key, value in _PARAMETER.findall(body)},
            None,
        )


def _typed(text: str, schema: Any) -> Any:
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _value_at(text: str, at: int) -> tuple[Any, int]:
    at += len(text[at:]) - len(text[at:].lstrip())
    value, end = json.JSONDecoder().raw_decode(text, at)
    return value, end

"""Tool calls read out of answers, in the formats of several families, and put into prompts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.generation.conversation import Conversation, Reply, texts_of
from fewbit.generation.reasoning import Harmony, Splitter, Thinking
from fewbit.generation.tools import Calls, parse, tool_marker_ids
from fewbit.run.sampling import GREEDY
from tests.golden.loading import MODELS

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
TIME: dict[str, Any] = {"name": "time", "parameters": {}}
TOOLS = [WEATHER, TIME]
OSLO = ("get_weather", {"city": "Oslo", "days": 2})
NOW: tuple[str, dict[str, Any]] = ("time", {})
JSON = '{"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}'

CASES = {
    "hermes": (f"<tool_call>\n{JSON}\n</tool_call>", "", [OSLO]),
    "hermes, two behind an answer": (
        f"Let me see.\n\n<tool_call>\n{JSON}\n</tool_call>\n<tool_call>\n"
        '{"name": "time"}\n</tool_call>',
        "Let me see.",
        [OSLO, NOW],
    ),
    "hermes, cut off": (f"<tool_call>\n{JSON}", "", [OSLO]),
    "qwen coder": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        "",
        [OSLO],
    ),
    "qwen coder, a text that reads as a number": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n1770\n</parameter>\n</function>",
        "",
        [("get_weather", {"city": "1770"})],
    ),
    "llama 3": (
        '{"name": "get_weather", "parameters": {"city": "Oslo", "days": 2}}',
        "",
        [OSLO],
    ),
    "llama 3, two": ('{"name": "time", "parameters": {}}; {"name": "time"}', "", [NOW, NOW]),
    "llama 3, python tag": ('<|python_tag|>{"name": "time", "parameters": {}}', "", [NOW]),
    "llama 3, another object": ('{"name": "Ann", "age": 3}', '{"name": "Ann", "age": 3}', []),
    "mistral": (f"[TOOL_CALLS][{JSON}]", "", [OSLO]),
    "mistral 11": (
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo", "days": 2}[TOOL_CALLS]time[ARGS]{}',
        "",
        [OSLO, NOW],
    ),
    "phi 4": (f"<|tool_call|>[{JSON}]<|/tool_call|>", "", [OSLO]),
    "arguments as text": (
        '<tool_call>{"name": "time", "arguments": "{}"}</tool_call>',
        "",
        [NOW],
    ),
    "a damaged call": (
        '<tool_call>{"name": "time", </tool_call>',
        '<tool_call>{"name": "time", </tool_call>',
        [],
    ),
    "arguments that are none": (
        '<tool_call>{"name": "time", "arguments": 3}</tool_call>',
        '<tool_call>{"name": "time", "arguments": 3}</tool_call>',
        [],
    ),
    "no call": ("It is < 4 [TOOL] {so}.", "It is < 4 [TOOL] {so}.", []),
    "thinking first": (f"<think>\nHm.\n</think>\n\n<tool_call>{JSON}</tool_call>", "", [OSLO]),
}
HARMONY = {
    "a call": (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo", "days": 2}',
        "",
        [OSLO],
    ),
    "the receiver before the channel": (
        " to=functions.time<|channel|>commentary json<|message|>{}<|call|>",
        "",
        [NOW],
    ),
    "an answer": ("<|channel|>final<|message|>Dry.", "Dry.", []),
}


class Made(list[str]):
    """Stands for a `Generation` of these pieces."""

    prompt = (1, 2, 3)


def cuts(text: str) -> Iterator[list[str]]:
    """The text whole, in single characters, and in two pieces at every place."""
    yield list(text)
    for place in range(len(text) + 1):
        yield [text[a:b] for a, b in pairwise([0, place, len(text)])]


def check(splitters: Iterator[Splitter], text: str, answer: str, calls: list[Any]) -> None:
    for pieces, splitter in zip(cuts(text), splitters, strict=False):
        made: Any = Made(pieces)
        reply = Reply(made, splitter, TOOLS)
        shown = "".join(piece.text for piece in reply if piece.kind == "answer")
        found = [call["function"] for call in reply.tool_calls]
        assert shown == reply.text == answer, pieces
        assert [(f["name"], f["arguments"]) for f in found] == calls, pieces


@pytest.mark.parametrize("name", CASES)
def test_every_way_to_cut_a_call(name: str) -> None:
    check((Calls(Thinking()) for _ in itertools.count()), *CASES[name])


@pytest.mark.parametrize("name", HARMONY)
def test_every_way_to_cut_a_call_of_harmony(name: str) -> None:
    prompt = "<|start|>assistant"
    check((Harmony(prompt, tools=True) for _ in itertools.count()), *HARMONY[name])


def test_calls_have_ids() -> None:
    text = f"[TOOL_CALLS][{JSON}, {JSON}]"
    assert [call["id"] for call in parse(text, TOOLS, 3000)] == ["000003000", "000003001"]
    given = "[TOOL_CALLS]time[CALL_ID]a1B2c3D4e[ARGS]{}"
    assert [call["id"] for call in parse(given, TOOLS)] == ["a1B2c3D4e"]


def test_an_answer_without_calls_streams() -> None:
    calls = Calls(Thinking())
    pieces = [list(calls.push(text)) for text in ("Hi", " <", "b", "> there ", "<tool_")]
    assert [[p.text for p in each] for each in pieces] == [["Hi"], [], [" <b"], ["> there"], []]
    assert [p.text for p in calls.finish()] == [" <tool_"]


CHATML = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "{% if m.tool_call_id %} of {{ m.tool_call_id }}{% endif %}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def test_a_conversation_with_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt describes the tools, and holds the call and its result in the next turn."""
    model = fewbit.load(MODELS / "qwen3")
    model.tokenizer = dataclasses.replace(model.tokenizer, chat_template=CHATML)
    talk = Conversation(model, tools=TOOLS, context=512)
    reply = talk.ask("Weather in Oslo?", max_tokens=1, sampling=GREEDY)
    assert '"description": "The weather of a city."' in written(reply)
    reply.made = Made([f"<tool_call>\n{JSON}\n</tool_call>"])  # type: ignore[assignment]
    reply.made.prompt = [1, 2]
    assert (str(reply), len(reply.tool_calls)) == ("", 1)
    talk.remember("Weather in Oslo?", reply)
    assert talk.messages[-1] == reply.message
    result = {"role": "tool", "tool_call_id": reply.tool_calls[0]["id"], "content": "Rain"}
    again = written(talk.ask([result], max_tokens=1, sampling=GREEDY))
    assert '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}' in again
    assert "tool\nRain of 000002000<|im_end|>" in again


def written(reply: Reply) -> str:
    """The text of a reply's prompt."""
    tokenizer = reply.made._session.model.tokenizer
    return tokenizer.decode(reply.made.prompt, skip_special=False)


def test_reasoning_stays_with_a_call() -> None:
    made: Any = Made(["<think>Hm.</think>[TOOL_CALLS]time[ARGS]{}"])
    message = Reply(made, Calls(Thinking()), TOOLS).message
    assert message["reasoning_content"] == "Hm."
    call = HARMONY["the receiver before the channel"][0]
    made = Made([f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant{call}"])
    message = Reply(made, Harmony("<|start|>assistant", tools=True), TOOLS).message
    assert message["reasoning_content"] == "Hm."
    made = Made(["<think>Hm.</think>Hi."])
    assert Reply(made, Calls(Thinking()), TOOLS).message == {"role": "assistant", "content": "Hi."}


def test_arguments_as_text_become_dicts() -> None:
    """OpenAI's clients have the arguments as JSON, which templates would write as a text."""

    def message(arguments: Any) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": "time", "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    found = texts_of([message('{"a": 1}')])[0]
    assert found["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert found["content"] == ""
    with pytest.raises(InputError, match="the arguments of a tool call of message 1 are not JSON"):
        texts_of([message("{")])
    with pytest.raises(InputError, match="message 1 has a tool call without `function`"):
        texts_of([{"role": "assistant", "tool_calls": [{"name": "time"}]}])


def test_markers_that_are_special_tokens_show() -> None:
    vocab = {"[TOOL_CALLS]": 5, "<tool_call>": 9, "a": 1}
    tokenizer: Any = SimpleNamespace(vocab=vocab)
    assert tool_marker_ids(tokenizer) == {5, 9}

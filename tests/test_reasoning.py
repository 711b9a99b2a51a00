"""Reasoning separated from answers, however the text is cut into pieces."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

import fewbit
from fewbit.cli.chat import show_reply
from fewbit.files.checkpoint import open_checkpoint
from fewbit.generation.conversation import Conversation, Reply
from fewbit.generation.reasoning import Harmony, Splitter, Thinking, marker_ids, splitter
from fewbit.run.sampling import GREEDY
from fewbit.tokenizer.load import tokenizer_of as load_tokenizer
from fewbit.tokenizer.template import render
from fewbit.tokenizer.tokenizer import Tokenizer
from tests.golden.loading import asset

HARMONY = (
    "<|channel|>analysis<|message|>Let me see.\nYes.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>It is < 4 | so."
)
CASES: list[tuple[Callable[[], Splitter], str, str, str]] = [
    (Thinking, "<think>\nLet me see.\n\nYes.\n</think>\n\nIt is.", "Let me see.\n\nYes.", "It is."),
    (Thinking, "\n<think>a</think>b </think> <think>", "a", "b </think> <think>"),
    (Thinking, "<think>\n\n</think>\n\nIt is.", "", "It is."),
    (Thinking, "<think>cut of", "cut of", ""),
    (Thinking, "<think>a < b </thin", "a < b </thin", ""),
    (Thinking, "It is <think>so</think>.", "", "It is <think>so</think>."),
    (Thinking, "<thin ice", "", "<thin ice"),
    (Thinking, "<th", "", "<th"),
    (Thinking, "  \n", "", "  \n"),
    (Thinking, "", "", ""),
    (lambda: Thinking("<|im_start|>assistant\n<think>\n"), "Yes.\n</think>\n\nSo.", "Yes.", "So."),
    (lambda: Thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "So.", "", "So."),
    (lambda: Harmony("<|start|>assistant"), HARMONY, "Let me see.\nYes.", "It is < 4 | so."),
    (Harmony, HARMONY, "Let me see.\nYes.", "It is < 4 | so."),
    (
        lambda: Harmony("<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>analysis"),
        "<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi.",
        "Hm.",
        "Hi.",
    ),
    (
        lambda: Harmony("<|start|>assistant<|channel|>final<|message|>"),
        "Hi <|chan of",
        "",
        "Hi <|chan of",
    ),
    (
        lambda: Harmony("<|start|>assistant"),
        "<|channel|>commentary to=f <|constrain|>json<|message|>{}<|call|>",
        "{}",
        "",
    ),
    (lambda: Harmony("<|start|>assistant"), "No channels.", "", "No channels."),
    (lambda: Harmony("<|start|>assistant"), "<|channel|>anal", "", ""),
    (lambda: Harmony("no markers"), "Hi.", "", "Hi."),
]


def told(parts: Splitter, pieces: Iterable[str]) -> tuple[str, str]:
    """The reasoning and the answer."""
    found = [piece for text in pieces for piece in parts.push(text)] + list(parts.finish())
    assert all(piece.text for piece in found)
    kinds = {
        kind: "".join(p.text for p in found if p.kind == kind) for kind in ("answer", "reasoning")
    }
    return kinds["reasoning"], kinds["answer"]


def cuts(text: str) -> Iterator[list[str]]:
    """The text whole, in single characters, and in two and three pieces at every place."""
    yield [text]
    yield list(text)
    for places in (
        *combinations(range(len(text) + 1), 1),
        *combinations(range(0, len(text), 3), 2),
    ):
        ends = [0, *places, len(text)]
        yield [text[a:b] for a, b in pairwise(ends)]


@pytest.mark.parametrize(("make", "text", "reasoning", "answer"), CASES)
def test_every_way_to_cut_a_text(
    make: Callable[[], Splitter], text: str, reasoning: str, answer: str
) -> None:
    for pieces in cuts(text):
        assert told(make(), pieces) == (reasoning, answer), pieces


def test_what_is_certain_is_shown_at_once() -> None:
    parts = Thinking()
    assert [list(parts.push(text)) for text in ("<think>", "a", " b", "<", "c")] == [
        [], [("reasoning", "a")], [("reasoning", " b")], [], [("reasoning", "<c")],
    ]  # fmt: skip
    harmony = Harmony("<|start|>assistant")
    pieces = [list(harmony.push(t)) for t in ("<|channel|>", "final", "<|message|>", "Hi", "<|")]
    assert pieces == [[], [], [], [("answer", "Hi")], []]


QWEN, OSS = "qwen3_5-hub", "gpt_oss-mxfp4"


def tokenizer_of(name: str) -> Tokenizer:
    return load_tokenizer(open_checkpoint(asset(name).parent))


@pytest.mark.parametrize(
    ("name", "prompt", "text", "reasoning", "answer"),
    [
        (QWEN, "", "<think>\nhm né\n</think>\n\nyes né", "hm né", "yes né"),
        (QWEN, "<think>\n", "hm\n</think>\n\nyes <|im_start|>", "hm", "yes "),
        (OSS, "<|start|>assistant", HARMONY, "Let me see.\nYes.", "It is < 4 | so."),
    ],
)
def test_tokens_one_by_one(name: str, prompt: str, text: str, reasoning: str, answer: str) -> None:
    """Markers are special tokens of GPT-OSS, which leave no text otherwise; of Qwen none."""
    tokenizer = tokenizer_of(name)
    ids = tokenizer.encode(text, special=False, parse_special=True)
    for known in (tokenizer, without_markers(tokenizer)):
        parts = splitter(tokenizer, prompt)
        stream = known.decoder(spelled=marker_ids(known))
        spelled = (
            known.encode(text, special=False, parse_special=True) if known != tokenizer else ids
        )
        pieces = [*(stream.push(id_) for id_ in spelled), stream.finish()]
        assert told(parts, pieces) == (reasoning, answer)


def without_markers(tokenizer: Tokenizer) -> Tokenizer:
    """The same vocabulary, whose thinking is spelled letter by letter; others as they are."""
    facts = json.loads(tokenizer.backend.to_str())
    kept = [token for token in facts["added_tokens"] if "think" not in token["content"]]
    if kept == facts["added_tokens"]:
        return tokenizer
    facts["added_tokens"] = kept
    backend = type(tokenizer.backend).from_str(json.dumps(facts))
    return dataclasses.replace(tokenizer, backend=backend)


def test_a_reply_keeps_both_apart() -> None:
    made: Any = iter(["<thi", "nk>a", "b</think>", "\n\nc", "d"])
    reply = Reply(made, Thinking())
    assert list(reply) == [("reasoning", "a"), ("reasoning", "b"), ("answer", "c"), ("answer", "d")]
    assert (reply.reasoning, reply.text) == ("ab", "cd")


def test_the_end_of_a_channel_is_not_the_end_of_a_turn() -> None:
    """GPT-OSS thinks, ends that with <|end|>, and answers; Phi ends its turn with it."""
    oss, phi = tokenizer_of(OSS), tokenizer_of("phi3-longrope")
    assert oss.vocab["<|end|>"] not in oss.stop_ids
    assert oss.vocab["<|return|>"] in oss.stop_ids
    assert phi.vocab["<|end|>"] in phi.stop_ids


def test_templates_write_json_as_it_is() -> None:
    """Not as it would stand in a page of HTML."""
    tokenizer = dataclasses.replace(tokenizer_of(QWEN), chat_template="{{ messages[0] | tojson }}")
    found = render(tokenizer, [{"role": "user", "content": "é <b> & 'c'"}])
    assert found == '{"role": "user", "content": "é <b> & \'c\'"}'


def test_the_kind_of_markers_is_the_vocabulary_s() -> None:
    assert isinstance(splitter(tokenizer_of(OSS), ""), Harmony)
    assert isinstance(splitter(tokenizer_of(QWEN), ""), Thinking)
    plain: Any = SimpleNamespace(vocab={})
    assert isinstance(splitter(plain, ""), Thinking)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "color", "shown", "apart"),
    [
        (Terminal(), True, "\x1b[2mhm\x1b[0m\n\nyes\n", ""),
        (Terminal(), False, "hm\n\nyes\n", ""),
        (io.StringIO(), True, "yes\n", "hm"),
    ],
    ids=["dim on a terminal", "without colour", "on stderr beside a file"],
)
def test_where_reasoning_is_shown(
    out: io.StringIO, color: bool, shown: str, apart: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not color:
        monkeypatch.setenv("NO_COLOR", "1")
    errors, made = io.StringIO(), iter(["<think>h", "m</think>y", "es"])
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", errors)
    show_reply(Reply(cast(Any, made), Thinking()))
    assert (out.getvalue(), errors.getvalue()) == (shown, apart)


HARMONY_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def test_a_conversation_keeps_answers_alone() -> None:
    """The template's markers go in as tokens, and what is remembered has no reasoning."""
    model = fewbit.load(asset(OSS).parent)
    model.tokenizer = dataclasses.replace(model.tokenizer, chat_template=HARMONY_TEMPLATE)
    talk, vocab = Conversation(model, context=100), model.tokenizer.vocab
    reply = talk.ask("Hi", max_tokens=24, sampling=GREEDY)
    pieces = list(reply)
    start, message, end = (vocab[m] for m in ("<|start|>", "<|message|>", "<|end|>"))
    prompt = reply.made.prompt
    assert (prompt[0], prompt.count(start), prompt.count(message)) == (start, 2, 1)
    assert prompt.count(end) == 1
    assert "".join(p.text for p in pieces if p.kind == "answer") == reply.text
    assert "".join(p.text for p in pieces if p.kind == "reasoning") == reply.reasoning
    talk.remember("Hi", reply.text)
    again = talk.ask("So?", max_tokens=1, sampling=GREEDY)
    list(again)
    assert again.made.prompt[: len(prompt)] == prompt
    assert again.made.prompt.count(start) == 4

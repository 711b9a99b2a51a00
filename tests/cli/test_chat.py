"""`fewbit chat`: commands, options of the template, a full context, recommended sampling."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from io import StringIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fewbit
from fewbit.cli import chat
from fewbit.cli.main import app
from fewbit.errors import InputError
from fewbit.generation.conversation import Conversation
from fewbit.generation.defaults import recommended
from fewbit.run.sampling import GREEDY
from tests.golden.loading import MODELS


def lines_of(text: str, *options: str) -> list[dict[str, object]]:
    """What `fewbit chat --json` writes for lines on stdin."""
    ended = CliRunner().invoke(app, ["chat", "--json", "--seed", "1", *options], input=text)
    assert ended.exit_code == 0, ended.output
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_every_line_is_answered() -> None:
    found = lines_of("Hello\n/help\n/rest\n/reset\n/usr/bin is a path\n/exit\nno\n", "-n", "2")
    ends = ["length", "error", "length"]
    assert [line["finish"] for line in found] == ends
    assert "unknown command `/rest`" in str(found[1]["message"])


def test_a_full_context_forgets_the_oldest_turns() -> None:
    text = "Tell me about the garden.\n" * 6
    found = lines_of(text, "-n", "20", "--context", "96")
    assert [line["finish"] for line in found] == ["length"] * 6
    assert found[0]["dropped"] == 0
    assert found[-1]["dropped"] != 0


def test_a_text_beyond_the_context_is_an_error_of_its_line() -> None:
    long, short = lines_of("word " * 200 + "\nHi\n", "-n", "2", "--context", "64")
    assert (long["finish"], short["finish"]) == ("error", "length")


def test_the_system_message_is_kept() -> None:
    talk = Conversation(fewbit.load("demo"), system="Be brief.", context=64)
    for _ in range(4):
        reply = talk.ask("A few words to answer", max_tokens=8, sampling=GREEDY)
        talk.remember("A few words to answer", str(reply))
    assert reply.dropped
    assert talk.messages[0]["role"] == "system"
    assert talk.messages[1]["role"] == "user"


def test_options_of_the_template() -> None:
    assert chat._template_options('{"a": 1}', True) == {"a": 1, "enable_thinking": False}
    for wrong in ("{", "[1]"):
        with pytest.raises(InputError, match="is not a JSON object"):
            chat._template_options(wrong, False)


def test_ctrl_c_stops_the_answer_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "show_reply", interrupted)
    reply = Conversation(fewbit.load("demo")).ask("Hi")
    terminal = StringIO()
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(KeyboardInterrupt):
        chat._show_until_interrupt(reply)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    chat._show_until_interrupt(reply)


def test_recommended_sampling(tmp_path: Path) -> None:
    path = tmp_path / "qwen3"
    shutil.copytree(MODELS / "qwen3", path, ignore=shutil.ignore_patterns("*.gguf", "*.npy"))
    values = {"temperature": 0.6, "top_k": 20, "top_p": 7.0, "min_p": "x"}
    (path / "generation_config.json").write_text(json.dumps(values), "utf-8")
    assert recommended(fewbit.load(path).checkpoint) == {"temperature": 0.6, "top_k": 20}
    args = ["generate", "Hi", "-m", str(path), "-n", "1", "--seed", "3", "--json"]
    ended = CliRunner().invoke(app, [*args, "--top-k", "5"])
    used = dataclasses.asdict(dataclasses.replace(GREEDY, temperature=0.6, top_k=5, seed=3))
    assert json.loads(ended.stdout)["sampling"] == json.loads(json.dumps(used))
    assert "sampling as the model recommends: temperature 0.6" in ended.stderr

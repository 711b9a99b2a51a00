"""`fewbit chat`: commands, options of the template, a full context, recommended sampling."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import fewbit
from fewbit.cli import chat
from fewbit.cli.main import app
from fewbit.errors import InputError
from fewbit.generation.conversation import Conversation
from fewbit.generation.defaults import default_sampling, recommended
from fewbit.run.sampling import GREEDY, Sampling
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


def test_texts_of_several_lines() -> None:
    one, two, three = (
        lines_of(text, "-n", "2")[0]["prompt_tokens"]
        for text in ("Hello there\n", "Hello\\\nthere\n", '"""Hello\nthere"""\n')
    )
    assert two == three != one
    assert len(lines_of('"""a\n/exit\n\nb"""\n"""open\nto the end', "-n", "2")) == 2
    assert len(lines_of("open to the end\\", "-n", "2")) == 1


def test_undo_and_regen() -> None:
    first, second, again, third = lines_of("Hi\nThe dog\n/regen\n/undo\nThe dog\n", "-n", "6")
    assert second["prompt_tokens"] == again["prompt_tokens"] == third["prompt_tokens"]
    assert (second["text"], second["sampling"]) != (again["text"], again["sampling"])
    assert again["text"] == third["text"], "both have the second seed and the same turns before"
    assert first["prompt_tokens"] != second["prompt_tokens"]
    assert lines_of("/undo\n/regen\n")[0]["message"] == "there is no answer to make again"


def test_a_line_that_is_not_utf8_fails_alone() -> None:
    code = "import sys; from fewbit.cli.main import main; sys.argv[1:] = {}; main()"
    args = ["chat", "--json", "-n", "2", "--seed", "1"]
    ended = subprocess.run(
        [sys.executable, "-c", code.format(args)],
        input=b"Hi\ncaf\xe9\nHello\n", capture_output=True, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["finish"] for line in found] == ["length", "error", "length"]
    assert found[1]["message"].startswith("the text is not valid UTF-8")


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


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {}}}


def test_a_turn_with_tools_is_forgotten_as_one() -> None:
    talk = Conversation(fewbit.load("demo"))
    talk.remember("Rain?", {"role": "assistant", "content": "", "tool_calls": [CALL]})
    talk.remember({"role": "tool", "tool_call_id": "1", "content": "no"}, "It is dry.")
    talk.remember("Thanks.", "Welcome.")
    roles = ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert [message["role"] for message in talk.messages] == roles
    assert talk._drop_oldest([])
    assert [message["content"] for message in talk.messages] == ["Thanks.", "Welcome."]
    assert not talk._drop_oldest([{"role": "tool", "content": "x"}]), "the turn goes on"
    assert [message["content"] for message in talk.undo()] == ["Thanks.", "Welcome."]
    assert talk.messages == talk.undo() == []


def test_tools_need_a_template() -> None:
    talk = Conversation(fewbit.load("demo"), tools=[WEATHER])
    with pytest.raises(InputError, match="the model has no chat template that could describe"):
        talk.ask("Rain?")


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
    model = fewbit.load(path)
    assert model.sampling == model.generate("Hi").sampling == Sampling(0.6, 20)
    assert model.chat("Hi").made.sampling == Sampling(0.6, 20)
    assert Conversation(model).ask("Hi").made.sampling == Sampling(0.6, 20)
    assert model.generate("Hi", top_k=3, seed=1).sampling == Sampling(0.6, 3, seed=1)
    assert model.generate("Hi", sampling=Sampling(), min_p=0.1).sampling == Sampling(min_p=0.1)


def test_recommended_penalties(tmp_path: Path) -> None:
    """transformers' penalty counts all tokens; who gives one has fewbit's window."""
    path = tmp_path / "qwen3"
    shutil.copytree(MODELS / "qwen3", path, ignore=shutil.ignore_patterns("*.gguf", "*.npy"))
    values = {"repetition_penalty": 1.05, "presence_penalty": 1.5, "top_k": 20}
    (path / "generation_config.json").write_text(json.dumps(values), "utf-8")
    model = fewbit.load(path)
    found = Sampling(top_k=20, repeat_penalty=1.05, repeat_last_n=-1, presence_penalty=1.5)
    assert model.sampling == found
    given = model.generate("Hi", repeat_penalty=1.2).sampling
    assert given == dataclasses.replace(found, repeat_penalty=1.2, repeat_last_n=64)
    assert model.generate("Hi", temperature=0).sampling == GREEDY
    args = ["generate", "Hi", "-m", str(path), "-n", "1", "--seed", "3", "--json"]
    ended = CliRunner().invoke(app, args)
    assert "presence-penalty 1.5, repeat-last-n -1, repeat-penalty 1.05" in " ".join(
        ended.stderr.split()
    )
    used = json.loads(ended.stdout)["sampling"]
    assert (used["repeat_penalty"], used["repeat_last_n"]) == (1.05, -1)
    ended = CliRunner().invoke(app, [*args, "--temperature", "0"])
    assert json.loads(ended.stdout)["sampling"]["repeat_penalty"] == 1
    assert ended.stderr == ""


def test_recommended_by_gguf_keys() -> None:
    keys = {"temp": 0.5, "top_k": 7, "penalty_repeat": 1.25, "penalty_last_n": 128, "top_p": 3.0}
    metadata = {f"general.sampling.{k}": SimpleNamespace(value=v) for k, v in keys.items()}
    checkpoint: Any = SimpleNamespace(metadata=metadata)
    found = {"temperature": 0.5, "top_k": 7, "repeat_penalty": 1.25, "repeat_last_n": 128}
    assert recommended(checkpoint) == found
    assert default_sampling(checkpoint) == Sampling(**found)


def test_options_of_sampling_reach_it() -> None:
    args = ["generate", "Hi", "-n", "1", "--seed", "3", "--json", "--dry-multiplier", "0.8"]
    args += ["--dry-sequence-breaker", r"\n", "--dry-sequence-breaker", ".", "--dry-base", "1.5"]
    args += ["--logit-bias", "15-inf", "--logit-bias", "7=+2.5", "--repeat-last-n", "9"]
    used = json.loads(CliRunner().invoke(app, args).stdout)["sampling"]
    assert used["dry_sequence_breakers"] == ["\n", "."]
    assert used["logit_bias"] == {"15": "-inf", "7": 2.5}
    assert (used["dry_multiplier"], used["dry_base"], used["repeat_last_n"]) == (0.8, 1.5, 9)
    args = ["generate", "Hi", "-n", "1", "--dry-sequence-breaker", "none", "--json"]
    used = json.loads(CliRunner().invoke(app, args).stdout)["sampling"]
    assert used["dry_sequence_breakers"] == []

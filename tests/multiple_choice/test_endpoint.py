"""A model behind a URL: what is sent, what counts, and what a server may do wrong."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.measure.multiple_choice import post
from tests.multiple_choice.server import Reply, said, serving

QUESTIONS = Path(__file__).parent / "questions.csv"
RIGHT = {"In a small house", "It ran to him", "green", "seven", "water", "her brother"}


def letter_of(body: dict[str, Any]) -> str:
    """The letter of the correct choice in a prompt."""
    text = body["messages"][0]["content"]
    shown = dict(re.findall(r"^\(([A-D])\) (.+)$", text, re.MULTILINE))
    return next(letter for letter, choice in shown.items() if choice in RIGHT)


def test_answers_are_counted_and_reasoning_is_not() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        text, right = body["messages"][0]["content"], letter_of(body)
        if "old man" in text:
            return said(f"I think so. Answer: {right}", reasoning_content="Hm.")
        if "dog" in text:
            return said(None, "length", reasoning_content=f"The answer is ({right}).")
        if "grass" in text:
            return said(f"<think>The answer is ({right})")
        if "week" in text:
            return said("Answer: " + ("A" if right != "A" else "B"))
        return said(f"**{right}**")

    with serving(answer) as (url, asked):
        found = fewbit.benchmark(fewbit.Endpoint(url, "m", key="secret"), QUESTIONS, parallel=3)
    (answers,) = found.answers
    counts = tuple(answers.count(name) for name in ("correct", "incorrect", "no_answer"))
    assert counts == (3, 1, 2)
    assert answers.finish_reasons == {"stop": 5, "length": 1}
    assert (answers.tokens, answers.prompt_tokens) == (24, 54)
    assert len(asked) == 6
    for body in asked:
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 30000)
        assert not {"seed", "reasoning_budget"} & body.keys()
        assert body["path"] == "/v1/chat/completions"
        assert body["headers"]["authorization"] == "Bearer secret"
    assert "secret" not in repr(fewbit.Endpoint(url, "m", key="secret"))


def test_above_temperature_0_each_answer_has_its_seed() -> None:
    with serving(lambda _: said("Answer: A")) as (url, asked):
        fewbit.benchmark(
            fewbit.Endpoint(url, "m"), QUESTIONS, temperature=0.5, repeats=2, limit=3,
            reasoning_budget=77,
        )  # fmt: skip
    assert len({body["seed"] for body in asked}) == 6
    assert {body["reasoning_budget"] for body in asked} == {77}


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(post.time, "sleep", waits.append)
    busy = iter([(503, {}, {}), (429, {}, {"retry-after": "7"})])
    with serving(lambda _: next(busy, said("Answer: A"))) as (url, asked):
        found = fewbit.benchmark(fewbit.Endpoint(url, "m"), QUESTIONS, limit=1)
    assert found.answers[0].outcomes[0].answer == "A"
    assert waits == [0.5, 7.0]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, {"error": {"message": "bad key"}}, {}), "status 401: bad key"),
        ((404, {"error": "no model"}, {}), "status 404: no model"),
        ((302, {}, {"location": "http://127.0.0.1:1/v1"}), "status 302"),
        ((200, {"choices": []}, {}), "no chat completion"),
    ],
)
def test_a_refusal_is_told(reply: Reply, message: str) -> None:
    with serving(lambda _: reply) as (url, asked), pytest.raises(InputError) as caught:
        fewbit.benchmark(fewbit.Endpoint(url, "m"), QUESTIONS, parallel=1)
    assert message in caught.value.message
    assert len(asked) <= 2


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post.time, "sleep", lambda _: None)
    with serving(lambda _: said("A")) as (url, _):
        pass
    with pytest.raises(InputError, match="does not answer"):
        fewbit.benchmark(fewbit.Endpoint(url, "m"), QUESTIONS, limit=1)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "file:///etc/passwd", "http://"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InputError, match="is not a URL"):
        fewbit.Endpoint(url, "m")


def test_which_servers_are_on_this_machine() -> None:
    local = {
        url: fewbit.Endpoint(f"http://{url}/v1", "m").local
        for url in ("127.0.0.1:80", "[::1]:80", "localhost", "10.0.0.1", "127.0.0.1.example.com")
    }
    assert list(local.values()) == [True, True, True, False, False]


def test_a_server_has_no_formats() -> None:
    with pytest.raises(InputError, match="no formats"):
        fewbit.benchmark(fewbit.Endpoint("http://localhost/v1", "m"), QUESTIONS, formats=["Q4_0"])


def echoed(model: fewbit.Model, body: dict[str, Any]) -> Reply:
    """What a server of `model` answers to a request with `echo`."""
    choices = []
    for index, text in enumerate(body["prompt"]):
        ids = model.tokenizer.encode(text)
        scores = model.score([(ids[:1], ids[1:])])[0].token_logprobs
        pieces = [model.tokenizer.decode([id_], skip_special=False) for id_ in ids]
        starts = [sum(map(len, pieces[:at])) for at in range(len(ids))]
        values = {"text_offset": starts, "token_logprobs": [None, *scores], "tokens": pieces}
        choices.append({"index": index, "text": text, "logprobs": values})
    return 200, {"choices": choices[::-1], "usage": {"prompt_tokens": 11}}, {}


def test_likelihoods_are_those_of_the_model_here() -> None:
    model = fewbit.load("demo", "cpu")
    with serving(lambda body: echoed(model, body)) as (url, asked):
        there = fewbit.benchmark(
            fewbit.Endpoint(url, "m"), QUESTIONS, answer_by="likelihood", parallel=1
        )
    here = fewbit.benchmark(model, QUESTIONS, answer_by="likelihood")
    assert [o.logprobs for o in there.answers[0].outcomes] == [
        o.logprobs for o in here.answers[0].outcomes
    ]
    assert {body["path"] for body in asked} == {"/v1/completions"}
    assert {(body["echo"], body["max_tokens"]) for body in asked} == {(True, 0)}


@pytest.mark.parametrize(
    "told", [None, {}, {"text_offset": [0], "token_logprobs": [None]},
             {"text_offset": [], "token_logprobs": []}]
)  # fmt: skip
def test_a_server_without_echo_is_refused(told: Any) -> None:
    reply = (200, {"choices": [{"index": i, "logprobs": told} for i in range(4)]}, {})
    with serving(lambda _: reply) as (url, _), pytest.raises(InputError, match="no log-prob"):
        fewbit.benchmark(fewbit.Endpoint(url, "m"), QUESTIONS, answer_by="likelihood")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signal")
def test_an_interrupt_does_not_wait_for_the_server() -> None:
    come, leave = threading.Event(), threading.Event()

    def answer(_: dict[str, Any]) -> Reply:
        come.set()
        leave.wait()
        return said("Answer: A")

    with serving(answer) as (url, _):
        command = [sys.executable, "-m", "fewbit", "benchmark", str(QUESTIONS), "-m", "x"]
        with subprocess.Popen([*command, "--base-url", url], stderr=subprocess.PIPE) as process:
            assert come.wait(300)
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=300)[1]
        leave.set()
    assert (process.returncode, told.strip()) == (130, b"interrupted")

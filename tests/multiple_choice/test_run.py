"""A run over questions: formats beside each other, a run that ends early, what results hold."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewbit
from fewbit.cli import main as cli
from fewbit.errors import FileFormatError, InputError
from fewbit.measure.multiple_choice.answers import model_identity
from fewbit.measure.multiple_choice.records import NAME, Records
from fewbit.measure.multiple_choice.results import Answers, Outcome, compare_answers
from fewbit.measure.proportions import mcnemar, wilson
from tests.cli.running import Ended, Fewbit

QUESTIONS = Path(__file__).parent / "questions.csv"


@pytest.fixture(scope="module")
def demo() -> fewbit.Model:
    return fewbit.load("demo", "cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Fewbit:
    """The command line in this process."""

    def command(*arguments: str) -> Ended:
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return command


def test_likelihood_takes_the_likeliest_letter(demo: fewbit.Model) -> None:
    found = fewbit.benchmark(demo, QUESTIONS, answer_by="likelihood", parallel=2)
    for outcome in found.answers[0].outcomes:
        assert outcome.logprobs is not None
        assert outcome.answer == max(outcome.logprobs, key=outcome.logprobs.__getitem__)
        assert outcome.outcome == ("correct" if outcome.answer == outcome.expected else "incorrect")
    first = found.answers[0].outcomes[0]
    listed = "".join(f"{letter}. {text}\n" for letter, text in first.shown.items())
    text = f"Where did the old man live?\n{listed}"
    scores = demo.score([(f"{text}Answer:", f" {letter}") for letter in "ABCD"])
    assert [score.logprob for score in scores] == list((first.logprobs or {}).values())


def test_formats_see_the_same_questions(demo: fewbit.Model) -> None:
    found = fewbit.benchmark(
        demo, QUESTIONS, formats=["original", "Q2_K"], answer_by="likelihood", seed=3
    )
    first, second = found.answers
    assert [first.name, second.name] == ["BF16", "Q2_K"]
    assert [o.shown for o in first.outcomes] == [o.shown for o in second.outcomes]
    assert [o.logprobs for o in first.outcomes] != [o.logprobs for o in second.outcomes]
    (pair,) = found.paired()
    counts = (pair.both, pair.only_first, pair.only_second, pair.neither)
    assert sum(counts) == 6
    assert pair.both + pair.only_first == first.count("correct")


def test_written_answers_do_not_depend_on_what_shares_a_step(demo: fewbit.Model) -> None:
    def run(parallel: int) -> list[Any]:
        found = fewbit.benchmark(
            demo, QUESTIONS, max_tokens=12, parallel=parallel, keep_texts=True, temperature=0.9
        )
        return [(o.id, o.text, o.tokens) for o in found.answers[0].outcomes]

    assert run(1) == run(4)
    assert len({text for _, text, _ in run(4)}) == 6


def test_a_prompt_that_does_not_fit_is_no_answer(demo: fewbit.Model, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    long = {"question": "word " * 600, "choices": ["a", "b"], "answer": 0}
    path.write_text(json.dumps(long) + '\n{"question": "q", "choices": ["a", "b"], "answer": 0}')
    for way in ("text", "likelihood"):
        found = fewbit.benchmark(demo, path, answer_by=way, max_tokens=3)
        first, second = found.answers[0].outcomes
        assert (first.outcome, first.finish_reason) == ("no_answer", "context")
        assert second.finish_reason == ("length" if way == "text" else "likelihood")


def test_a_run_goes_on_where_it_ended(demo: fewbit.Model, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 5, "out": tmp_path}
    first = fewbit.benchmark(demo, QUESTIONS, limit=4, **options)
    path = tmp_path / NAME
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40] + b"?" * 5000)  # cut off
    asked: list[int] = []
    again = fewbit.benchmark(
        demo, QUESTIONS, **options, progress=lambda done, total, _: asked.append(done)
    )
    assert asked == [4, 5, 6]
    assert len(path.read_bytes().splitlines()) == 6
    known = {o.id: o for o in again.answers[0].outcomes}
    for outcome in first.answers[0].outcomes:
        assert known[outcome.id].facts(True) | {"seconds": 0} == outcome.facts(True) | {
            "seconds": 0
        }


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"prompt": "cot"}, {"max_tokens": 6}, {"formats": ["Q4_0"]}]
)
def test_what_has_changed_is_asked_anew(
    demo: fewbit.Model, tmp_path: Path, change: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"max_tokens": 5, "out": tmp_path, "limit": 2}
    fewbit.benchmark(demo, QUESTIONS, **options)
    asked: list[int] = []
    options |= {"progress": lambda done, total, _: asked.append(done)} | change
    fewbit.benchmark(demo, QUESTIONS, **options)
    assert asked == [1, 2]


def test_models_that_differ_are_told_apart(demo: fewbit.Model) -> None:
    importance = {name: np.ones(demo.tensor(name).shape[-1], np.float32) for name in demo.formats}
    one, two = (
        {**importance, "output.weight": n * importance["token_embd.weight"]} for n in (1, 2)
    )
    models = [
        demo, demo.quantize("Q4_0"), demo.quantize("Q4_0", one), demo.quantize("Q4_0", two),
        fewbit.load("demo", "cpu", kv="f16"),
    ]  # fmt: skip
    assert len({json.dumps(model_identity(model)) for model in models}) == 5
    assert model_identity(demo) == model_identity(fewbit.load("demo", "cpu", threads=1))


def test_a_killed_process_loses_no_complete_answer(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "fewbit", "benchmark", str(QUESTIONS), "--max-tokens", "16",
        "--parallel", "1", "--repeats", "4", "--out", str(tmp_path), "--json",
    ]  # fmt: skip
    path = tmp_path / NAME
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not path.exists() or path.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    before = path.read_bytes()
    kept = before[: before.rfind(b"\n") + 1]
    assert 3 <= kept.count(b"\n") < 24
    ended = subprocess.run(command, capture_output=True, check=True)
    assert path.read_bytes().startswith(kept)
    assert path.read_bytes().count(b"\n") == 24
    assert json.loads(ended.stdout)["total"] == 24


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("mine\n")
    with pytest.raises(FileFormatError, match="is not a file of answers"):
        Records(tmp_path)
    assert (tmp_path / NAME).read_text() == "mine\n"


def test_texts_are_in_no_result_unless_asked(run: Fewbit, tmp_path: Path) -> None:
    line = ("benchmark", str(QUESTIONS), "-m", "demo", "--max-tokens", "3", "--limit", "2")
    out = tmp_path / "all.json"
    ended = run(*line, "--json", "--out", str(tmp_path / "kept"), "--json-out", str(out))
    page = run(*line).out
    for text in (ended.out, page, (tmp_path / "kept" / NAME).read_text()):
        assert "story0" not in page
        assert not any(secret in text for secret in ("old man", "small house", "moon"))
    shown = json.loads(out.read_text())["questions"][0]
    assert sorted(shown["shown"].values())[0] == "In a bottle"
    assert "old man" not in out.read_text()
    asked = run(*line, "--show-questions")
    assert "Where did the old man live?" in asked.out
    assert "(A) " in asked.out


def test_an_output_that_cannot_be_written_is_told_first(run: Fewbit, tmp_path: Path) -> None:
    before = QUESTIONS.read_bytes()
    for path, message in ((QUESTIONS, "is an input"), (tmp_path / "no" / "x", "no folder")):
        ended = run("benchmark", str(QUESTIONS), "--json-out", str(path), "--limit", "1")
        assert ended.code == 1
        assert message in ended.err
    assert QUESTIONS.read_bytes() == before


def test_a_server_elsewhere_is_named(run: Fewbit, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewbit.measure.multiple_choice import post

    def refuse(url: str, *_: Any, **__: Any) -> None:
        raise InputError(f"asked {url}")

    monkeypatch.setattr(post, "post", refuse)
    for url, noted in (("http://127.0.0.1:1/v1", False), ("http://example.com/v1", True)):
        ended = run("benchmark", str(QUESTIONS), "--base-url", url, "-m", "x")
        assert f"asked {url}" in ended.err
        assert (f"the questions are sent to {url}" in ended.err) == noted
    assert "needs the server's name" in run("benchmark", str(QUESTIONS), "--base-url", url).err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer_by": "txt"}, "cannot be found by `txt`"),
        ({"repeats": 0}, "repeats is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"parallel": -1}, "parallel is -1"),
        ({"temperature": -1}, "temperature is -1"),
        ({"keep_order": True}, "no order"),
        ({"formats": ["original", "Q9"]}, "Q9"),
        ({"formats": ["Q4_0", "Q4_0"]}, "named twice"),
    ],
)
def test_wrong_options_are_named(demo: fewbit.Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(fewbit.FewbitError) as caught:
        fewbit.benchmark(demo, QUESTIONS, progress=lambda *_: pytest.fail("asked"), **options)
    assert message in caught.value.message


def outcomes(name: str, right: str, repeats: int = 1) -> Answers:
    """Answers of as many questions as `right` has letters: y right, n wrong, - none."""
    results = {"y": "correct", "n": "incorrect", "-": "no_answer"}
    return Answers(name, tuple(
        Outcome(f"q{i // repeats}", i % repeats, {}, "A", "A", results[c], "stop")  # type: ignore[arg-type]
        for i, c in enumerate(right)
    ))  # fmt: skip


def test_pairs_are_counted() -> None:
    pair = compare_answers(outcomes("a", "yyyn-ny"), outcomes("b", "ynyy-nn"))
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (2, 2, 1, 2)
    assert (pair.flips, pair.p) == (3, 1.0)
    repeated = compare_answers(outcomes("a", "yynnyn", 2), outcomes("b", "ynnnny", 2))
    assert (repeated.both, repeated.only_first, repeated.neither) == (1, 1, 1)


def test_intervals_count_questions() -> None:
    answers = outcomes("a", "yyyynnnn", 4)
    assert (answers.total, answers.questions) == (8, 2)
    assert answers.fraction("correct") == wilson(1, 2)


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (3, 10), (78, 198)])
def test_wilson_bounds_solve_their_equation(successes: int, trials: int) -> None:
    """At a bound p the count lies z standard deviations away: |x - np| = z sqrt(np(1-p))."""
    found = wilson(successes, trials)
    for p in (found.low, found.high):
        if 0 < p < 1:
            away = abs(successes - trials * p) / math.sqrt(trials * p * (1 - p))
            assert away == pytest.approx(1.959964, abs=1e-5)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (2, 9), (30, 12)])
def test_mcnemar_is_the_sum_of_its_tails(b: int, c: int) -> None:
    n = b + c
    far = [k for k in range(n + 1) if abs(2 * k - n) >= abs(b - c)]
    exact = Fraction(sum(math.comb(n, k) for k in far), 2**n)
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(float(min(exact, Fraction(1))))


def test_the_order_does_not_depend_on_other_questions(demo: fewbit.Model) -> None:
    some = fewbit.benchmark(demo, QUESTIONS, answer_by="likelihood", limit=2)
    every = fewbit.benchmark(demo, QUESTIONS, answer_by="likelihood", repeats=2)
    first = [o.shown for o in every.answers[0].outcomes[:6]]
    assert [o.shown for o in some.answers[0].outcomes] == first[:2]
    assert [o.shown for o in every.answers[0].outcomes[6:]] != first

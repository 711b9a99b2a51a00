"""Files of questions in the columns of known benchmarks, and the order of their choices."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from fewbit.errors import FewbitError, InputError
from fewbit.measure.multiple_choice.prompts import PROMPTS, Prompt
from fewbit.measure.multiple_choice.questions import Question, read_questions, show

GPQA = (
    "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Record ID,"
    "Pre-Revision Question,Subdomain\n"
    '" How many?\n",7, 8,9," ten, or so ",rec1,old,Physics\n'
)
FILES = {
    "gpqa.csv": GPQA,
    "mmlu.csv": "question,choice0,choice1,choice2,choice3,answer\nHow many?,8,7,9,ten,1\n",
    "plain.csv": "How many?,8,7,9,ten,B\n",
    "index.jsonl": '\n{"question": "How many?", "choices": ["8", "7", "9", "ten"], "answer": 1}\n',
    "text.jsonl": '{"question": "How many?", "choices": ["8", "7", "9", "ten"], "answer": "7"}',
    "arc.jsonl": json.dumps({
        "id": "x1", "question": "How many?", "answerKey": "2",
        "choices": {"text": ["8", "7", "9", "ten"], "label": ["1", "2", "3", "4"]},
    }),
    "list.json": '[{"question": "How many?", "choices": ["8", "7", "9", "ten"], "answer": "B"}]',
}  # fmt: skip


def read(folder: Path, name: str, text: str) -> list[Question]:
    path = folder / name
    path.write_bytes(text.encode())
    return read_questions(path)


@pytest.mark.parametrize("name", FILES)
def test_columns_of_known_benchmarks(tmp_path: Path, name: str) -> None:
    (found,) = read(tmp_path, name, FILES[name])
    assert (found.text, found.choices[found.answer]) == ("How many?", "7")
    assert found.ordered == (name != "gpqa.csv")
    if name == "gpqa.csv":
        assert found.choices == ("7", "8", "9", "ten, or so")
        assert found.id == "rec1"
    else:
        assert found.choices == ("8", "7", "9", "ten")


def test_a_question_without_id_is_called_by_its_digest(tmp_path: Path) -> None:
    line = '{"question": "How many?", "choices": ["8", "7"], "answer": 0}\n'
    first, second = read(tmp_path, "a.jsonl", line + line)
    assert len(first.id) == 12
    assert second.id == f"{first.id}-2"
    assert read(tmp_path, "b.jsonl", line)[0].id == first.id


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a,b\n1,2\n", "no column `Question`"),
        ("a.csv", "question,choice0,choice1,answer\nq,x,y\n", "question 1 has 3 cells"),
        ("a.csv", "question,choice0,choice1,answer\nq,x,y,C\n", "none of its 2 choices"),
        ("a.csv", "question,choice0,choice1,answer\nq,x,,0\n", "has 1 choices"),
        ("a.csv", "", "has no questions"),
        ("a.jsonl", "{}\n", "line 1 has no text in `question`"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", "{\n", "not JSON lines"),
        ("a.jsonl", '{"question": "q", "choices": "ab", "answer": 0}', "choices that are no list"),
        ("a.jsonl", '{"question": "q", "choices": ["x", "x"], "answer": "x"}', "none of its"),
        ("a.jsonl", '{"question": "q", "choices": ["x", "y"], "answer": true}', "none of its"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(FewbitError) as caught:
        read(tmp_path, name, text)
    assert message in caught.value.message


QUESTION = Question("q7", "Which?", ("a", "b", "c", "d"), 2)


def test_the_order_depends_on_seed_question_and_repeat() -> None:
    assert show(QUESTION, 1).order == show(QUESTION, 1).order == (1, 2, 3, 0)
    orders = {show(QUESTION, seed, repeat).order for seed in range(8) for repeat in range(8)}
    assert len(orders) > 12
    others = {show(Question(f"q{i}", "", QUESTION.choices, 0), 1).order for i in range(60)}
    assert len(others) > 15


def test_each_letter_is_correct_as_often() -> None:
    places = Counter(
        show(Question(f"q{i}", "", QUESTION.choices, 2), 0).expected for i in range(400)
    )
    assert min(places.values()) > 70


def test_what_is_shown_is_what_is_expected() -> None:
    for seed in range(20):
        asked = show(QUESTION, seed)
        assert asked.choices[asked.expected] == "c"
        assert sorted(asked.choices.values()) == ["a", "b", "c", "d"]
        assert asked.letters == "ABCD"


def test_the_file_s_order_is_kept_if_it_has_one() -> None:
    assert show(QUESTION, 5, keep_order=True).order == (0, 1, 2, 3)
    with pytest.raises(InputError, match="gives its choices no order"):
        show(Question("x", "", ("a", "b"), 0, ordered=False), 0, keep_order=True)


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_have_the_question_and_each_choice(name: str) -> None:
    asked = show(QUESTION, 0)
    text = Prompt(name).render(asked)
    assert text.startswith("Which?\n")
    for letter, choice in asked.choices.items():
        assert f"({letter}) {choice}" in text or f"{letter}. {choice}" in text
    assert not text.endswith(("\n", " "))


def test_a_prompt_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "own.j2"
    path.write_text("{{ row.hint }} {{ question }} {{ letters|join('/') }} {{ choices['A'] }}")
    question = Question("q", "Which?", ("a", "b"), 0, row={"hint": "Easy:"})
    assert Prompt(str(path)).render(show(question, 0, keep_order=True)) == "Easy: Which? A/B a"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ unknown }}", "'unknown' is undefined"),
        ("{% if %}", "is not a template"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("  ", "has 2 characters"),
    ],
)
def test_a_prompt_that_fails(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "own.j2"
    path.write_text(source)
    with pytest.raises(InputError) as caught:
        Prompt(str(path)).render(show(QUESTION, 0))
    assert message in caught.value.message


def test_an_unknown_prompt_names_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        Prompt("zero-shoot")
    assert caught.value.hint is not None
    assert "did you mean `zero-shot`?" in caught.value.hint

"""Letters read out of answers: the last explicit statement, or none."""

from __future__ import annotations

import pytest

from fewbit.measure.multiple_choice.extract import read_answer

STATED = [
    ("The answer is **(B)**.", "B"),
    ("answer: c", "C"),
    ("The answer to this question is $D$.", "D"),
    ("the correct choice would be A because of heat", "A"),
    ("The answer is therefore C.", "C"),
    ("I'd go with option B, though it is close.", "B"),
    ("Option D is correct.", "D"),
    ("<answer>B</answer>", "B"),
    (r"So \(\boxed{\mathrm{D}}\).", "D"),
    ("Step 1: heat.\n\n**C**", "C"),
    ("答案是D", "D"),
    ('The correct answer is "D".', "D"),
    ("The answer is ‘(B)’", "B"),
    ("Answer：（A）", "A"),
    ("A. warm", "A"),
    ("Answer: B, C is wrong", "B"),
]
LAST = [
    ("Answer: A\n\nWait.\n\nAnswer: B", "B"),
    ("The answer is (A). No: the correct answer is (C), as (A) is cold.", "C"),
    ("(B) is the correct one.\nAnswer: E", None),
    ("Answer: A\nOr is it? The answer is B or C.", None),
]
NOT_STATED = [
    "The answer is a dog.",
    "Answer: A dog barks at night",
    "The answer is not (A).",
    "(B) is not correct.",
    "A) one\nB) two\nC) three",
    "A\nB\nC\nD",
    "I am not sure.",
    "The answer is either A or B",
    "Answer: B/C",
    "Answer: Bob",
    "<think>The answer is (A).",
    "Vitamin C is in it.",
]


@pytest.mark.parametrize(("text", "letter"), STATED + LAST)
def test_the_last_statement_decides(text: str, letter: str | None) -> None:
    assert read_answer(text) == letter


@pytest.mark.parametrize("text", NOT_STATED)
def test_a_letter_that_only_occurs_is_no_answer(text: str) -> None:
    assert read_answer(text) is None


def test_what_is_thought_does_not_count() -> None:
    assert read_answer("<think>Answer: A</think>Answer: B") == "B"
    assert read_answer("<think>Answer: A</think>Hm.") is None


def test_only_letters_that_were_shown_are_answers() -> None:
    assert read_answer("Answer: F", "ABCDEFGH") == "F"
    assert read_answer("Answer: F") is None
    assert read_answer("Answer: I", "ABCDEFGHI") == "I"

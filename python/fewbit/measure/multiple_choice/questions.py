"""Read multiple-choice questions from CSV and JSON lines, in the columns of known benchmarks.

CSV: GPQA's columns (`Question`, `Correct Answer`, `Incorrect Answer 1` and so on, `Record ID`), or
`question`, `choice0` to `choiceN`, `answer` (MMLU), or MMLU's original files without a heading.
JSON lines: `question`, `choices` and `answer`, which is an index, a letter or a choice's text.
Files are read where they lie; nothing is fetched.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fewbit.errors import FileFormatError, InputError

MOST_CHOICES = len(string.ascii_uppercase)
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A question with its choices; `choices[answer]` is correct.

    `ordered` tells whether the file gives the choices an order; `row` has all its columns.
    """

    id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    ordered: bool = True
    row: Row = field(default_factory=dict, compare=False)


def read_questions(path: Path) -> list[Question]:
    """The questions of a CSV file or of JSON lines (`.jsonl`, `.json` with a list).

    Raises:
        FileFormatError: the file is neither, or a line has no question; the line is named.
        InputError: the file has no questions.

    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileFormatError(f"`{path}` is not UTF-8 text", hint="save it as UTF-8") from None
    rows = _json_rows(path, text) if path.suffix in (".jsonl", ".json") else _csv_rows(path, text)
    found: list[Question] = []
    seen: dict[str, int] = {}
    for where, row in rows:
        question = _question(f"`{path}`, {where}", row)
        count = seen[question.id] = seen.get(question.id, 0) + 1
        if count > 1:
            question = Question(
                f"{question.id}-{count}", question.text, question.choices, question.answer,
                question.ordered, question.row,
            )  # fmt: skip
        found.append(question)
    if not found:
        raise InputError(f"`{path}` has no questions", path=str(path))
    return found


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(1 << 24)
    try:
        lines = [line for line in csv.reader(io.StringIO(text), strict=True) if any(line)]
    except csv.Error as error:
        raise FileFormatError(f"`{path}` is not a CSV file: {error}") from None
    if not lines:
        return
    heading = [name.strip() for name in lines[0]]
    lower = [name.lower() for name in heading]
    if "question" in lower:
        names, rows = heading, lines[1:]
    elif len(heading) > 3 and _is_letter(heading[-1], len(heading) - 2):  # MMLU's own files
        names = ["question", *(f"choice{i}" for i in range(len(heading) - 2)), "answer"]
        rows = lines
    else:
        raise FileFormatError(
            f"`{path}` has no column `Question`: {', '.join(heading)[:200]}",
            hint="expected are GPQA's columns, or question, choice0 to choiceN, answer",
        )
    for number, line in enumerate(rows, start=1):
        if len(line) != len(names):
            raise FileFormatError(
                f"`{path}`, question {number} has {len(line)} cells, the heading has {len(names)}",
                hint="commas within a text need quotes around it",
            )
        yield f"question {number}", dict(zip(names, line, strict=True))


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(text) if path.suffix == ".json" else text.split("\n")
        for number, each in enumerate(rows, start=1):
            if isinstance(each, str) and not each.strip():
                continue
            row = json.loads(each) if path.suffix == ".jsonl" else each
            if not isinstance(row, Mapping):
                raise FileFormatError(f"`{path}`, line {number} is not a JSON object")
            yield f"line {number}", row
    except (json.JSONDecodeError, RecursionError, TypeError) as error:
        raise FileFormatError(f"`{path}` is not JSON lines: {error}") from None


def _question(where: str, row: Row) -> Question:
    lower = {str(name).strip().lower(): value for name, value in row.items()}
    text = _text(where, "question", lower.get("question"))
    ordered = "correct answer" not in lower
    choices = _listed(where, lower) if ordered else _correct_first(where, lower)
    if not 2 <= len(choices) <= MOST_CHOICES:
        raise FileFormatError(f"{where} has {len(choices)} choices, expected 2 to {MOST_CHOICES}")
    answer = _answer(where, lower, choices) if ordered else 0
    given = next((lower[n] for n in ("record id", "id", "question_id") if lower.get(n)), None)
    name = _digest([text, *choices]) if given is None else str(given).strip()
    return Question(name, text, choices, answer, ordered, row)


def _correct_first(where: str, row: Row) -> tuple[str, ...]:
    names = sorted(name for name in row if name.startswith("incorrect answer "))
    wrong = [_text(where, name, row[name]) for name in names if str(row[name] or "").strip()]
    return (_text(where, "correct answer", row["correct answer"]), *wrong)


def _listed(where: str, row: Row) -> tuple[str, ...]:
    given = row.get("choices", row.get("options"))
    if isinstance(given, Mapping):  # ARC's {"text": [...], "label": [...]}
        given = given.get("text")
    if given is None:
        numbered = sorted(
            (int(name[6:]), name) for name in row if name[:6] == "choice" and name[6:].isdigit()
        )
        lettered = [n for n in string.ascii_lowercase if n in row] if not numbered else []
        given = [row[name] for name in (*(name for _, name in numbered), *lettered)]
        given = [each for each in given if str(each).strip()]
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise FileFormatError(f"{where} has choices that are no list: {given!r:.100}")
    return tuple(_text(where, "choice", each) for each in given)


def _answer(where: str, row: Row, choices: Sequence[str]) -> int:
    given = row.get("answer", row.get("answerkey", row.get("answer_index")))
    text = str(given).strip()
    labels = row["choices"].get("label") if isinstance(row.get("choices"), Mapping) else None
    if isinstance(labels, Sequence) and text in labels:
        return labels.index(text)
    if text.isdigit() and not isinstance(given, bool) and int(text) < len(choices):
        return int(text)
    if _is_letter(text, len(choices)):
        return string.ascii_uppercase.index(text)
    if list(choices).count(text) == 1:
        return list(choices).index(text)
    raise FileFormatError(
        f"{where} has the answer {text!r:.60}, which is none of its {len(choices)} choices",
        hint="expected an index from 0, a letter, or the text of one choice",
    )


def _is_letter(text: str, count: int) -> bool:
    return len(text.strip()) == 1 and text.strip() in string.ascii_uppercase[:count]


def _text(where: str, name: str, value: Any) -> str:
    found = str(value).strip() if isinstance(value, str | int | float) else ""
    if not found:
        raise FileFormatError(f"{where} has no text in `{name}`")
    return found


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Asked:
    """A question as it is asked: `choices[i]` has letter i; `expected` is the correct letter."""

    question: Question
    repeat: int
    order: tuple[int, ...]

    @property
    def choices(self) -> dict[str, str]:
        """The choices by letter."""
        texts = (self.question.choices[index] for index in self.order)
        return dict(zip(string.ascii_uppercase, texts, strict=False))

    @property
    def letters(self) -> str:
        """The letters in use."""
        return string.ascii_uppercase[: len(self.order)]

    @property
    def expected(self) -> str:
        """The letter of the correct choice."""
        return string.ascii_uppercase[self.order.index(self.question.answer)]


def show(question: Question, seed: int, repeat: int = 0, keep_order: bool = False) -> Asked:
    """Put a question's choices in an order that depends on seed, question and repeat alone.

    They are sorted by SHA-256, so that it is the same on every machine. With `keep_order` it is
    that of the file.

    Raises:
        InputError: the order is to be kept, but the file has none.

    """
    places = range(len(question.choices))
    if keep_order:
        if not question.ordered:
            raise InputError(
                "the file gives its choices no order: the correct one is always the first",
                hint="leave `--keep-order` out",
            )
        return Asked(question, repeat, tuple(places))

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\n{repeat}\n{index}\n{question.id}".encode()).digest()

    return Asked(question, repeat, tuple(sorted(places, key=rank)))

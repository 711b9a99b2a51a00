"""What many answers show: counts with intervals, and formats compared question by question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, TypeAlias

from fewbit.measure.proportions import Proportion, wilson
from fewbit.measure.significance import mcnemar
from fewbit.tables import Page, Shown, Table

Result: TypeAlias = Literal["correct", "incorrect", "no_answer"]
RESULTS: tuple[Result, ...] = ("correct", "incorrect", "no_answer")
SCHEMA = "fewbit.benchmark/1"


@dataclass(frozen=True)
class Outcome:
    """How one question was answered: `shown` are its choices by letter, `answer` the letter read.

    `text` and `reasoning` are what the model wrote, None where they were not to be stored.
    """

    id: str
    repeat: int
    shown: dict[str, str]
    expected: str
    answer: str | None
    outcome: Result
    finish_reason: str
    prompt_tokens: int | None = None
    tokens: int | None = None
    reasoning_tokens: int | None = None
    seconds: float = 0.0
    logprobs: dict[str, float] | None = None
    question: str | None = None
    text: str | None = None
    reasoning: str | None = None

    def facts(self, shown: bool) -> dict[str, Any]:
        """The fields that are known; the choices' texts only if `shown`."""
        found = {
            name: value
            for name, value in vars(self).items()
            if value is not None or name == "answer"
        }
        return found if shown else {n: v for n, v in found.items() if n not in _TEXTS}


_TEXTS = ("shown", "question", "text", "reasoning")


@dataclass(frozen=True)
class Answers:
    """All answers of one format or model."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def total(self) -> int:
        """Answers, those of repeats included."""
        return len(self.outcomes)

    @property
    def questions(self) -> int:
        """Questions, each counted once."""
        return len({outcome.id for outcome in self.outcomes})

    def count(self, result: Result) -> int:
        """How many answers have this result."""
        return sum(outcome.outcome == result for outcome in self.outcomes)

    def fraction(self, result: Result) -> Proportion:
        """The fraction of answers with this result, and its 95 % Wilson interval.

        Repeats of a question tell little more than one answer, so the interval counts questions.
        """
        share = self.count(result) / max(self.total, 1)
        return wilson(share * self.questions, self.questions)

    @property
    def finish_reasons(self) -> dict[str, int]:
        """How many answers ended for each reason."""
        return dict(Counter(outcome.finish_reason for outcome in self.outcomes).most_common())

    @property
    def tokens(self) -> int:
        """Tokens that were written."""
        return sum(outcome.tokens or 0 for outcome in self.outcomes)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of prompts."""
        return sum(outcome.prompt_tokens or 0 for outcome in self.outcomes)

    @property
    def seconds(self) -> float:
        """Time of all answers; answers of a server overlap."""
        return sum(outcome.seconds for outcome in self.outcomes)

    def right(self) -> dict[str, int]:
        """For each question how many of its answers are correct."""
        found = dict.fromkeys((outcome.id for outcome in self.outcomes), 0)
        for outcome in self.outcomes:
            found[outcome.id] += outcome.outcome == "correct"
        return found

    def facts(self, shown: bool) -> dict[str, Any]:
        """Everything as JSON types; the choices' texts only if `shown`."""
        fractions = {name: vars(self.fraction(name)) for name in RESULTS}
        return {
            "name": self.name, **{name: self.count(name) for name in RESULTS},
            "total": self.total, "fractions": fractions, "finish_reasons": self.finish_reasons,
            "prompt_tokens": self.prompt_tokens, "tokens": self.tokens, "seconds": self.seconds,
            "questions": [outcome.facts(shown) for outcome in self.outcomes],
        }  # fmt: skip


@dataclass(frozen=True)
class Paired:
    """Two formats on the same questions: how many both, only one, or neither has right.

    `p` is the exact two-sided p value of McNemar's test that they are equally good. Of repeated
    questions the one with more correct answers counts as right alone; `both` are then those with
    equally many, and at least one.
    """

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def p(self) -> float:
        """The p value."""
        return mcnemar(self.only_first, self.only_second)

    @property
    def flips(self) -> int:
        """Questions that one has right and the other not."""
        return self.only_first + self.only_second


@dataclass(frozen=True)
class Benchmark(Shown):
    """The answers of one or several formats to the same questions.

    `options` say what was asked and how. It prints as tables without the text of any question.
    """

    answers: tuple[Answers, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def paired(self) -> list[Paired]:
        """Each two formats, question by question."""
        return [compare_answers(a, b) for a, b in combinations(self.answers, 2)]

    def facts(self, shown: bool = False) -> dict[str, Any]:
        """Everything as JSON types; the choices' texts only if `shown`.

        With one format its counts stand at the top, else in `answers`.
        """
        each = [answers.facts(shown) for answers in self.answers]
        found: dict[str, Any] = {"schema": SCHEMA, "options": dict(self.options)}
        if len(each) == 1:
            return found | each[0]
        pairs = [{**vars(pair), "p": pair.p} for pair in self.paired()]
        return {**found, "answers": each, "paired": pairs}

    def listing(self) -> Page:
        """Each question with the choices as they were shown, and what was answered."""
        lines: Page = []
        for answers in self.answers:
            for each in answers.outcomes:
                head = f"{answers.name}, {each.id}: {each.outcome}, {each.answer or 'none'}"
                choices = [f"  ({letter}) {text}" for letter, text in each.shown.items()]
                written = [] if each.text is None else [f"  wrote: {each.text}"]
                asked = [] if each.question is None else [f"  {each.question}"]
                lines += ["", f"{head}, expected {each.expected}", *asked, *choices, *written]
        return lines

    def page(self) -> Page:
        """As `fewbit benchmark` prints it."""
        table = Table(("", "correct", "95 %", "incorrect", "95 %", "no answer", "95 %", "tokens"))
        for answers in self.answers:
            cells = [cell for name in RESULTS for cell in _cells(answers, name)]
            table.add_row(answers.name, *cells, f"{answers.tokens:,}")
        lines = [_amount(self.answers)]
        for answers in self.answers:
            ends = ", ".join(f"{name} {n}" for name, n in answers.finish_reasons.items())
            lines.append(f"{answers.name}: ended by {ends}")
        pairs = self.paired()
        compared: Page = ["", _paired_table(pairs)] if pairs else []
        return [table, "", *lines, *compared]


def compare_answers(first: Answers, second: Answers) -> Paired:
    """Two formats on the questions that both have answered."""
    a, b = first.right(), second.right()
    pairs = [(a[name], b[name]) for name in a if name in b]
    return Paired(
        first.name, second.name,
        both=sum(x == y and x > 0 for x, y in pairs),
        only_first=sum(x > y for x, y in pairs),
        only_second=sum(x < y for x, y in pairs),
        neither=sum(x == y == 0 for x, y in pairs),
    )  # fmt: skip


def _cells(answers: Answers, result: Result) -> tuple[str, str]:
    found = answers.fraction(result)
    count = f"{answers.count(result)} ({100 * found.value:.1f} %)"
    return count, f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def _amount(answers: Sequence[Answers]) -> str:
    first = answers[0]
    repeats = first.total // max(first.questions, 1)
    again = f", {repeats} answers each" if repeats > 1 else ""
    return f"{first.questions:,} questions{again}; 95 % are Wilson intervals, in percent"


def _paired_table(pairs: Sequence[Paired]) -> Table:
    table = Table(
        ("first", "second", "both right", "only first", "only second", "neither", "McNemar p"),
        text=2, keys=2,
    )  # fmt: skip
    for pair in pairs:
        counts = (pair.both, pair.only_first, pair.only_second, pair.neither)
        table.add_row(pair.first, pair.second, *map(str, counts), f"{pair.p:.4g}")
    return table

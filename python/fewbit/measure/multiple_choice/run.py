"""Ask questions with several choices in one or several formats, and count the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from fewbit.callbacks import Progress
from fewbit.errors import InputError, did_you_mean
from fewbit.measure.candidates import base_name
from fewbit.measure.multiple_choice.answers import (
    Answer,
    Answerer,
    LikelihoodAnswerer,
    Prompted,
    TextAnswerer,
    Writing,
)
from fewbit.measure.multiple_choice.endpoint import Endpoint, EndpointAnswerer, EndpointLikelihoods
from fewbit.measure.multiple_choice.extract import read_answer
from fewbit.measure.multiple_choice.prompts import Prompt
from fewbit.measure.multiple_choice.questions import Asked, Question, read_questions, show
from fewbit.measure.multiple_choice.records import Records, key_of
from fewbit.measure.multiple_choice.results import Answers, Benchmark, Outcome, Result
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel

BUDGET = 4096
"""Tokens of reasoning after which it is ended, unless told otherwise."""
WAYS = ("text", "likelihood")
ORIGINAL = "original"
"""Among formats: the model as it is."""


@dataclass(frozen=True)
class Plan:
    """Which questions are asked, in which order of choices, and with which prompt."""

    questions: Sequence[Question]
    prompt: Prompt
    seed: int
    repeats: int
    keep_order: bool
    texts: bool

    def prompted(self) -> Iterator[Prompted]:
        """Each question with its prompt, all of a repeat before the next."""
        for repeat in range(self.repeats):
            for question in self.questions:
                asked = show(question, self.seed, repeat, self.keep_order)
                name = f"{self.seed}\n{repeat}\n{question.id}".encode()
                seed = int.from_bytes(hashlib.sha256(name).digest()[:6], "big")
                yield Prompted(asked, self.prompt.render(asked), seed)


def benchmark(
    model: LoadedModel | Endpoint,
    questions: str | PathLike[str] | Sequence[Question],
    *,
    formats: Sequence[str] = (),
    answer_by: str = "text",
    prompt: str | None = None,
    seed: int = 0,
    repeats: int = 1,
    temperature: float = 0.0,
    max_tokens: int = 30000,
    reasoning_budget: int | None = None,
    limit: int | None = None,
    keep_order: bool = False,
    parallel: int | None = None,
    acts: Activations = "int8",
    out: str | PathLike[str] | None = None,
    keep_texts: bool = False,
    progress: Progress | None = None,
) -> Benchmark:
    """Let a model answer multiple-choice questions, and count correct, incorrect and no answers.

    `questions` is a CSV file or JSON lines (`fewbit.measure.multiple_choice.questions` has the
    columns); the first `limit` are asked. `formats` quantizes the model to each; all see the same
    questions in the same order of choices, which depends on `seed`, question and repeat alone, or
    is that of the file (`keep_order`). "original" among the formats is the model as it is.
    `prompt` is "zero-shot", "cot" or a Jinja template's file.

    `answer_by` "text" lets the model write up to `max_tokens` tokens at `temperature` and reads
    the last explicit answer; its reasoning ends after `reasoning_budget` tokens (default 4,096;
    -1: no limit) and counts for nothing. "likelihood" takes the letter that the model holds
    likeliest behind the prompt. `parallel` texts are written at once; they do not change each
    other.

    With `out`, a folder, each answer is on disk as soon as it is complete, and the same call goes
    on where it ended. Texts of questions and answers are stored only with `keep_texts`.

    Raises:
        FileFormatError: the file of questions is damaged.
        InputError: an option is out of range, or the server refuses.
        FormatError: a format is unknown, or weights cannot be stored in it.

    """
    _check(
        answer_by, temperature,
        repeats=repeats, limit=limit, max_tokens=max_tokens, parallel=parallel,
    )  # fmt: skip
    given = reasoning_budget is not None
    tokens = BUDGET if reasoning_budget is None else reasoning_budget
    writing = Writing(temperature, max_tokens, None if tokens < 0 else tokens, acts, parallel)
    listed = read_questions(Path(questions)) if isinstance(questions, str | PathLike) else questions
    name = prompt or ("letter" if answer_by == "likelihood" else "zero-shot")
    plan = Plan(
        list(listed)[:limit], Prompt(name), seed, repeats, keep_order, texts=keep_texts
    )  # fmt: skip
    answerers = _answerers(model, formats, answer_by, writing, given)
    records = Records(Path(out)) if out is not None else None
    try:
        found = tuple(_run(plan, make, records, progress) for make in answerers)
    finally:
        if records:
            records.close()
    return Benchmark(found, {
        "prompt": name, "seed": seed, "repeats": repeats, "questions": len(plan.questions),
        "answer_by": answer_by, "temperature": temperature, "max_tokens": max_tokens,
        "reasoning_budget": tokens, "keep_order": keep_order,
    })  # fmt: skip


def _check(answer_by: str, temperature: float, **counts: int | None) -> None:
    if answer_by not in WAYS:
        raise InputError(
            f"answers cannot be found by `{answer_by}`",
            hint=f"{did_you_mean(answer_by, WAYS)}known: {', '.join(WAYS)}",
        )
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, expected 1 or more")
    if not 0 <= temperature < 100:
        raise InputError(f"temperature is {temperature}, expected 0 or more")


def _answerers(
    model: LoadedModel | Endpoint,
    formats: Sequence[str],
    answer_by: str,
    writing: Writing,
    budget_given: bool,
) -> list[Callable[[], Answerer]]:
    """What makes each answerer when its turn comes.

    Formats are chosen now, so that a wrong one is refused before the first question; weights are
    encoded when they are needed, so that one format's are held at a time.
    """
    if isinstance(model, Endpoint):
        if formats:
            raise InputError(
                "a server has no formats to choose", hint="name a model's file with `--model`"
            )
        if answer_by == "likelihood":
            return [lambda: EndpointLikelihoods(model, writing)]
        return [lambda: EndpointAnswerer(model, writing, budget_given)]
    kind = TextAnswerer if answer_by == "text" else LikelihoodAnswerer

    def maker(name: str) -> Callable[[], Answerer]:
        if name == ORIGINAL:
            return lambda: kind(model, base_name(model), writing)
        quantized = model.quantize(name)
        return lambda: kind(quantized, name, writing, owns_model=True)

    if len(set(formats)) < len(formats):
        raise InputError(f"a format is named twice: {', '.join(formats)}", hint="name each once")
    return [maker(name) for name in formats or (ORIGINAL,)]


def _run(
    plan: Plan,
    make: Callable[[], Answerer],
    records: Records | None,
    progress: Progress | None,
) -> Answers:
    """The answers of one format; those on disk are not asked for again."""
    answerer = make()
    identity, known = answerer.identity(), records.found if records else {}
    asked = list(plan.prompted())
    keys = [_key(identity, question) for question in asked]
    outcomes = {
        index: _stored(question.asked, known[key])
        for index, (question, key) in enumerate(zip(asked, keys, strict=True))
        if key in known
    }
    missing = [index for index in range(len(asked)) if index not in outcomes]
    for at, answer in answerer.answers([asked[index] for index in missing]) if missing else ():
        index = missing[at]
        outcomes[index] = _outcome(asked[index].asked, answer, plan.texts)
        if records:
            facts = outcomes[index].facts(shown=False)
            extra = _texts(outcomes[index]) if plan.texts else {}
            order = list(asked[index].asked.order)
            records.add({"key": keys[index], "name": answerer.name, "order": order, **facts,
                         **extra})  # fmt: skip
        if progress:
            progress(len(outcomes), len(asked), answerer.name)
    answerer.close()
    return Answers(answerer.name, tuple(outcomes[index] for index in range(len(asked))))


def _key(identity: dict[str, Any], question: Prompted) -> str:
    asked = question.asked
    return key_of([
        identity, question.prompt, question.seed, asked.repeat, asked.question.id,
        list(asked.question.choices), list(asked.order), asked.expected,
    ])  # fmt: skip


def _outcome(asked: Asked, answer: Answer, texts: bool) -> Outcome:
    letter = answer.chosen or read_answer(answer.content, asked.letters)
    result: Result = "no_answer"
    if letter is not None:
        result = "correct" if letter == asked.expected else "incorrect"
    found = Outcome(
        asked.question.id, asked.repeat, asked.choices, asked.expected, letter, result,
        answer.finish_reason, answer.prompt_tokens, answer.tokens, answer.reasoning_tokens,
        answer.seconds, answer.logprobs,
    )  # fmt: skip
    if not texts:
        return found
    return Outcome(**{
        **vars(found), "question": asked.question.text, "text": answer.content,
        "reasoning": answer.reasoning,
    })  # fmt: skip


def _stored(asked: Asked, record: dict[str, Any]) -> Outcome:
    names = [name for name in Outcome.__dataclass_fields__ if name != "shown" and name in record]
    return Outcome(shown=asked.choices, **{name: record[name] for name in names})


def _texts(outcome: Outcome) -> dict[str, Any]:
    return {"question": outcome.question, "text": outcome.text, "reasoning": outcome.reasoning}

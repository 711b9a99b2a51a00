"""Who answers: a model in this process, by the text that it writes or by how likely a letter is."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fewbit.generation.budget import Budget
from fewbit.generation.conversation import written_prompt
from fewbit.generation.defaults import sampling_for
from fewbit.generation.many import Request, write_many
from fewbit.generation.reasoning import marker_ids
from fewbit.measure.multiple_choice.questions import Asked
from fewbit.measure.score import Pair, pair_ids, score_ids
from fewbit.run.cpu import CpuBackend
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel
from fewbit.run.sampling import GREEDY, Sampling


@dataclass(frozen=True)
class Answer:
    """What came back for a question: `content` is the answer, `reasoning` what stands before it.

    `chosen` is the letter where it is known without reading the text. Counts are None where a
    server does not tell them.
    """

    content: str
    finish_reason: str
    reasoning: str = ""
    chosen: str | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    reasoning_tokens: int | None = None
    seconds: float = 0.0
    logprobs: dict[str, float] | None = None


@dataclass(frozen=True)
class Prompted:
    """A question with its prompt, and the seed of its answer."""

    asked: Asked
    prompt: str
    seed: int


class Answerer(Protocol):
    """Answers questions, several at a time, in the order in which they are complete."""

    name: str
    """What results call it: a format, or the name that a server has for its model."""

    def identity(self) -> dict[str, Any]:
        """What changes its answers, besides the prompt: JSON types."""

    def answers(self, questions: Sequence[Prompted]) -> Iterator[tuple[int, Answer]]:
        """Each answer with the index of its question."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class Writing:
    """How answers are written: see `fewbit.benchmark`."""

    temperature: float = 0.0
    max_tokens: int = 30000
    reasoning_budget: int | None = 4096
    acts: Activations = "int8"
    parallel: int | None = None


class TextAnswerer:
    """Lets a model write its answer, by its own chat template."""

    def __init__(
        self, model: LoadedModel, name: str, writing: Writing, owns_model: bool = False
    ) -> None:
        self.name = name
        self._model, self._writing, self._owns_model = model, writing, owns_model

    def identity(self) -> dict[str, Any]:
        """The model's files and formats, and how it writes."""
        writing = self._writing
        return {
            **model_identity(self._model), "by": "text", "temperature": writing.temperature,
            "max_tokens": writing.max_tokens, "budget": writing.reasoning_budget,
            "acts": writing.acts,
        }  # fmt: skip

    def answers(self, questions: Sequence[Prompted]) -> Iterator[tuple[int, Answer]]:
        """As `Answerer`; a prompt that does not fit the context has no answer."""
        requests: list[Request] = []
        places: list[int] = []
        for index, question in enumerate(questions):
            request = self._request(question)
            if len(request.prompt) >= self._model.config.context:
                yield index, Answer("", "context", prompt_tokens=len(request.prompt), tokens=0)
                continue
            requests.append(request)
            places.append(index)
        writing = self._writing
        for at, written in write_many(self._model, requests, writing.acts, writing.parallel):
            budget = requests[at].budget
            assert budget is not None
            budget.finish()
            yield places[at], Answer(
                budget.answer, written.finish, budget.reasoning, None, len(written.prompt),
                len(written.tokens), budget.tokens, written.seconds,
            )  # fmt: skip

    def close(self) -> None:
        """Free the model's weights, if they were made for these answers alone."""
        if self._owns_model:
            self._model.close()

    def _request(self, question: Prompted) -> Request:
        model, writing = self._model, self._writing
        text, ids, stop = written_prompt(model, question.prompt)
        budget = Budget(model.tokenizer, text, writing.reasoning_budget)
        spelled = marker_ids(model.tokenizer)
        return Request(
            ids, writing.max_tokens, self._sampling(question), stop, spelled, budget=budget
        )

    def _sampling(self, question: Prompted) -> Sampling:
        if self._writing.temperature == 0:
            return GREEDY
        return sampling_for(
            self._model.checkpoint, None, temperature=self._writing.temperature, seed=question.seed
        )


class LikelihoodAnswerer:
    """Takes the letter that the model holds likeliest behind the prompt."""

    def __init__(
        self, model: LoadedModel, name: str, writing: Writing, owns_model: bool = False
    ) -> None:
        self.name = name
        self._model, self._writing, self._owns_model = model, writing, owns_model

    def identity(self) -> dict[str, Any]:
        """The model's files and formats."""
        return {
            **model_identity(self._model), "by": "likelihood", "acts": self._writing.acts,
        }  # fmt: skip

    def answers(self, questions: Sequence[Prompted]) -> Iterator[tuple[int, Answer]]:
        """As `Answerer`, a group of questions at a time."""
        group = 64
        for begin in range(0, len(questions), group):
            yield from self._some(begin, questions[begin : begin + group])

    def close(self) -> None:
        """Free the model's weights, if they were made for these answers alone."""
        if self._owns_model:
            self._model.close()

    def _some(self, begin: int, questions: Sequence[Prompted]) -> Iterator[tuple[int, Answer]]:
        start, tokenizer = time.perf_counter(), self._model.tokenizer
        pairs: dict[tuple[int, str], Pair] = {}
        for index, question in enumerate(questions):
            found = {
                letter: pair_ids(tokenizer, question.prompt, f" {letter}")
                for letter in question.asked.letters
            }
            length = max(len(context) + len(ending) for context, ending in found.values())
            if length - 1 > self._model.config.context:
                yield begin + index, Answer("", "context", prompt_tokens=length)
                continue
            pairs |= {(index, letter): pair for letter, pair in found.items()}
        scores = score_ids(
            self._model, list(pairs.values()), self._writing.acts, self._writing.parallel
        )
        found_scores = dict(zip(pairs, scores, strict=True))
        seconds = (time.perf_counter() - start) / len(questions)
        for index in dict.fromkeys(index for index, _ in pairs):
            values = {name: s.logprob for (i, name), s in found_scores.items() if i == index}
            best = max(values, key=lambda letter: values[letter])
            context = len(pairs[index, best][0])
            yield begin + index, Answer(
                best, "likelihood", chosen=best, prompt_tokens=context, tokens=0, seconds=seconds,
                logprobs=values,
            )  # fmt: skip


def model_identity(model: LoadedModel) -> dict[str, Any]:
    """What tells a model from another: files, formats and how codes were chosen, cache, device.

    All processors give the same bits; each card may differ.
    """
    path = model.checkpoint.path
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    facts = [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]
    device = "cpu" if isinstance(model.backend, CpuBackend) else model.backend.name
    codes = hashlib.sha256(repr(getattr(model, "improvement", None)).encode())
    for name in sorted(model.importance):
        codes.update(name.encode() + model.importance[name].tobytes())
    return {
        "path": str(path.resolve()), "files": facts, "formats": sorted(model.formats.items()),
        "codes": codes.hexdigest(), "kv": model.kv, "device": device,
    }  # fmt: skip

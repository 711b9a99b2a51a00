"""Generate many texts at once: a text that ends makes room for the next one in the same step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.generation.budget import Budget
from fewbit.generation.continuation import Continuation, Finish
from fewbit.generation.slots import Reading, Rows, Slots
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel
from fewbit.run.sampler import choose_all, sampler_of
from fewbit.run.sampling import Sampling
from fewbit.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Request:
    """A text to write: the ids of its prompt, and when it ends.

    `spelled` are special tokens that show in the text; `budget` ends a thought that is too long.
    """

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    spelled: frozenset[int] = frozenset()
    shows_end: bool = False
    budget: Budget | None = None


@dataclass(frozen=True)
class Written:
    """A text that is complete: the ids of its prompt and its own, and why it ended.

    `seconds` is the time from its first step to its last, which it shared with other texts.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    finish: Finish
    seconds: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return self.text


def write_many(
    model: LoadedModel,
    requests: Sequence[Request],
    acts: Activations = "int8",
    parallel: int | None = None,
) -> Iterator[tuple[int, Written]]:
    """Write all texts, `parallel` at a time, and yield each with its index when it is complete.

    Raises:
        InputError: a prompt is empty or longer than the context, or `parallel` is below 1.

    """
    if not requests:
        return
    context = model.config.context
    for index, request in enumerate(requests):
        _check(index, request, context)
    capacity = max(min(context, len(r.prompt) + r.max_tokens) for r in requests)
    slots = Slots(model, len(requests), capacity, acts, parallel)
    slots.share([request.prompt for request in requests])
    waiting = deque(enumerate(requests))
    running: dict[int, _Text] = {}
    while waiting or running:
        for slot in range(slots.count):
            if slot not in running and waiting:
                index, request = waiting.popleft()
                slots.rewind(slot, request.prompt, len(request.prompt) - 1)
                running[slot] = _Text(model, slot, index, request, context)
        complete = [rows for rows in _step(slots, running) if len(rows.logits)]
        for slot in _choose(running, complete):
            text = running.pop(slot)
            yield text.index, text.written()


def generate_many(
    model: LoadedModel,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_tokens: int = 256,
    sampling: Sampling,
    stop: str | Sequence[str] = (),
    acts: Activations = "int8",
    parallel: int | None = None,
    progress: Progress | None = None,
    skip_special: bool = True,
) -> list[Written]:
    """The texts that `model` writes after each of `prompts`, in their order.

    Each is what `generate` alone writes with the same options, to the bit.

    Raises:
        InputError: `prompts` is one text, a prompt is empty or longer than the context, or an
            option is out of range.

    """
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
        raise InputError(
            f"prompts are {type(prompts).__name__}, expected a list of texts or of token ids"
        )
    if max_tokens < 1:
        raise InputError(f"cannot make {max_tokens} tokens", hint="use 1 or more")
    ends = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in ends:
        raise InputError("a stop string is empty", hint="leave it out")
    spelled = frozenset() if skip_special else model.tokenizer.special_ids
    requests = [
        Request(
            prompt_ids(model.tokenizer, prompt), max_tokens, sampling, ends, spelled,
            not skip_special,
        )
        for prompt in prompts
    ]  # fmt: skip
    found: dict[int, Written] = {}
    for index, written in write_many(model, requests, acts, parallel):
        found[index] = written
        if progress:
            progress(len(found), len(requests), "texts")
    return [found[index] for index in range(len(requests))]


def prompt_ids(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> list[int]:
    """The ids of a prompt that is continued: a text has no end token; an empty one has BOS."""
    if isinstance(prompt, bytes | bytearray):
        raise InputError("the prompt is bytes, expected text or token ids", hint="decode it first")
    ids = tokenizer.encode(prompt, special=True) if isinstance(prompt, str) else list(prompt)
    if isinstance(prompt, str) and len(ids) > 1 and ids[-1] == tokenizer.eos:
        ids.pop()  # added by tokenizers for training: a text that is continued has no end
    if not ids and tokenizer.bos is not None:
        ids = [tokenizer.bos]
    return ids


def _check(index: int, request: Request, context: int) -> None:
    length = len(request.prompt)
    if not length:
        raise InputError(
            f"prompt {index + 1} is empty", hint="give at least one token of text", index=index
        )
    if length >= context:
        raise InputError(
            f"prompt {index + 1} has {length} tokens, the context holds {context}",
            hint="leave room for at least one new token",
            index=index,
        )


class _Text:
    """A text that is being written in a slot."""

    def __init__(
        self, model: LoadedModel, slot: int, index: int, request: Request, context: int
    ) -> None:
        self.index = index
        self.request = request
        self.reading = Reading(slot, list(request.prompt), len(request.prompt) - 1)
        self._start = time.perf_counter()
        self._made = Continuation(
            model.tokenizer, request.prompt, max_tokens=request.max_tokens, context=context,
            stop=request.stop, spelled=request.spelled, shows_end=request.shows_end,
            budget=request.budget,
        )  # fmt: skip
        vocab = model.config.vocab
        self.sampler = sampler_of(request.sampling, model.tokenizer, vocab, request.prompt)

    def push(self, chosen: int) -> bool:
        """Take the next id, or the one that the budget forces; True if the text is complete."""
        budget = self.request.budget
        token = chosen if budget is None else budget.next(chosen)
        self._made.push(token)
        if self._made.finish is not None:
            return True
        self.sampler.accept([token])
        self.reading.ids.append(token)
        self.reading.wanted = len(self.reading.ids) - 1
        return False

    def written(self) -> Written:
        """The complete text."""
        made = self._made
        assert made.finish is not None
        return Written(
            tuple(self.request.prompt), tuple(made.tokens), made.text, made.finish,
            time.perf_counter() - self._start,
        )  # fmt: skip


def _step(slots: Slots, running: dict[int, _Text]) -> list[Rows]:
    return slots.step([text.reading for text in running.values()])


def _choose(running: dict[int, _Text], found: Sequence[Rows]) -> list[int]:
    """Give each text its next token; the slots of those that are complete now."""
    if not found:
        return []
    texts = [running[rows.reading.slot] for rows in found]
    logits = np.concatenate([rows.logits[-1:] for rows in found])
    tokens = choose_all(logits, [text.sampler for text in texts])
    return [
        text.reading.slot for text, token in zip(texts, tokens, strict=True) if text.push(token)
    ]

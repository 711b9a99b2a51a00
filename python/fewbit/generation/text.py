"""Generate text: a prompt goes in, tokens are chosen one by one, text comes out in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import InputError
from fewbit.generation import prompt_cache as cache_file
from fewbit.generation.budget import Budget
from fewbit.generation.continuation import Continuation, Finish
from fewbit.generation.defaults import default_sampling
from fewbit.run.limits import BATCH, Activations
from fewbit.run.model import LoadedModel
from fewbit.run.sampler import choose, sampler_of
from fewbit.run.sampling import Sampling


class Session:
    """A KV cache and the tokens in it, which a conversation keeps between its turns."""

    def __init__(
        self, model: LoadedModel, context: int | None = None, acts: Activations = "int8"
    ) -> None:
        """Make a cache for `context` tokens, by default the context the model was trained with.

        Raises:
            InputError: `context` is above the model's, or below 2.

        """
        most = model.config.context
        if context is not None and not 2 <= context <= most:
            raise InputError(
                f"a context of {context} tokens, expected 2 to {most}",
                hint="the upper limit is the context that the model was trained with",
                context=context,
            )
        self.model = model
        self.acts = acts
        self.context = context or most
        self.ids: list[int] = []
        self._cache = model.cache(1, self.context)

    @property
    def full(self) -> bool:
        """Whether no further token fits."""
        return len(self.ids) >= self.context

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The logits [vocab] after `ids`; only tokens that the cache lacks are computed.

        Raises:
            InputError: there are no ids, or more than the context holds.

        """
        if not ids:
            raise InputError("the prompt is empty", hint="give at least one token of text")
        if len(ids) >= self.context:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the context holds {self.context}",
                hint="leave room for at least one new token",
                tokens=len(ids),
                context=self.context,
            )
        length = min(_shared_prefix(self.ids, ids), len(ids) - 1)
        length = self._cache.reachable(0, length)
        self._cache.truncate(0, length)
        self.ids = list(ids[:length])
        while len(self.ids) < len(ids):
            row = self._forward(ids[len(self.ids) : len(self.ids) + BATCH])
        return row

    def save(self, path: str | PathLike[str]) -> None:
        """Write the KV cache with its tokens to a file that `load` reads.

        Raises:
            UnsupportedError: the cache is on a card.
            OSError: the file cannot be written.

        """
        cache_file.write(path, self.model, self._cache, self.ids, self.acts)

    def saver(self, path: str | PathLike[str]) -> Callable[[], None]:
        """What calls `save`, once it is certain that the cache can be saved.

        Raises:
            UnsupportedError: the cache is on a card.

        """
        cache_file.on_host(self._cache)
        return partial(self.save, path)

    def load(self, path: str | PathLike[str]) -> int:
        """Take over the tokens of a file that `save` wrote; returns their number.

        What follows has the bits that it would have without the file. `feed` computes only what
        differs. On an error the session is as before.

        Raises:
            FileFormatError: the file is damaged, or no prompt cache.
            InputError: it was made with another model, format, type of KV cache or version, or has
                more tokens than the context.
            UnsupportedError: the cache is on a card.
            OSError: the file cannot be read.

        """
        ids, data = cache_file.read(path, self.model, self.acts)
        if len(ids) > self.context:
            raise InputError(
                f"the prompt cache `{path}` has {len(ids)} tokens, "
                f"the context holds {self.context}",
                hint="take a larger context, or delete the file",
                tokens=len(ids),
                context=self.context,
            )
        self.take(ids, data)
        return len(ids)

    def take(self, ids: Sequence[int], data: NDArray[np.uint8]) -> None:
        """Take over tokens whose keys, values and state are the bytes `data` of a prompt cache.

        Raises:
            InputError: the bytes are of another cache.
            UnsupportedError: the cache is on a card.

        """
        cache_file.on_host(self._cache).import_(0, len(ids), data)
        self.ids = list(ids)

    def step(self, token: int) -> NDArray[np.float32]:
        """The logits [vocab] after one more token."""
        return self._forward([token])

    def follow(
        self,
        token: int,
        sampling: Sampling,
        sampler: _core.Sampler,
        budget: Budget | None = None,
    ) -> Generator[int]:
        """The tokens after `token`, until the context is full; each is computed when asked for.

        A device that can choose tokens itself does so, a few steps ahead, unless some may be given
        by `budget`. `sampler` was made from `sampling`.
        """
        most = self.context - len(self.ids)
        found = None
        if budget is None:
            found = self.model.decode(self._cache, token, sampling, sampler.seed, self.acts, most)
        if found is None:
            while not self.full:
                token = self.choose(self.step(token), sampler, budget)
                yield token
            return
        try:
            for following in found:
                self.ids.append(token)
                token = following
                yield token
        finally:
            found.close()

    def choose(
        self,
        logits: NDArray[np.float32],
        sampler: _core.Sampler,
        budget: Budget | None = None,
    ) -> int:
        """The next token's id from its logits [vocab], or from `budget`; the sampler accepts it.

        Raises:
            InputError: the logits hold NaN or +inf, or nothing but -inf.

        """
        token = choose(logits, sampler)
        if budget is not None:
            token = budget.next(token)
        sampler.accept([token])
        return token

    def _forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        last = np.array([len(ids) - 1], np.uint32)
        rows = self.model.forward(self._cache, list(ids), outputs=last, acts=self.acts)
        self.ids.extend(ids)
        row: NDArray[np.float32] = rows[0]
        return row


class Generation(Iterator[str]):
    """Text that is being generated: iterate over its pieces; `text` and the counts grow.

    `finish` is None until the end. `prompt_seconds` is the time to the first token, `seconds` the
    time of all later steps, which alone count in `tokens_per_second`. `sampling` says how tokens
    are drawn.
    """

    def __init__(
        self,
        session: Session,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: Sampling,
        stop: str | Sequence[str],
        spelled: frozenset[int] = frozenset(),
        shows_end: bool = False,
        after_prompt: Callable[[], None] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.prompt = list(prompt)
        self.prompt_seconds = 0.0
        self.seconds = 0.0
        self._session = session
        self.sampling = sampling
        self._after_prompt, self._budget = after_prompt, budget
        tokenizer = session.model.tokenizer
        self._made = Continuation(
            tokenizer, self.prompt, max_tokens=max_tokens, context=session.context, stop=stop,
            spelled=spelled, shows_end=shows_end, budget=budget,
        )  # fmt: skip
        self._sampler = sampler_of(sampling, tokenizer, session.model.config.vocab)
        self._pieces = self._run()

    @property
    def tokens(self) -> list[int]:
        """The tokens of the text so far, without a stop token."""
        return self._made.tokens

    @property
    def text(self) -> str:
        """The text so far."""
        return self._made.text

    @property
    def finish(self) -> Finish | None:
        """Why the text ended; None until then."""
        return self._made.finish

    def __next__(self) -> str:
        return next(self._pieces)

    def __str__(self) -> str:
        """The whole text; what is not made yet is made now."""
        for _ in self:
            pass
        return self.text

    def __repr__(self) -> str:
        state = self.finish or "running"
        return f"<fewbit Generation: {len(self.tokens)} tokens, {state}: {self.text!r}>"

    @property
    def tokens_per_second(self) -> float:
        """Steps per second after the prompt; 0 where there was no step."""
        steps = max(len(self.tokens) - 1, 0)
        return steps / self.seconds if self.seconds else 0.0

    def _run(self) -> Iterator[str]:
        session, sampler, made = self._session, self._sampler, self._made
        start = time.perf_counter()
        logits = session.feed(self.prompt)
        sampler.accept(self.prompt)
        token = session.choose(logits, sampler, self._budget)
        self.prompt_seconds = time.perf_counter() - start
        if self._after_prompt is not None:
            self._after_prompt()
        following = session.follow(token, self.sampling, sampler, self._budget)
        try:
            while True:
                if piece := made.push(token):
                    yield piece
                if made.finish is not None:
                    return
                start = time.perf_counter()
                token = next(following)
                self.seconds += time.perf_counter() - start
        finally:
            following.close()


def generate(
    model: LoadedModel,
    prompt: str | Sequence[int],
    *,
    max_tokens: int = 256,
    sampling: Sampling | None = None,
    stop: str | Sequence[str] = (),
    acts: Activations = "int8",
    session: Session | None = None,
    spelled: frozenset[int] = frozenset(),
    skip_special: bool = True,
    prompt_cache: str | PathLike[str] | None = None,
    budget: Budget | None = None,
) -> Generation:
    """Generate the text that `model` writes after `prompt`, a text or token ids.

    Text ends at a token that the model marks as an end, at one of the `stop` strings (left out
    of the text), after `max_tokens` tokens, or when the context is full. A `session` keeps its
    KV cache for the next call. Special tokens do not show in the text, except those in `spelled`;
    without `skip_special` all of them do, the end token too. `sampling` None means the one that
    the model's files recommend (`Model.sampling`).

    The file `prompt_cache` keeps the KV cache of the prompt: what a prompt shares with that of the
    last call is not computed again. It is made if it does not exist, and written when the prompt
    has been read. It is not taken together with a `session`, which has `load` and `save`. `budget`
    gives tokens that end a reasoning.

    Raises:
        InputError: the prompt is empty or longer than the context, an option is out of range, or
            the prompt cache is of another model.
        FileFormatError: the prompt cache is damaged.

    """
    if isinstance(prompt, bytes | bytearray):
        raise InputError("the prompt is bytes, expected text or token ids", hint="decode it first")
    tokenizer = model.tokenizer
    ids = tokenizer.encode(prompt, special=True) if isinstance(prompt, str) else list(prompt)
    if isinstance(prompt, str) and len(ids) > 1 and ids[-1] == tokenizer.eos:
        ids.pop()  # added by tokenizers for training: a text that is continued has no end
    if not ids and tokenizer.bos is not None:
        ids = [tokenizer.bos]
    after_prompt = None
    if session is None:
        stored = None if prompt_cache is None else _stored(prompt_cache, model, acts)
        needed = max(len(ids) + max_tokens, len(stored[0]) + 1 if stored else 2)
        session = Session(model, max(min(model.config.context, needed), 2), acts)
        if stored:
            session.take(*stored)
        if prompt_cache is not None and not (stored and stored[0] == ids):
            after_prompt = session.saver(prompt_cache)
    if not skip_special:
        spelled = tokenizer.special_ids
    drawn = sampling or default_sampling(model.checkpoint)
    return Generation(
        session,
        ids,
        max_tokens,
        drawn,
        stop,
        spelled,
        not skip_special,
        after_prompt,
        budget,
    )


def _stored(
    path: str | PathLike[str], model: LoadedModel, acts: Activations
) -> tuple[list[int], NDArray[np.uint8]] | None:
    """What a prompt cache holds; None if there is no file."""
    return cache_file.read(path, model, acts) if Path(path).exists() else None


def _shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count

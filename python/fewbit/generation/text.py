"""Generate text: a prompt goes in, tokens are chosen one by one, text comes out in pieces."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError
from fewbit.generation.defaults import default_sampling
from fewbit.generation.reasoning import first_of, held_back
from fewbit.run.limits import BATCH, Activations
from fewbit.run.model import LoadedModel
from fewbit.run.penalties import Penalties
from fewbit.run.sampling import Sampling, choose

Finish = Literal["stop", "length", "context"]
"""Why text ended: a stop token or string, the limit on new tokens, or a full context."""


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

    def step(self, token: int) -> NDArray[np.float32]:
        """The logits [vocab] after one more token."""
        return self._forward([token])

    def follow(
        self,
        token: int,
        sampling: Sampling,
        rng: np.random.Generator,
        penalties: Penalties | None = None,
    ) -> Generator[int]:
        """The tokens after `token`, until the context is full; each is computed when asked for.

        A device that can choose tokens itself does so, a few steps ahead. `penalties` change the
        logits before a choice.
        """
        most = self.context - len(self.ids)
        found = self.model.decode(self._cache, token, sampling, rng, self.acts, most)
        if found is None:
            while not self.full:
                token = self.choose(self.step(token), sampling, rng, penalties)
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
        sampling: Sampling,
        rng: np.random.Generator,
        penalties: Penalties | None = None,
    ) -> int:
        """The next token's id from its logits [vocab]; `penalties` see the session's tokens.

        Raises:
            InputError: the logits hold NaN or +inf, or nothing but -inf.

        """
        if penalties is None:
            return choose(logits, sampling, rng)
        return choose(penalties.apply(logits, self.ids), sampling, rng)

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
    ) -> None:
        if max_tokens < 1:
            raise InputError(f"cannot make {max_tokens} tokens", hint="use 1 or more")
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stop:
            raise InputError("a stop string is empty", hint="leave it out")
        self.prompt = list(prompt)
        self.tokens: list[int] = []
        self.text = ""
        self.finish: Finish | None = None
        self.prompt_seconds = 0.0
        self.seconds = 0.0
        self._session = session
        self._limit = max_tokens
        self.sampling = sampling
        self._stop = stop
        self._spelled = spelled
        self._shows_end = shows_end
        self._penalties = _penalties(session.model, sampling)
        self._pieces = self._run()

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
        held = ""  # may become a stop string
        for piece in self._decode():
            held += piece
            if (found := first_of(held, self._stop)) is not None:
                self.finish, held = "stop", held[: found[0]]
                break
            ready = len(held) - held_back(held, self._stop)
            if ready:
                self.text += held[:ready]
                yield held[:ready]
                held = held[ready:]
        if held:
            self.text += held
            yield held

    def _decode(self) -> Iterator[str]:
        decoder = self._session.model.tokenizer.decoder(self.prompt, self._spelled)
        for token in self._choose():
            yield decoder.push(token)
        yield decoder.finish()

    def _choose(self) -> Iterator[int]:
        session, sampling, rng = self._session, self.sampling, self.sampling.generator()
        start = time.perf_counter()
        logits = session.feed(self.prompt)
        token = session.choose(logits, sampling, rng, self._penalties)
        self.prompt_seconds = time.perf_counter() - start
        following = session.follow(token, sampling, rng, self._penalties)
        try:
            yield from self._until_end(token, following)
        finally:
            following.close()

    def _until_end(self, token: int, following: Generator[int]) -> Iterator[int]:
        session = self._session
        while True:
            if token in session.model.tokenizer.stop_ids:
                self.finish = "stop"
                if self._shows_end:
                    yield token
                return
            self.tokens.append(token)
            yield token
            if len(self.tokens) >= self._limit or session.full:
                self.finish = "length" if len(self.tokens) >= self._limit else "context"
                return
            start = time.perf_counter()
            token = next(following)
            self.seconds += time.perf_counter() - start


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
) -> Generation:
    """Generate the text that `model` writes after `prompt`, a text or token ids.

    Text ends at a token that the model marks as an end, at one of the `stop` strings (left out
    of the text), after `max_tokens` tokens, or when the context is full. A `session` keeps its
    KV cache for the next call. Special tokens do not show in the text, except those in `spelled`;
    without `skip_special` all of them do, the end token too. `sampling` None means the one that
    the model's files recommend (`Model.sampling`).

    Raises:
        InputError: the prompt is empty or longer than the context, or an option out of range.

    """
    if isinstance(prompt, bytes | bytearray):
        raise InputError("the prompt is bytes, expected text or token ids", hint="decode it first")
    tokenizer = model.tokenizer
    ids = tokenizer.encode(prompt, special=True) if isinstance(prompt, str) else list(prompt)
    if isinstance(prompt, str) and len(ids) > 1 and ids[-1] == tokenizer.eos:
        ids.pop()  # added by tokenizers for training: a text that is continued has no end
    if not ids and tokenizer.bos is not None:
        ids = [tokenizer.bos]
    if session is None:
        context = max(min(model.config.context, len(ids) + max_tokens), 2)
        session = Session(model, context, acts)
    if not skip_special:
        spelled = tokenizer.special_ids
    drawn = sampling or default_sampling(model.checkpoint)
    return Generation(session, ids, max_tokens, drawn, stop, spelled, not skip_special)


def _penalties(model: LoadedModel, sampling: Sampling) -> Penalties | None:
    """What changes the logits before a choice; None if the sampling leaves them."""
    if not sampling.changes_logits:
        return None
    return Penalties(sampling, model.tokenizer, model.config.vocab)


def _shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count

"""Windows of tokens to calibrate on: of a text, or written by the model itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.measure.evaluate import windows
from fewbit.run.model import LoadedModel

CTX = 512
WINDOWS = 128
"""Windows of `CTX` tokens that the model writes unless another number is given."""
HELD_OUT = 8
"""One window in this many is held out: codes are judged on it, not made from it."""
FEWEST = 16
"""Fewer windows give a warning."""
_AT_A_TIME = 64


@dataclass(frozen=True)
class Calibration:
    """Token ids [windows, tokens], uint32, and a few words on where they come from."""

    tokens: NDArray[np.uint32]
    source: str

    @classmethod
    def sampled(cls, tokens: NDArray[np.uint32]) -> Self:
        """Windows that the model wrote itself."""
        count, ctx = tokens.shape
        return cls(tokens, f"{count} windows of {ctx} tokens that the model wrote")

    @property
    def fitted(self) -> NDArray[np.uint32]:
        """The windows that codes are made from."""
        return self.tokens[~self._held_out()]

    @property
    def held_out(self) -> NDArray[np.uint32]:
        """The windows that codes are judged on."""
        return self.tokens[self._held_out()]

    @property
    def digest(self) -> str:
        """A fingerprint of the tokens."""
        shape = np.array(self.tokens.shape, np.uint64)
        return hashlib.sha256(shape.tobytes() + self.tokens.tobytes()).hexdigest()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons why codes made from it may be no better."""
        count = len(self.tokens)
        if count >= FEWEST:
            return ()
        return (
            f"{count} windows of {self.tokens.shape[1]} tokens are few: codes may fit them and "
            f"nothing else; {FEWEST} and more are better",
        )

    def _held_out(self) -> NDArray[np.bool_]:
        every = min(HELD_OUT, len(self.tokens))
        found = np.zeros(len(self.tokens), np.bool_)
        found[every - 1 :: every] = True
        return found


def text_calibration(
    model: LoadedModel, text: str, count: int | None = None, source: str = "a text", ctx: int = CTX
) -> Calibration:
    """The windows of a text, as `perplexity` cuts them; `count` of them, evenly spaced.

    Raises:
        InputError: the text is too short for two windows.

    """
    ctx = min(ctx, model.config.context)
    found = windows(model, text, ctx).inputs
    if count is not None and count < len(found):
        _check_count(count)
        found = found[np.linspace(0, len(found) - 1, count).round().astype(int)]
    return Calibration(found, f"{len(found)} windows of {ctx} tokens of {source}")


def sampled_calibration(
    model: LoadedModel,
    count: int = WINDOWS,
    seed: int = 0,
    ctx: int = CTX,
    progress: Progress | None = None,
) -> Calibration:
    """Windows that the model writes itself, at temperature 1 from its begin token.

    Each window has its own stream of random numbers, so a window does not depend on their number.
    After a token that ends a text the next text begins. A vocabulary without a begin token begins
    with its end token, one without both with a token drawn evenly.

    Raises:
        InputError: `count` is below 2 or `seed` below 0.

    """
    _check_count(count)
    if seed < 0:
        raise InputError(f"a seed is 0 or more, got {seed}", seed=seed)
    ctx = min(ctx, model.config.context)
    found = np.concatenate(
        [
            _write(model, range(start, min(start + _AT_A_TIME, count)), seed, ctx, count, progress)
            for start in range(0, count, _AT_A_TIME)
        ]
    )
    return Calibration.sampled(found)


def _check_count(count: int) -> None:
    if count < 2:
        raise InputError(
            f"cannot calibrate on {count} windows", hint="use 2 or more", windows=count
        )


def _write(
    model: LoadedModel, numbers: range, seed: int, ctx: int, total: int, progress: Progress | None
) -> NDArray[np.uint32]:
    """The windows `numbers`, side by side, [windows, ctx]."""
    streams = [np.random.default_rng((seed, number)) for number in numbers]
    first = _first(model)
    ends = [token for token in model.tokenizer.stop_ids if token != first]
    cache = model.cache(len(streams), ctx)
    sequences = np.arange(len(streams), dtype=np.uint32)
    found = np.empty((len(streams), ctx), np.uint32)
    found[:, 0] = [rng.integers(model.config.vocab) if first is None else first for rng in streams]
    for at in range(1, ctx):
        logits = model.forward(cache, found[:, at - 1], sequences, sequences)
        draws = np.array([rng.random() for rng in streams])
        found[:, at] = _drawn(logits, draws)
        if first is not None:
            found[np.isin(found[:, at - 1], ends), at] = first
        if progress:
            progress(numbers.start * ctx + at * len(streams), total * ctx, "writing text")
    return found


def _first(model: LoadedModel) -> int | None:
    tokenizer = model.tokenizer
    return tokenizer.bos if tokenizer.bos is not None else tokenizer.eos


def _drawn(logits: NDArray[np.float32], draws: NDArray[np.float64]) -> NDArray[np.uint32]:
    """A token of each row at temperature 1, by a number in [0, 1)."""
    chosen = np.empty(len(logits), np.uint32)
    for row, draw in enumerate(draws):
        sums = np.cumsum(np.exp(logits[row].astype(np.float64) - float(logits[row].max())))
        chosen[row] = min(np.searchsorted(sums, draw * sums[-1], side="right"), len(sums) - 1)
    return chosen

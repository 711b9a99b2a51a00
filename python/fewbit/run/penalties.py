"""Change logits before a token is drawn: logit bias, penalties on repetition, and DRY.

Formulas and order are llama.cpp's; `reference/sampling.py` defines them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError
from fewbit.run.sampling import Sampling
from fewbit.tokenizer.tokenizer import Tokenizer

Breakers: TypeAlias = Mapping[int, Sequence[tuple[int, ...]]]
"""For each id that begins a sequence breaker, the ids that may follow it to complete one."""

_MAX_BREAKER_LENGTH = 40
_MAX_TAIL = 20
_LARGEST_LOG = 88.7228391  # of the largest binary32 number


class Penalties:
    """What a `Sampling` does to logits before its filters, for one vocabulary."""

    def __init__(self, sampling: Sampling, tokenizer: Tokenizer, vocab: int) -> None:
        """Prepare the sequence breakers of `tokenizer`; logits have `vocab` elements.

        Raises:
            InputError: a logit bias names a token beyond the vocabulary.

        """
        wrong = [token for token in sampling.logit_bias if token >= vocab]
        if wrong:
            raise InputError(
                f"logit bias of token {wrong[0]}, the vocabulary has {vocab} tokens",
                hint=f"ids run from 0 to {vocab - 1}",
                token=wrong[0],
            )
        self._sampling = sampling
        texts = sampling.dry_sequence_breakers if sampling.dry_multiplier else ()
        self._breakers: Breakers = breakers_of(tokenizer, texts) if texts else {}

    def apply(self, logits: NDArray[np.float32], history: Sequence[int]) -> NDArray[np.float64]:
        """The changed logits [vocab], f64, after the ids `history`, prompt and text."""
        sampling, changed = self._sampling, logits.astype(np.float64)
        for token, bias in sampling.logit_bias.items():
            changed[token] += bias
        if sampling.penalizes:
            recent = _last(history, sampling.repeat_last_n)
            penalize(
                changed, recent, sampling.repeat_penalty, sampling.presence_penalty,
                sampling.frequency_penalty,
            )  # fmt: skip
        if sampling.dry_multiplier:
            self._dry(changed, _last(history, sampling.dry_penalty_last_n))
        return changed

    def _dry(self, logits: NDArray[np.float64], recent: NDArray[np.int64]) -> None:
        allowed, base = self._sampling.dry_allowed_length, self._sampling.dry_base
        limit = repeat_limit(recent, self._breakers)
        if limit < allowed:
            return
        most = int(_LARGEST_LOG / math.log(base)) if base > 1.000001 else 0
        # longer repetitions cost no more than `most`, so their length need not be known
        for token, length in repeats(recent, min(limit, allowed + most) if most else limit).items():
            if length >= allowed and () not in self._breakers.get(token, ()):
                logits[token] -= self._sampling.dry_multiplier * base ** (length - allowed)


def penalize(
    logits: NDArray[np.float64],
    recent: NDArray[np.int64],
    repeat: float,
    presence: float,
    frequency: float,
) -> None:
    """Lower the logits of tokens in `recent`, in place."""
    tokens, counts = np.unique(recent, return_counts=True)
    found = logits[tokens]
    found = np.where(found > 0, found / repeat, found * repeat)
    logits[tokens] = found - counts * frequency - presence


def repeat_limit(recent: NDArray[np.int64], breakers: Breakers) -> int:
    """How many tokens at the end of `recent` follow its last sequence breaker."""
    ids = recent.tolist()
    for start in range(len(ids) - 1, -1, -1):
        tails = breakers.get(ids[start])
        if tails is None:
            continue
        behind = tuple(ids[start + 1 : start + 1 + _MAX_TAIL])
        lengths = [len(tail) for tail in tails if tail == behind[: len(tail)]]
        if lengths:
            return len(ids) - 1 - start - max(lengths)
    return len(ids)


def repeats(recent: NDArray[np.int64], limit: int) -> dict[int, int]:
    """For each token the length, at most `limit`, of the longest repetition that it continues."""
    found: dict[int, int] = {}
    ends = np.flatnonzero(recent[:-1] == recent[-1])  # where the last token stands earlier
    length = 1
    while ends.size and length <= limit:
        found |= dict.fromkeys(recent[ends + 1].tolist(), length)
        ends = ends[ends >= length]
        ends = ends[recent[ends - length] == recent[-1 - length]]
        length += 1
    return found


@lru_cache(maxsize=8)
def breakers_of(tokenizer: Tokenizer, texts: tuple[str, ...]) -> Breakers:
    """The tokens that begin one of the sequence breakers `texts`, and what completes each.

    A token that contains a breaker is one alone; a token whose end begins one needs the rest.
    """
    ids = range(tokenizer.backend.get_vocab_size(with_added_tokens=True))
    words = tokenizer.backend.decode_batch([[id_] for id_ in ids], skip_special_tokens=False)
    found: dict[int, list[tuple[int, ...]]] = {}
    for text in (each[:_MAX_BREAKER_LENGTH] for each in texts):
        for id_, word in enumerate(words):
            for tail in _tails(word, text):
                rest = tuple(tokenizer.encode(tail, special=False)[:_MAX_TAIL]) if tail else ()
                if rest not in found.setdefault(id_, []):
                    found[id_].append(rest)
    return found


def _tails(word: str, text: str) -> list[str]:
    """What must follow `word` so that it completes `text`, for each place where `text` begins."""
    if text in word:
        return [""]
    starts = (i for i, first in enumerate(word) if first == text[0])
    return [text[len(word) - i :] for i in starts if text.startswith(word[i:])]


def _last(history: Sequence[int], window: int) -> NDArray[np.int64]:
    ids = history if window < 0 else history[max(len(history) - window, 0) :]
    return np.array(ids, np.int64)

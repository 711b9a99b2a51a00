"""Build the core's sampler of a sequence, and choose tokens with it.

The core computes logit bias, penalties on repetition and DRY by llama.cpp's formulas, which
`reference/sampling.py` defines, then the filters and the draw of `reference/draw.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import InputError
from fewbit.run.sampling import Sampling, refuse_logits
from fewbit.tokenizer.tokenizer import Tokenizer

Breakers: TypeAlias = Mapping[int, Sequence[tuple[int, ...]]]
"""For each id that begins a sequence breaker, the ids that may follow it to complete one."""

_MAX_BREAKER_LENGTH = 40
_MAX_TAIL = 20
_MOST = 2**62
"""Stands for any larger whole number: no sequence has as many tokens."""


def sampler_of(
    sampling: Sampling, tokenizer: Tokenizer, vocab: int, history: Sequence[int] = ()
) -> _core.Sampler:
    """The core's sampler for one sequence whose tokens so far are `history`.

    Its draws depend on the seed and on how many tokens came before. Without a seed in `sampling`
    each sampler has its own.

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
    seed = secrets.randbits(64) if sampling.seed is None else int(sampling.seed)
    texts = sampling.dry_sequence_breakers if sampling.dry_multiplier else ()
    sampler = _core.Sampler(
        seed=seed, temperature=sampling.temperature, top_k=min(sampling.top_k, _MOST),
        top_p=sampling.top_p, min_p=sampling.min_p, logit_bias=list(sampling.logit_bias.items()),
        repeat_penalty=sampling.repeat_penalty, repeat_last_n=min(sampling.repeat_last_n, _MOST),
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty, dry_multiplier=sampling.dry_multiplier,
        dry_base=sampling.dry_base, dry_allowed_length=min(sampling.dry_allowed_length, _MOST),
        dry_penalty_last_n=min(sampling.dry_penalty_last_n, _MOST),
        breakers=breakers_of(tokenizer, texts) if texts else {},
    )  # fmt: skip
    sampler.accept(list(history))
    return sampler


def choose(logits: NDArray[np.float32], sampler: _core.Sampler) -> int:
    """The next token's id from its logits [vocab]; the sampler does not take it as accepted.

    Raises:
        InputError: the logits hold NaN or +inf, or nothing but -inf.

    """
    return choose_all(logits[np.newaxis], [sampler])[0]


def choose_all(logits: NDArray[np.float32], samplers: Sequence[_core.Sampler]) -> list[int]:
    """The next token's id of each row of logits [n, vocab], whose sampler does not accept it yet.

    Raises:
        InputError: the logits of a row hold NaN or +inf, or nothing but -inf.

    """
    ids, _ = _core.sample(logits, samplers)
    found: list[int] = ids.tolist()
    if _core.NO_TOKEN in found:
        at = found.index(_core.NO_TOKEN)
        raise refuse_logits(float(samplers[at].changed(logits[at]).max()))
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

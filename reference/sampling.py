"""Change logits before a token is drawn: bias, penalties on repetition, and DRY.

The formulas and their order (bias, penalties, DRY) are llama.cpp's (`src/llama-sampling.cpp`).
`history` holds the ids of all tokens so far, prompt and text, the oldest first. `window` tokens at
its end count, -1 for all of them, 0 for none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Row = Sequence[float]
Breakers = Mapping[int, Sequence[Sequence[int]]]
"""For each id that begins a sequence breaker, the ids that may follow it to complete one."""

MAX_BREAKER_LENGTH = 40
"""Characters of a sequence breaker that count."""
MAX_TAIL = 20
"""Tokens of a breaker behind its first."""
LARGEST_LOG = 88.7228391
"""Natural logarithm of the largest binary32 number: DRY's power stays below it."""


def last(history: Sequence[int], window: int) -> list[int]:
    """Return the `window` last tokens, all of them for -1.

    >>> last([1, 2, 3], 2), last([1, 2, 3], 0), last([1, 2, 3], -1)
    ([2, 3], [], [1, 2, 3])
    """
    return list(history) if window < 0 else list(history[max(len(history) - window, 0) :])


def biased(logits: Row, bias: Mapping[int, float]) -> list[float]:
    """Add a constant to the logits of some tokens; -inf forbids a token.

    >>> biased([1.0, 2.0], {1: 0.5})
    [1.0, 2.5]
    """
    return [value + bias.get(token, 0.0) for token, value in enumerate(logits)]


def repeated(
    logits: Row, recent: Sequence[int], repeat: float, presence: float, frequency: float
) -> list[float]:
    """Lower the logits of tokens in `recent`.

    A positive logit is divided by `repeat` and another multiplied by it (CTRL, arXiv 1909.05858);
    then `frequency` is subtracted once for each occurrence and `presence` once, as in OpenAI's API.

    >>> repeated([2.0, -2.0, 5.0], [0, 1, 1], 2.0, 0.25, 0.5)
    [0.25, -5.25, 5.0]
    """
    changed = list(logits)
    for token in set(recent):
        value = changed[token]
        value = value / repeat if value > 0 else value * repeat
        changed[token] = value - recent.count(token) * frequency - presence
    return changed


def repeat_limit(recent: Sequence[int], breakers: Breakers) -> int:
    """Return how many tokens at the end of `recent` follow its last sequence breaker.

    Of several breakers that begin at one token the longest counts.

    >>> repeat_limit([5, 6, 7, 8], {}), repeat_limit([5, 6, 7, 8], {6: [[]]})
    (4, 2)
    >>> repeat_limit([5, 6, 7, 8], {6: [[7]]}), repeat_limit([5, 6, 7, 8], {6: [[9]]})
    (1, 4)
    """
    for start in reversed(range(len(recent))):
        behind = list(recent[start + 1 :])
        tails = breakers.get(recent[start], ())
        lengths = [len(tail) for tail in tails if list(tail) == behind[: len(tail)]]
        if lengths:
            return len(behind) - max(lengths)
    return len(recent)


def repeats(recent: Sequence[int], limit: int) -> dict[int, int]:
    """Return for each token the length of the longest repetition that it would continue.

    It is the longest end of `recent`, of at most `limit` tokens, that also stands earlier, before
    that token.

    >>> repeats([1, 2, 3, 1, 2], 5)
    {3: 2}
    >>> repeats([1, 2, 3, 1, 2], 1)
    {3: 1}
    """
    found: dict[int, int] = {}
    for end in range(1, len(recent)):
        length = 0
        while length < min(end, limit) and recent[end - 1 - length] == recent[-1 - length]:
            length += 1
        if length:
            found[recent[end]] = max(length, found.get(recent[end], 0))
    return found


def dry(
    logits: Row,
    recent: Sequence[int],
    breakers: Breakers,
    multiplier: float,
    base: float,
    allowed_length: int,
) -> list[float]:
    """Lower the logits of tokens that continue a repetition of `allowed_length` tokens or more.

    "Don't repeat yourself", by p-e-w and pi6am: a repetition of n tokens costs
    multiplier * base^(n - allowed_length). A token that is a breaker by itself costs nothing.

    >>> dry([0.0, 0.0, 0.0, 0.0], [1, 2, 3, 1, 2], {}, 0.5, 2.0, 1)
    [0.0, 0.0, 0.0, -1.0]
    >>> dry([0.0, 0.0, 0.0, 0.0], [1, 2, 3, 1, 2], {1: [[]]}, 0.5, 2.0, 1)
    [0.0, 0.0, 0.0, -0.5]
    >>> dry([0.0, 0.0, 0.0, 0.0], [1, 2, 3, 1, 2], {2: [[]]}, 0.5, 2.0, 1)
    [0.0, 0.0, 0.0, 0.0]
    """
    changed = list(logits)
    if len(recent) <= allowed_length or base < 1:
        return changed
    limit = repeat_limit(recent, breakers)
    if limit < allowed_length:
        return changed
    most = int(LARGEST_LOG / math.log(base)) if base > 1.000001 else 0
    for token, length in repeats(recent, limit).items():
        alone = any(not tail for tail in breakers.get(token, ()))
        if length >= allowed_length and not alone:
            power = length - allowed_length
            changed[token] -= multiplier * base ** (min(power, most) if most else power)
    return changed


def breakers_of(
    words: Sequence[str], texts: Sequence[str], encode: Callable[[str], Sequence[int]]
) -> dict[int, list[list[int]]]:
    """Return which tokens begin one of the sequence breakers `texts`, and what completes it.

    `words` are the texts of all tokens. A token that contains a breaker is one alone; the end of a
    token that begins one needs the tokens of the rest.

    >>> breakers_of(["a", "b:", ":", "b-"], [":", "->"], lambda text: [ord(c) for c in text])
    {1: [[]], 2: [[]], 3: [[62]]}
    """
    found: dict[int, list[list[int]]] = {}
    for text in texts:
        text = text[:MAX_BREAKER_LENGTH]
        for token, word in enumerate(words):
            for tail in _tails(word, text):
                ids = list(encode(tail))[:MAX_TAIL] if tail else []
                if ids not in found.setdefault(token, []):
                    found[token].append(ids)
    return dict(sorted(found.items()))


def _tails(word: str, text: str) -> list[str]:
    """Return what must follow `word` so that it completes `text`, for each place it may begin."""
    if text in word:
        return [""]
    starts = (i for i in range(len(word)) if text.startswith(word[i:]))
    return [text[len(word) - i :] for i in starts]

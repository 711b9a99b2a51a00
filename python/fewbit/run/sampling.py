"""Choose the next token from a row of logits.

The filters and their order are llama.cpp's: top-k, top-p, min-p, temperature, then one draw.
Each filter takes and gives `Candidates`, so each can be read and tested alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError


class Candidates(NamedTuple):
    """Token ids with their logits, likeliest first; of equal logits the lower id is first."""

    ids: NDArray[np.int64]
    logits: NDArray[np.float64]


def _check(name: str, value: float | None, good: bool, range_: str) -> None:
    if not good:
        raise InputError(f"{name} is {value}, expected {range_}", option=name, value=value)


@dataclass(frozen=True)
class Sampling:
    """How to draw a token; `temperature` 0 takes the likeliest and ignores the rest.

    `top_k` keeps the k likeliest (0: all), `top_p` the fewest whose probabilities reach p (1: all),
    `min_p` those with at least that fraction of the likeliest one's probability (0: all).

    Raises:
        InputError: an option is out of its range.

    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 or more")
        _check("top_k", self.top_k, self.top_k >= 0, "0 or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1")
        _check("seed", self.seed, self.seed is None or self.seed >= 0, "0 or more")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    def generator(self) -> np.random.Generator:
        """The source of chance: the same seed gives the same draws."""
        return np.random.default_rng(self.seed)


GREEDY = Sampling(temperature=0)


def sampling_from(
    base: Sampling | None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
) -> Sampling:
    """`base` (or the defaults) with every option that is not None in place of its own.

    Raises:
        InputError: an option is out of its range.

    """
    given = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed,
    }  # fmt: skip
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(base or Sampling(), **changed)


def choose(logits: NDArray[np.float32], sampling: Sampling, rng: np.random.Generator) -> int:
    """The next token's id from its logits [vocab].

    Raises:
        InputError: the logits hold NaN or +inf, or nothing but -inf.

    """
    highest = float(logits.max())  # NaN, if one is among them
    if not math.isfinite(highest):
        raise refuse_logits(highest)
    if sampling.greedy:
        return int(logits.argmax())
    left = keep_min_p(
        keep_top_p(keep_top_k(logits, sampling.top_k), sampling.top_p), sampling.min_p
    )
    # the highest becomes 0 first, so that no temperature makes it overflow
    chances = probabilities((left.logits - left.logits[0]) / sampling.temperature)
    return int(left.ids[rng.choice(len(chances), p=chances)])


def refuse_logits(highest: float = math.nan) -> InputError:
    """The error for logits that no token can be chosen from."""
    return InputError(
        f"cannot choose a token: the largest logit is {highest}",
        hint="the model's weights or its file are damaged",
    )


def keep_top_k(logits: NDArray[np.float32], k: int) -> Candidates:
    """The `k` likeliest tokens of a row [vocab], all of them if k is 0, sorted."""
    ids = np.arange(len(logits))
    if 0 < k < len(logits):  # sort only those that can be kept
        ids = np.flatnonzero(logits >= np.partition(logits, -k)[-k])
    order = ids[np.argsort(-logits[ids], kind="stable")][: k or None]
    return Candidates(order, logits[order].astype(np.float64))


def keep_top_p(candidates: Candidates, p: float) -> Candidates:
    """The fewest likeliest tokens whose probabilities together reach `p`."""
    if p >= 1:
        return candidates
    reached = np.cumsum(probabilities(candidates.logits))
    return _first(candidates, int(np.searchsorted(reached, p)) + 1)


def keep_min_p(candidates: Candidates, p: float) -> Candidates:
    """The tokens at least `p` times as likely as the likeliest."""
    if p <= 0:
        return candidates
    least = candidates.logits[0] + math.log(p)
    return _first(candidates, max(int((candidates.logits >= least).sum()), 1))


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The softmax of sorted logits."""
    weights = np.exp(logits - logits[0])
    total: NDArray[np.float64] = weights / weights.sum()
    return total


def _first(candidates: Candidates, count: int) -> Candidates:
    return Candidates(candidates.ids[:count], candidates.logits[:count])

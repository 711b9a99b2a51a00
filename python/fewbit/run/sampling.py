"""Choose the next token from a row of logits.

The filters and their order are llama.cpp's: logit bias, penalties and DRY (`fewbit.run.penalties`),
top-k, top-p, min-p, temperature, then one draw. Each filter takes and gives `Candidates`, so each
can be read and tested alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError


class Candidates(NamedTuple):
    """Token ids with their logits, likeliest first; of equal logits the lower id is first."""

    ids: NDArray[np.int64]
    logits: NDArray[np.float64]


Row: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
"""Logits [vocab]: f32 from the model, f64 once penalties have changed them."""


def _check(name: str, value: Any, good: bool, range_: str) -> None:
    if not good:
        said = repr(value) if isinstance(value, str | bytes) else value
        raise InputError(f"{name} is {said}, expected {range_}", option=name, value=value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@dataclass(frozen=True)
class Sampling:
    """How to draw a token; `temperature` 0 takes the likeliest and ignores top-k, top-p and min-p.

    `top_k` keeps the k likeliest (0: all), `top_p` the fewest whose probabilities reach p (1: all),
    `min_p` those with at least that fraction of the likeliest one's probability (0: all).

    Penalties come first, by llama.cpp's formulas. Of a token among the last `repeat_last_n` (-1:
    all) of prompt and text, a positive logit is divided by `repeat_penalty` and another multiplied
    by it; `frequency_penalty` is subtracted for each occurrence and `presence_penalty` once, as in
    OpenAI's API. DRY subtracts `dry_multiplier` * `dry_base` ^ (n - `dry_allowed_length`) from a
    token that continues a repetition of n tokens, n at least the allowed length, within the last
    `dry_penalty_last_n` (-1: all); a repetition does not reach across a text of
    `dry_sequence_breakers`. `logit_bias` is added to the logits of the ids that it names; -inf
    forbids a token.

    Raises:
        InputError: an option is out of its range.

    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        self._check_types()
        _check("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 or more")
        _check("top_k", self.top_k, self.top_k >= 0, "0 or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1")
        _check("seed", self.seed, self.seed is None or self.seed >= 0, "0 or more")
        self._check_penalties()
        self._check_dry()
        if not isinstance(self.logit_bias, Mapping):
            raise InputError(
                f"logit_bias is {self.logit_bias!r}, expected a dict of ids to numbers"
            )
        for token, bias in self.logit_bias.items():
            _check("the id of a logit bias", token, _is_whole(token), "a whole number")
            _check(f"logit bias of token {token}", bias, _is_number(bias), "a number or -inf")
            _check("the id of a logit bias", token, token >= 0, "0 or more")
            _check(f"logit bias of token {token}", bias, bias < math.inf, "a number or -inf")

    def _check_types(self) -> None:
        for name in ("top_k", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n", "seed"):
            value = getattr(self, name)
            whole = _is_whole(value) or (name == "seed" and value is None)
            _check(name, value, whole, "a whole number")
        for name in (
            "temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty",
            "frequency_penalty", "dry_multiplier", "dry_base",
        ):  # fmt: skip
            value = getattr(self, name)
            _check(name, value, _is_number(value), "a number")

    def _check_penalties(self) -> None:
        repeat = self.repeat_penalty
        _check("repeat_penalty", repeat, 0 < repeat < math.inf, "above 0")
        _check("repeat_last_n", self.repeat_last_n, self.repeat_last_n >= -1, "-1 or more")
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _check(name, value, math.isfinite(value), "a finite number")

    def _check_dry(self) -> None:
        multiplier, base, length = self.dry_multiplier, self.dry_base, self.dry_allowed_length
        _check("dry_multiplier", multiplier, 0 <= multiplier < math.inf, "0 or more")
        _check("dry_base", base, 1 <= base < math.inf, "1 or more")
        _check("dry_allowed_length", length, length >= 1, "1 or more")
        window = self.dry_penalty_last_n
        _check("dry_penalty_last_n", window, window >= -1, "-1 or more")
        breakers: Any = self.dry_sequence_breakers
        texts = isinstance(breakers, Sequence) and all(isinstance(b, str) and b for b in breakers)
        if isinstance(breakers, str) or not texts:
            raise InputError(
                f"dry_sequence_breakers is {breakers!r}, expected texts that are not empty",
                hint='such as ("\\n", ":")',
            )
        object.__setattr__(self, "dry_sequence_breakers", tuple(breakers))

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    @property
    def penalizes(self) -> bool:
        """Whether tokens that stand in the text already become less likely."""
        penalties = (self.repeat_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1, 0, 0) and self.repeat_last_n != 0

    @property
    def changes_logits(self) -> bool:
        """Whether a penalty, DRY or a logit bias changes logits before the filters."""
        dry = self.dry_multiplier > 0 and self.dry_penalty_last_n != 0
        return self.penalizes or dry or bool(self.logit_bias)

    def generator(self) -> np.random.Generator:
        """The source of chance: the same seed gives the same draws."""
        return np.random.default_rng(self.seed)


GREEDY = Sampling(temperature=0)


def sampling_from(base: Sampling | None, **options: Any) -> Sampling:
    """`base` (or the defaults) with every option that is not None in place of its own.

    Raises:
        InputError: an option is out of its range.

    """
    changed = {name: value for name, value in options.items() if value is not None}
    return replace(base or Sampling(), **changed)


def choose(logits: Row, sampling: Sampling, rng: np.random.Generator) -> int:
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


def keep_top_k(logits: Row, k: int) -> Candidates:
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

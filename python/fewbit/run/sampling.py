"""How a token is chosen from a row of logits: the options, and their ranges.

Filters and order are llama.cpp's: logit bias, penalties and DRY, top-k, top-p, min-p, temperature,
then one draw. The core computes them (`fewbit.run.sampler`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fewbit.errors import InputError


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
    `min_p` those with at least that fraction of the likeliest one's probability (0: all). A draw
    depends on `seed` (0 to 2^64 - 1; None: another one for each text) and on the number of tokens
    before it.

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
        _check("seed", self.seed, self.seed is None or 0 <= self.seed < 2**64, "0 to 2^64 - 1")
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


GREEDY = Sampling(temperature=0)


def sampling_from(base: Sampling | None, **options: Any) -> Sampling:
    """`base` (or the defaults) with every option that is not None in place of its own.

    Raises:
        InputError: an option is out of its range.

    """
    changed = {name: value for name, value in options.items() if value is not None}
    return replace(base or Sampling(), **changed)


def refuse_logits(highest: float = math.nan) -> InputError:
    """The error for logits that no token can be chosen from."""
    return InputError(
        f"cannot choose a token: the largest logit is {highest}",
        hint="the model's weights or its file are damaged",
    )

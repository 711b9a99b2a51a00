"""Frequencies of rotary position embeddings, scaled for long contexts."""

from __future__ import annotations

import math
from dataclasses import replace

from fewbit.errors import FewbitError, FileFormatError, UnsupportedError
from fewbit.plan.config import Rope


def frequencies(rope: Rope, dims: int) -> tuple[tuple[float, ...], float]:
    """Return the frequency of each of dims/2 pairs, and the factor of cos and sin.

    Frequencies are radians per position. Without scaling, frequency i is base^(-2i/dims).
    ``linear`` divides all by `factor` (arXiv 2306.15595). ``llama3`` divides the low frequencies
    and blends towards the high ones. ``yarn`` blends by the number of turns within the original
    context (arXiv 2309.00071).

    Raises:
        UnsupportedError: the kind of scaling is unknown.
        FileFormatError: a frequency or the factor is not a finite number.

    """
    try:
        found, factor = _scaled(rope, dims)
        usable = all(map(math.isfinite, (*found, factor)))
    except FewbitError:
        raise
    except (ArithmeticError, ValueError):  # a base of 0, a logarithm of 0
        usable = False
    if not usable:
        raise FileFormatError(
            f"the rotary embedding has no finite frequencies: base {rope.base:g}, scaling "
            f"{rope.kind} by {rope.factor:g}",
            hint="the configuration is damaged: take the one that belongs to the weights",
        )
    return found, factor


def _scaled(rope: Rope, dims: int) -> tuple[tuple[float, ...], float]:
    plain = [rope.base ** (-2.0 * i / dims) for i in range(dims // 2)]
    if rope.factors is not None:
        plain = [f / divisor for f, divisor in zip(plain, rope.factors, strict=True)]
    match rope.kind:
        case "none":
            return tuple(plain), 1.0
        case "linear":
            return tuple(f / rope.factor for f in plain), 1.0
        case "llama3":
            return tuple(_llama3(f, rope) for f in plain), 1.0
        case "yarn":
            return _yarn(plain, rope, dims), _yarn_attention(rope)
        case "longrope":
            return tuple(plain), _factor_of(rope)
    raise UnsupportedError(
        f"unknown rope scaling `{rope.kind}`", hint="known: none, linear, llama3, yarn, longrope"
    )


def long_frequencies(rope: Rope, dims: int) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Return LongRoPE's frequencies for short and for long contexts, and the factor of cos and sin.

    `factors` and `long_factors` divide the plain frequencies (arXiv 2402.13753).
    """
    short, factor = frequencies(rope, dims)
    long, _ = frequencies(replace(rope, factors=rope.long_factors), dims)
    return short, long, factor


def _factor_of(rope: Rope) -> float:
    return 1.0 if rope.attention_factor is None else rope.attention_factor


def _llama3(f: float, rope: Rope) -> float:
    """Divide a frequency with fewer turns in the original context than `low_freq_factor`."""
    turns = rope.original_context * f / (2 * math.pi)
    if turns < rope.low_freq_factor:
        return f / rope.factor
    if turns > rope.high_freq_factor:
        return f
    blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return (1 - blend) * f / rope.factor + blend * f


def _yarn(plain: list[float], rope: Rope, dims: int) -> tuple[float, ...]:
    """Blend from unchanged (many turns) to divided (few turns), by a ramp over the pair index."""

    def index_with(turns: float) -> float:
        length = rope.original_context / (turns * 2 * math.pi)
        return dims * math.log(length) / (2 * math.log(rope.base))

    low, high = index_with(rope.beta_fast), index_with(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    if low == high:
        high += 0.001  # a ramp of one step

    def ramp(i: int) -> float:
        return min(1.0, max(0.0, (i - low) / (high - low)))

    return tuple(f / rope.factor * ramp(i) + f * (1 - ramp(i)) for i, f in enumerate(plain))


def _yarn_attention(rope: Rope) -> float:
    return yarn_attention(rope.factor) if rope.attention_factor is None else rope.attention_factor


def yarn_attention(factor: float, weight: float = 1.0) -> float:
    """Return YaRN's factor of cos and sin: 0.1 weight ln(factor) + 1, or 1 for factors up to 1."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

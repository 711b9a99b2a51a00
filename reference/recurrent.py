"""Ops with a recurrent state per sequence: the short convolution and the gated delta rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from reference.f32 import f32, f32s, fmas

Row = Sequence[float]
Matrix = list[list[float]]


def short_conv(rows: Sequence[Row], weight: Sequence[Row]) -> list[float]:
    """Return for each channel the sum of weight * x over the last positions, oldest first.

    `rows` holds the inputs up to the token's own, which is last; `weight` is [channels, kernel].
    Each step is one fused multiply-add, so every bit is defined; positions before the first token
    add nothing.

    >>> short_conv([[1.0], [2.0]], [[10.0, 1.0, 0.5]])
    [2.0]
    """
    kernel = len(weight[0])
    acc = [0.0] * len(rows[-1])
    seen = rows[-kernel:]
    for j, row in enumerate(seen, kernel - len(seen)):
        acc = fmas([w[j] for w in weight], row, acc)
    return acc


def log_decay(x: Row, rate: Row, bias: Row) -> list[float]:
    """Return rate * ln(1 + exp(x + bias)), the logarithm of the factor by which a state decays.

    >>> log_decay([-1.0], [-2.0], [1.0])
    [-1.3862943649291992]
    """
    return f32s(r * _softplus(v + b) for v, r, b in zip(x, rate, bias, strict=True))


def delta_rule(
    q: Row, k: Row, v: Row, decay: Row, beta: Row, state: list[Matrix], *, heads: int,
    key_heads: int, scale: float, sharing: str,
) -> list[float]:  # fmt: skip
    """Advance the gated delta rule by one token in each head; return S^T q * scale.

    The state S of a head is a matrix [key size][value size], zero before the first token:

        S = exp(decay) * S;  u = beta * (v - S^T k);  S = S + k u^T

    `state` holds the matrices of all heads and is changed in place, unrounded. Value head i uses
    key head i / r if `sharing` is "runs", with r value heads per key head, or i modulo `key_heads`
    if it is "turns". Source: arXiv 2412.06464.

    >>> state = [[[0.0], [0.0]]]
    >>> kind = {"heads": 1, "key_heads": 1, "scale": 1.0, "sharing": "runs"}
    >>> delta_rule([1.0, 0.0], [1.0, 0.0], [8.0], [0.0], [0.5], state, **kind), state
    ([4.0], [[[4.0], [0.0]]])
    """
    key_size, size = len(q) // key_heads, len(v) // heads
    owners = _owners(heads, key_heads, sharing)
    result: list[float] = []
    for head in range(heads):
        first = owners[head] * key_size
        own = slice(first, first + key_size)
        fade, s = math.exp(decay[head]), state[head]
        for row in s:
            row[:] = [fade * value for value in row]
        told = [sum(map(mul, k[own], column)) for column in zip(*s, strict=True)]
        values = v[head * size : (head + 1) * size]
        u = [beta[head] * (value - old) for value, old in zip(values, told, strict=True)]
        for key, row in zip(k[own], s, strict=True):
            row[:] = [old + key * new for old, new in zip(row, u, strict=True)]
        columns = zip(*s, strict=True)
        result += [f32(sum(map(mul, q[own], column)) * scale) for column in columns]
    return result


def zeros(heads: int, key_size: int, size: int) -> list[Matrix]:
    """Return the state before the first token: a zero matrix for each head.

    >>> zeros(1, 2, 1)
    [[[0.0], [0.0]]]
    """
    return [[[0.0] * size for _ in range(key_size)] for _ in range(heads)]


def _owners(heads: int, key_heads: int, sharing: str) -> list[int]:
    """Return the key head of each value head."""
    if heads % key_heads or sharing not in ("runs", "turns"):
        raise ValueError(f"{heads} heads cannot share {key_heads} by `{sharing}`")
    if sharing == "turns":
        return [head % key_heads for head in range(heads)]
    return [head // (heads // key_heads) for head in range(heads)]


def _softplus(y: float) -> float:
    return max(y, 0.0) + math.log1p(math.exp(-abs(y)))

"""Ops on a row, element by element or head by head: norms, activation functions and gates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul as times

from reference.f32 import f32s

Row = Sequence[float]


def layer_norm(x: Row, weight: Row, bias: Row, *, eps: float) -> list[float]:
    """Return (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias. Source: arXiv 1607.06450.

    >>> layer_norm([1.0, 3.0], [2.0, 2.0], [0.0, 1.0], eps=0.0)
    [-2.0, 3.0]
    """
    mean = math.fsum(x) / len(x)
    deviation = [v - mean for v in x]
    root = math.sqrt(math.fsum(map(times, deviation, deviation)) / len(x) + eps)
    return f32s(v / root * w + b for v, w, b in zip(deviation, weight, bias, strict=True))


def l2_norm(x: Row, *, eps: float, heads: int) -> list[float]:
    """Return x / sqrt(sum x^2 + eps), for each of `heads` equal pieces of the row.

    >>> l2_norm([3.0, 4.0, 0.0, 2.0], eps=0.0, heads=2)
    [0.6000000238418579, 0.800000011920929, 0.0, 1.0]
    """
    result: list[float] = []
    size = len(x) // heads
    for start in range(0, len(x), size):
        head = x[start : start + size]
        root = math.sqrt(math.fsum(map(times, head, head)) + eps)
        result += f32s(v / root for v in head)
    return result


def part(x: Row, *, parts: int, start: int, width: int) -> list[float]:
    """Return columns start.. of each of `parts` equal pieces of the row, `width` columns in total.

    Raises ValueError if a piece is too short.

    >>> part([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], parts=2, start=1, width=4)
    [2.0, 3.0, 5.0, 6.0]
    """
    size, count = len(x) // parts, width // parts
    if start + count > size:
        raise ValueError(f"{count} columns from {start} on exceed pieces of {size} columns")
    return [v for at in range(0, len(x), size) for v in x[at + start : at + start + count]]


def mul(x: Row, y: Row) -> list[float]:
    """Return x * y; each element of a shorter y multiplies an equal run of x. Every bit is defined.

    >>> mul([1.0, 2.0, 3.0, 4.0], [2.0, 10.0])
    [2.0, 4.0, 30.0, 40.0]
    """
    size = len(x) // len(y)
    return f32s(v * y[index // size] for index, v in enumerate(x))


def scale(x: Row, *, factor: float) -> list[float]:
    """Return x times an f32 factor; every bit is defined.

    >>> scale([1.0, -2.0], factor=0.5)
    [0.5, -1.0]
    """
    return f32s(v * factor for v in x)


def softcap(x: Row, *, cap: float) -> list[float]:
    """Return cap * tanh(x / cap), which is never larger than cap. Source: arXiv 2408.00118.

    >>> softcap([0.0, 1e9], cap=30.0)
    [0.0, 30.0]
    """
    return f32s(cap * math.tanh(v / cap) for v in x)


def gelu(x: Row) -> list[float]:
    """Return the tanh approximation of x times the normal distribution function.

    x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. Source: arXiv 1606.08415.

    >>> gelu([0.0, 1.0, -100.0])
    [0.0, 0.8411920070648193, -0.0]
    """
    return f32s(map(_gelu, x))


def geglu(gate: Row, up: Row) -> list[float]:
    """Return gelu(gate) * up. Source: arXiv 2002.05202.

    >>> geglu([0.0, 10.0], [5.0, 0.5])
    [0.0, 5.0]
    """
    return f32s(_gelu(g) * u for g, u in zip(gate, up, strict=True))


def silu(x: Row) -> list[float]:
    """Return x * sigmoid(x). Source: arXiv 1702.03118.

    >>> silu([0.0, 40.0])
    [0.0, 40.0]
    """
    return f32s(v * _sigmoid(v) for v in x)


def sigmoid(x: Row) -> list[float]:
    """Return 1 / (1 + exp(-x)).

    >>> sigmoid([0.0, 40.0, -800.0])
    [0.5, 1.0, 0.0]
    """
    return f32s(map(_sigmoid, x))


def clamped_swiglu(gate: Row, up: Row, *, alpha: float, limit: float) -> list[float]:
    """Return g sigmoid(alpha g) (u + 1), the gate of GPT-OSS.

    g = min(gate, limit) and u = up limited to -limit..limit.

    >>> clamped_swiglu([100.0, 0.0], [-100.0, 1.0], alpha=40.0, limit=7.0)
    [-42.0, 0.0]
    """
    pairs = zip(gate, up, strict=True)
    return f32s(_clamped(min(g, limit), max(-limit, min(u, limit)), alpha) for g, u in pairs)


def _clamped(g: float, u: float, alpha: float) -> float:
    return g * _sigmoid(alpha * g) * (u + 1)


def _gelu(x: float) -> float:
    return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(max(x, -745.0))

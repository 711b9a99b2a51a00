"""Ops on one row, element by element or head by head: norms, activation functions, gates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul as times

from reference.f32 import f32s

Row = Sequence[float]


def layer_norm(x: Row, weight: Row, bias: Row, *, eps: float) -> list[float]:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias. arXiv 1607.06450.

    >>> layer_norm([1.0, 3.0], [2.0, 2.0], [0.0, 1.0], eps=0.0)
    [-2.0, 3.0]
    """
    mean = math.fsum(x) / len(x)
    apart = [v - mean for v in x]
    root = math.sqrt(math.fsum(map(times, apart, apart)) / len(x) + eps)
    return f32s(v / root * w + b for v, w, b in zip(apart, weight, bias, strict=True))


def l2_norm(x: Row, *, eps: float, heads: int) -> list[float]:
    """x / sqrt(sum x^2 + eps) over each of `heads` equal parts of the row.

    >>> l2_norm([3.0, 4.0, 0.0, 2.0], eps=0.0, heads=2)
    [0.6000000238418579, 0.800000011920929, 0.0, 1.0]
    """
    result: list[float] = []
    size = len(x) // heads
    for start in range(0, len(x), size):
        part = x[start : start + size]
        root = math.sqrt(math.fsum(map(times, part, part)) + eps)
        result += f32s(v / root for v in part)
    return result


def part(x: Row, *, parts: int, start: int, width: int) -> list[float]:
    """From each of `parts` equal parts of the row the elements from `start` on, `width` in all.

    >>> part([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], parts=2, start=1, width=4)
    [2.0, 3.0, 5.0, 6.0]
    """
    size, count = len(x) // parts, width // parts
    if start + count > size:
        raise ValueError(f"{count} elements from {start} on are not in parts of {size}")
    return [v for at in range(0, len(x), size) for v in x[at + start : at + start + count]]


def mul(x: Row, y: Row) -> list[float]:
    """x * y, right to the bit; each element of a shorter y multiplies an equal part of x.

    >>> mul([1.0, 2.0, 3.0, 4.0], [2.0, 10.0])
    [2.0, 4.0, 30.0, 40.0]
    """
    size = len(x) // len(y)
    return f32s(v * y[index // size] for index, v in enumerate(x))


def scale(x: Row, *, factor: float) -> list[float]:
    """x times a number of f32, right to the bit.

    >>> scale([1.0, -2.0], factor=0.5)
    [0.5, -1.0]
    """
    return f32s(v * factor for v in x)


def softcap(x: Row, *, cap: float) -> list[float]:
    """cap tanh(x / cap): nothing is larger than the cap. arXiv 2408.00118.

    >>> softcap([0.0, 1e9], cap=30.0)
    [0.0, 30.0]
    """
    return f32s(cap * math.tanh(v / cap) for v in x)


def gelu(x: Row) -> list[float]:
    """x times the normal distribution's share below x, as its tanh approximation has it.

    x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. arXiv 1606.08415.

    >>> gelu([0.0, 1.0, -100.0])
    [0.0, 0.8411920070648193, -0.0]
    """
    return f32s(map(_gelu, x))


def geglu(gate: Row, up: Row) -> list[float]:
    """gelu(gate) * up. arXiv 2002.05202.

    >>> geglu([0.0, 10.0], [5.0, 0.5])
    [0.0, 5.0]
    """
    return f32s(_gelu(g) * u for g, u in zip(gate, up, strict=True))


def silu(x: Row) -> list[float]:
    """x sigmoid(x).

    >>> silu([0.0, 40.0])
    [0.0, 40.0]
    """
    return f32s(v * _sigmoid(v) for v in x)


def sigmoid(x: Row) -> list[float]:
    """1 / (1 + exp(-x)).

    >>> sigmoid([0.0, 40.0, -800.0])
    [0.5, 1.0, 0.0]
    """
    return f32s(map(_sigmoid, x))


def clamped_swiglu(gate: Row, up: Row, *, alpha: float, limit: float) -> list[float]:
    """g sigmoid(alpha g) (u + 1), g = min(gate, limit), u = up within -limit..=limit: GPT-OSS's.

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

"""Gradients of the ops of gates.py, on the row of one token; see gradients.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Row = Sequence[float]


def part(g: Row, *, parts: int, start: int, size: int) -> list[float]:
    """Return g at its columns of a row of `size` columns, zeros elsewhere.

    >>> part([2.0, 5.0], parts=2, start=1, size=6)
    [0.0, 2.0, 0.0, 0.0, 5.0, 0.0]
    """
    piece, count = size // parts, len(g) // parts
    result = [0.0] * size
    for i, value in enumerate(g):
        result[i // count * piece + start + i % count] = value
    return result


def mul(g: Row, x: Row, y: Row) -> tuple[list[float], list[float]]:
    """Return g y and, for each element of y, the sum of g x over its run.

    >>> mul([1.0, 1.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [2.0, 10.0])
    ([2.0, 2.0, 10.0, 20.0], [3.0, 11.0])
    """
    size = len(x) // len(y)
    runs = [range(i * size, (i + 1) * size) for i in range(len(y))]
    dx = [g[i] * y[index] for index, run in enumerate(runs) for i in run]
    return dx, [math.fsum(g[i] * x[i] for i in run) for run in runs]


def scale(g: Row, x: Row, *, factor: float) -> list[float]:
    """Return g times the factor.

    >>> scale([1.0, -2.0], [0.0, 0.0], factor=0.5)
    [0.5, -1.0]
    """
    return [a * factor for a in g]


def softcap(g: Row, x: Row, *, cap: float) -> list[float]:
    """Return g (1 - tanh(x / cap)^2).

    >>> softcap([2.0, 2.0], [0.0, 1e9], cap=30.0)
    [2.0, 0.0]
    """
    return [a * (1 - math.tanh(v / cap) ** 2) for a, v in zip(g, x, strict=True)]


def gelu(g: Row, x: Row) -> list[float]:
    """Return g times the derivative of GELU.

    >>> gelu([1.0, 1.0], [0.0, 30.0])
    [0.5, 1.0]
    """
    return [a * _gelu(v)[1] for a, v in zip(g, x, strict=True)]


def silu(g: Row, x: Row) -> list[float]:
    """Return g times the derivative of x sigmoid(x).

    >>> silu([1.0, 1.0], [0.0, 60.0])
    [0.5, 1.0]
    """
    return [a * _silu(v)[1] for a, v in zip(g, x, strict=True)]


def sigmoid(g: Row, x: Row) -> list[float]:
    """Return g s (1 - s) with s = sigmoid(x).

    >>> sigmoid([4.0, 1.0], [0.0, 60.0])
    [1.0, 0.0]
    """
    return [a * _sigmoid(v) * (1 - _sigmoid(v)) for a, v in zip(g, x, strict=True)]


def swiglu(g: Row, gate: Row, up: Row) -> tuple[list[float], list[float]]:
    """Return the gradients of gate and up in silu(gate) * up.

    >>> swiglu([1.0], [0.0], [3.0])
    ([1.5], [0.0])
    """
    return _gate(g, gate, up, _silu)


def geglu(g: Row, gate: Row, up: Row) -> tuple[list[float], list[float]]:
    """Return the gradients of gate and up in gelu(gate) * up.

    >>> geglu([1.0], [0.0], [3.0])
    ([1.5], [0.0])
    """
    return _gate(g, gate, up, _gelu)


def clamped_swiglu(
    g: Row, gate: Row, up: Row, *, alpha: float, limit: float
) -> tuple[list[float], list[float]]:
    """Return the gradients of gate and up; a value beyond the limit has none.

    >>> clamped_swiglu([1.0, 1.0], [0.0, 9.0], [3.0, 9.0], alpha=1.0, limit=7.0)
    ([2.0, 0.0], [0.0, 0.0])
    """

    def act(x: float) -> tuple[float, float]:
        s = _sigmoid(alpha * x)
        return x * s, s * (1 + alpha * x * (1 - s))

    raised = [max(-limit, min(u, limit)) + 1 for u in up]
    d_gate, d_up = _gate(g, [min(x, limit) for x in gate], raised, act)
    return (
        [0.0 if x > limit else a for a, x in zip(d_gate, gate, strict=True)],
        [0.0 if abs(u) > limit else a for a, u in zip(d_up, up, strict=True)],
    )


def _gate(
    g: Row, gate: Row, up: Row, act: Callable[[float], tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """Return the gradients of act(gate) * up; `act` gives a value and its derivative."""
    acts = [act(x) for x in gate]
    return (
        [a * u * slope for a, u, (_, slope) in zip(g, up, acts, strict=True)],
        [a * value for a, (value, _) in zip(g, acts, strict=True)],
    )


def _silu(x: float) -> tuple[float, float]:
    s = _sigmoid(x)
    return x * s, s * (1 + x * (1 - s))


def _gelu(x: float) -> tuple[float, float]:
    root = 2 * math.sqrt(2 / math.pi)
    s = _sigmoid(root * (x + 0.044715 * x**3))
    return x * s, s * (1 + x * (1 - s) * root * (1 + 3 * 0.044715 * x**2))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0

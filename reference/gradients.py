"""Gradients of the ops of ops.py: from that of an op's result to those of its inputs.

`g` is the gradient of a loss with respect to a result, L for short: g_i = dL/dy_i. Each function
returns dL/dx for the op's inputs. Everything is computed in binary64 and nothing is rounded.
backward.py runs them through an entire plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from reference.weights import Weight

Row = Sequence[float]
Rows = list[list[float]]


def rms_norm(g: Row, x: Row, weight: Row, *, eps: float, heads: int = 1) -> list[float]:
    """Return r (w g - x r^2 mean(x w g)), with r = 1 / sqrt(mean(x^2) + eps), head by head.

    >>> rms_norm([1.0, 0.0], [3.0, 4.0], [1.0, 1.0], eps=0.0)
    [0.18101933598375616, -0.13576450198781712]
    """
    result: list[float] = []
    size = len(x) // heads
    for start in range(0, len(x), size):
        own = x[start : start + size]
        along = [a * w for a, w in zip(g[start : start + size], weight, strict=True)]
        result += _normed(along, own, math.fsum(map(mul, own, own)) / size + eps, size)
    return result


def rms_norm_weight(g: Row, x: Row, *, eps: float, heads: int = 1) -> list[float]:
    """Return the gradient of the weight: g x r, summed over the heads.

    >>> rms_norm_weight([1.0, 2.0], [3.0, 4.0], eps=0.0)
    [0.848528137423857, 2.262741699796952]
    """
    size = len(x) // heads
    result = [0.0] * size
    for start in range(0, len(x), size):
        own = x[start : start + size]
        root = math.sqrt(math.fsum(map(mul, own, own)) / size + eps)
        for i, v in enumerate(own):
            result[i] += g[start + i] * v / root
    return result


def _normed(along: Row, x: Row, square: float, count: float) -> list[float]:
    """Return the gradient of x / sqrt(square), square = sum(x^2) / count + eps."""
    root = math.sqrt(square)
    inner = math.fsum(map(mul, along, x)) / (count * square)
    return [(a - v * inner) / root for a, v in zip(along, x, strict=True)]


def layer_norm(g: Row, x: Row, weight: Row, *, eps: float) -> list[float]:
    """Return the gradient of x: that of the norm, less its mean.

    >>> layer_norm([1.0, 0.0, 0.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], eps=0.0)
    [0.2041241452319315, -0.40824829046386296, 0.2041241452319315]
    """
    mean = math.fsum(x) / len(x)
    deviation = [v - mean for v in x]
    along = [a * w for a, w in zip(g, weight, strict=True)]
    square = math.fsum(map(mul, deviation, deviation)) / len(x) + eps
    result = _normed(along, deviation, square, len(x))
    shift = math.fsum(result) / len(x)
    return [v - shift for v in result]


def layer_norm_weight(g: Row, x: Row, *, eps: float) -> list[float]:
    """Return the gradient of the weight; that of the bias is g itself.

    >>> layer_norm_weight([1.0, 2.0], [1.0, 3.0], eps=0.0)
    [-1.0, 2.0]
    """
    mean = math.fsum(x) / len(x)
    deviation = [v - mean for v in x]
    root = math.sqrt(math.fsum(map(mul, deviation, deviation)) / len(x) + eps)
    return [a * v / root for a, v in zip(g, deviation, strict=True)]


def l2_norm(g: Row, x: Row, *, eps: float, heads: int) -> list[float]:
    """Return the gradient of x / sqrt(sum x^2 + eps), head by head.

    >>> l2_norm([1.0, 0.0], [3.0, 4.0], eps=0.0, heads=1)
    [0.128, -0.096]
    """
    result: list[float] = []
    size = len(x) // heads
    for start in range(0, len(x), size):
        own = x[start : start + size]
        square = math.fsum(map(mul, own, own)) + eps
        result += _normed(g[start : start + size], own, square, 1)
    return result


def linear(g: Row, weight: Weight) -> list[float]:
    """Return g W, the gradient of x in x W^T.

    >>> linear([1.0, 0.5], Weight.of([[1.0, 2.0], [3.0, 4.0]]))
    [2.5, 4.0]
    """
    return [math.fsum(map(mul, g, column)) for column in weight.by_column]


def linear_weight(gs: Sequence[Row], xs: Sequence[Row]) -> Rows:
    """Return the gradient of W [rows][columns]: the sum over tokens of g x^T.

    >>> linear_weight([[1.0, 2.0]], [[3.0, 4.0]])
    [[3.0, 4.0], [6.0, 8.0]]
    """
    columns = list(zip(*xs, strict=True))
    return [[math.fsum(map(mul, g, column)) for column in columns] for g in zip(*gs, strict=True)]


def rope(
    g: Row, position: int, *, heads: int, freqs: Row, factor: float, pairing: str
) -> list[float]:
    """Rotate g back, by -position * freqs: the rotation transposed, times `factor`.

    >>> rope([-2.0, 4.0, -6.0, 8.0], 1, heads=1, freqs=[math.pi, 0.0], factor=2.0, pairing="halves")
    [4.0, 8.0, 12.0, 16.0]
    """
    pairs = len(freqs)
    distance, following = {"neighbours": (1, 2), "halves": (pairs, 1)}[pairing]
    result = list(g)
    for start in range(0, len(g), len(g) // heads):
        for pair, f in enumerate(freqs):
            i = start + pair * following
            j = i + distance
            c, s = math.cos(position * f) * factor, math.sin(position * f) * factor
            s = 0.0 if abs(s) < 1e-15 else s  # sin(pi) is 0
            result[i], result[j] = g[i] * c + g[j] * s, g[j] * c - g[i] * s
    return result


def attend(
    g: Sequence[Row], q: Sequence[Row], k: Sequence[Row], v: Sequence[Row],
    sinks: Row | None = None, *, heads: int, kv_heads: int, scale: float, window: int = 0,
) -> tuple[Rows, Rows, Rows]:  # fmt: skip
    """Return the gradients of q, k and v of all tokens of a window, from the first on.

    With the probabilities p of a query: dv += p g, ds = p (g v - sum of p (g v)), dq = scale ds k,
    dk += scale ds q. A sink only takes probability.

    >>> one = {"heads": 1, "kv_heads": 1, "scale": 1.0}
    >>> attend([[0.0], [1.0]], [[0.0], [1.0]], [[0.0], [0.0]], [[1.0], [3.0]], **one)
    ([[0.0], [0.0]], [[-0.5], [0.5]], [[0.5], [0.5]])
    """
    size = len(q[0]) // heads
    dq, dk, dv = ([[0.0] * len(row) for row in rows] for rows in (q, k, v))
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        own = slice(head * kv_heads // heads * size, (head * kv_heads // heads + 1) * size)
        sink = None if sinks is None else sinks[head]
        for t in range(len(q)):
            seen = range(max(0, t + 1 - window) if window else 0, t + 1)
            scores = [sum(map(mul, q[t][at], k[s][own])) * scale for s in seen]
            p = _softmax(scores, sink)
            told = [sum(map(mul, g[t][at], v[s][own])) for s in seen]
            mean = math.fsum(map(mul, p, told))
            for s, chance, value in zip(seen, p, told, strict=True):
                slope = chance * (value - mean) * scale
                _add(dv[s], own, g[t][at], chance)
                _add(dk[s], own, q[t][at], slope)
                _add(dq[t], at, k[s][own], slope)
    return dq, dk, dv


def _softmax(scores: Row, sink: float | None) -> list[float]:
    """Return the probabilities of the scores; that of the sink is left out."""
    peak = max([*scores, *([] if sink is None else [sink])])
    e = [math.exp(score - peak) for score in scores]
    total = math.fsum(e) + (0.0 if sink is None else math.exp(sink - peak))
    return [value / total for value in e]


def _add(row: list[float], at: slice, values: Row, factor: float) -> None:
    row[at] = [old + factor * value for old, value in zip(row[at], values, strict=True)]

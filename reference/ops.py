"""The main ops of a plan, on the f32 row of one token: embedding, products, rope, attention.

Unless an op says otherwise, it is computed in binary64 and each element is rounded once to f32. An
executor that computes in f32 may differ by the roundings of its own order of operations. gates.py,
experts.py and recurrent.py have the other ops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import add as plus
from operator import mul

from reference.f32 import f32, f32s
from reference.linear import PRODUCTS, product_bf16, product_f32
from reference.weights import Weight

Row = Sequence[float]


def embed(token: int, weight: Weight) -> list[float]:
    """Return row `token` of the embedding table [vocab, width].

    >>> embed(1, Weight.of([[1.0, 2.0], [3.0, 4.0]]))
    [3.0, 4.0]
    """
    return weight.row(token)


def embed_position(position: int, weight: Weight) -> list[float]:
    """Return row `position` of the position table [positions, width].

    >>> embed_position(0, Weight.of([[1.0, 2.0], [3.0, 4.0]]))
    [1.0, 2.0]
    """
    return weight.row(position)


def rms_norm(x: Row, weight: Row, *, eps: float, heads: int = 1) -> list[float]:
    """Return x / sqrt(mean(x^2) + eps) * weight, for each of `heads` equal pieces of the row.

    `weight` has the length of one piece. Source: arXiv 1910.07467.

    >>> rms_norm([3.0, 4.0, 6.0, 8.0], [1.0, 2.0], eps=0.0, heads=2)
    [0.8485281467437744, 2.262741804122925, 0.8485281467437744, 2.262741804122925]
    """
    result: list[float] = []
    size = len(x) // heads
    for start in range(0, len(x), size):
        head = x[start : start + size]
        root = math.sqrt(math.fsum(map(mul, head, head)) / size + eps)
        result += f32s(v / root * w for v, w in zip(head, weight, strict=True))
    return result


def linear(x: Row, weight: Weight, bias: Row | None = None, acts: str = "f64") -> list[float]:
    """Return x W^T by the product named `acts` (linear.py), plus the bias in f32.

    >>> w = Weight.of([[1.0, 2.0], [3.0, 4.0]])
    >>> linear([1.0, 1.0], w), linear([1.0, 1.0], w, [0.5, -7.0], "f32")
    ([3.0, 7.0], [3.5, 0.0])
    """
    product = PRODUCTS[acts]
    if acts == "int8" and not weight.takes_int8:
        product = product_bf16 if weight.takes_bf16 else product_f32
    result = product(x, weight)
    return result if bias is None else f32s(map(plus, result, bias))


def rope(
    x: Row, position: int, *, heads: int, freqs: Row, factor: float, pairing: str
) -> list[float]:
    """Rotate pairs of elements by position * freqs radians and multiply by `factor`.

    Pair i of a head is (2i, 2i + 1) if `pairing` is "neighbours", (i, i + dims/2) if "halves",
    where dims = 2 * len(freqs); elements past dims stay. Cosine and sine times the factor are
    rounded to f32, then each product and their sum, so every bit is defined. Source: arXiv
    2104.09864.

    >>> rope([1.0, 2.0, 3.0, 4.0, 5.0], 1, heads=1, freqs=[math.pi, 0.0], factor=1.0,
    ...      pairing="neighbours")
    [-1.0, -2.0, 3.0, 4.0, 5.0]
    >>> rope([1.0, 2.0, 3.0, 4.0], 1, heads=1, freqs=[math.pi, 0.0], factor=2.0, pairing="halves")
    [-2.0, 4.0, -6.0, 8.0]
    """
    pairs = len(freqs)
    distance, following = {"neighbours": (1, 2), "halves": (pairs, 1)}[pairing]
    cos = f32s(math.cos(position * f) * factor for f in freqs)
    sin = f32s(math.sin(position * f) * factor for f in freqs)
    result = list(x)
    for start in range(0, len(x), len(x) // heads):
        for pair, (c, s) in enumerate(zip(cos, sin, strict=True)):
            i = start + pair * following
            j = i + distance
            result[i] = f32(f32(x[i] * c) - f32(x[j] * s))
            result[j] = f32(f32(x[i] * s) + f32(x[j] * c))
    return result


def long_rope(
    x: Row, position: int, capacity: int, *, heads: int, short: Row, long: Row, original: int,
    factor: float, pairing: str,
) -> list[float]:  # fmt: skip
    """Return `rope` with `long` frequencies if the cache has room for more than `original` tokens.

    Otherwise with `short` frequencies. `capacity` is the cache's room in tokens. Source: arXiv
    2402.13753.

    >>> kind = {"heads": 1, "short": [0.0], "long": [math.pi], "factor": 1.0, "original": 4}
    >>> [long_rope([1.0, 2.0], 1, n, **kind, pairing="halves") for n in (4, 5)]
    [[1.0, 2.0], [-1.0, -2.0]]
    """
    freqs = long if capacity > original else short
    return rope(x, position, heads=heads, freqs=freqs, factor=factor, pairing=pairing)


def attend(
    q: Row, keys: Sequence[Row], values: Sequence[Row], sinks: Row | None = None, *, heads: int,
    kv_heads: int, scale: float, window: int = 0,
) -> list[float]:  # fmt: skip
    """Return softmax(q k^T * scale) v for each head, over the positions up to the token's own.

    `keys` and `values` have one row per position, the token's own last. Consecutive query heads
    share a key/value head. A `window` w > 0 limits attention to the last w positions, the own
    included. `sinks` adds a score for each head that takes probability but has no value
    (arXiv 2309.17453). Source: arXiv 1706.03762.

    >>> attend([1.0, 0.0], [[9.0], [9.0]], [[1.0], [3.0]], heads=2, kv_heads=1, scale=1.0)
    [2.0, 2.0]
    >>> attend([0.0], [[9.0], [9.0]], [[1.0], [3.0]], heads=1, kv_heads=1, scale=1.0, window=1)
    [3.0]
    >>> attend([0.0], [[9.0]], [[4.0]], [0.0], heads=1, kv_heads=1, scale=1.0)
    [2.0]
    """
    seen_keys, seen_values = (rows[-window:] if window else rows for rows in (keys, values))
    size = len(q) // heads
    result: list[float] = []
    for head in range(heads):
        query = q[head * size : (head + 1) * size]
        own = slice(head * kv_heads // heads * size, (head * kv_heads // heads + 1) * size)
        scores = [sum(map(mul, query, key[own])) * scale for key in seen_keys]
        sunk = [] if sinks is None else [sinks[head]]
        peak = max(scores + sunk)
        e = [math.exp(score - peak) for score in scores]
        total = math.fsum(e + [math.exp(sink - peak) for sink in sunk])
        columns = zip(*(value[own] for value in seen_values), strict=True)
        result += f32s(sum(map(mul, e, column)) / total for column in columns)
    return result


def add(x: Row, y: Row) -> list[float]:
    """Return x + y; every bit is defined.

    >>> add([1.0], [2.0])
    [3.0]
    """
    return f32s(map(plus, x, y))


def swiglu(gate: Row, up: Row) -> list[float]:
    """Return silu(gate) * up, with silu(g) = g / (1 + exp(-g)). Source: arXiv 2002.05202.

    >>> swiglu([0.0, 40.0, -800.0], [5.0, 0.5, 1.0])
    [0.0, 20.0, -0.0]
    """
    return f32s(_silu(g) * u for g, u in zip(gate, up, strict=True))


def _silu(g: float) -> float:
    return g / (1 + math.exp(-g)) if g > -700 else g * math.exp(g)


def take(rows: Sequence[list[float]], outputs: Sequence[int]) -> list[list[float]]:
    """Return the rows whose logits are requested.

    >>> take([[1.0], [2.0], [3.0]], [2])
    [[3.0]]
    """
    return [rows[index] for index in outputs]

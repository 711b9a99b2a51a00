"""Gradients of the ops of experts.py and recurrent.py; see gradients.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from reference.experts import split
from reference.gradients import Row, Rows, linear
from reference.recurrent import Matrix, _owners
from reference.weights import Weight


def route(g: Row, logits: Row, routed: Row, *, used: int, normalize: bool) -> list[float]:
    """Return the gradient of the logits through the weights of the chosen experts.

    The weights w are a softmax: w (g - sum of w g) for the chosen, and the other experts' share of
    -sum of w g if the softmax is over all. The choice itself has no gradient.

    >>> route([0.0, 0.0, 1.0, 0.0], [0.0, 9.0, 0.0, 9.0], [1, 3, 0.5, 0.5], used=2, normalize=True)
    [0.0, 0.25, 0.0, -0.25]
    """
    rows = zip(routed[:used], routed[used:], g[used:], strict=True)
    weights = {int(expert): (w, a) for expert, w, a in rows}
    mean = math.fsum(w * a for w, a in weights.values())
    peak = max(logits)
    total = math.fsum(math.exp(v - peak) for v in logits)
    result = []
    for index, v in enumerate(logits):
        w, a = weights.get(index, (0.0, 0.0))
        chance = w if normalize else math.exp(v - peak) / total
        result.append(w * a - chance * mean)
    return result


def expert_linear(g: Row, x: Row, routed: Row, weight: Weight, *, experts: int) -> list[float]:
    """Return the gradient of x, for each chosen expert or summed if they share a row.

    >>> w = Weight.of([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    >>> expert_linear([1.0, 10.0], [0.0, 0.0], [2.0, 0.0, 0.5, 0.5], w, experts=3)
    [13.0, 13.0]
    """
    chosen = [int(index) for index in routed[: len(routed) // 2]]
    matrices, size = split(weight, experts), len(g) // len(chosen)
    rows = [
        linear(g[slot * size : (slot + 1) * size], matrices[expert])
        for slot, expert in enumerate(chosen)
    ]
    if len(x) == weight.columns:
        return [math.fsum(column) for column in zip(*rows, strict=True)]
    return [value for row in rows for value in row]


def expert_sum(g: Row, x: Row, routed: Row) -> tuple[list[float], list[float]]:
    """Return the gradients of the experts' rows and of the route: zeros, then those of weights.

    >>> expert_sum([1.0, 2.0], [1.0, 2.0, 10.0, 20.0], [3.0, 0.0, 0.5, 0.25])
    ([0.5, 1.0, 0.25, 0.5], [0.0, 0.0, 5.0, 50.0])
    """
    used, size = len(routed) // 2, len(g)
    rows = [x[slot * size : (slot + 1) * size] for slot in range(used)]
    dx = [weight * a for weight in routed[used:] for a in g]
    return dx, [0.0] * used + [math.fsum(map(mul, g, row)) for row in rows]


def short_conv(g: Sequence[Row], weight: Sequence[Row]) -> Rows:
    """Return the gradient of the inputs of all tokens of a window.

    >>> short_conv([[1.0], [2.0]], [[10.0, 1.0, 0.5]])
    [[2.5], [1.0]]
    """
    kernel = len(weight[0])

    def at(t: int, channel: int) -> float:
        later = range(t, min(t + kernel, len(g)))
        return math.fsum(g[s][channel] * weight[channel][kernel - 1 - s + t] for s in later)

    return [[at(t, channel) for channel in range(len(weight))] for t in range(len(g))]


def log_decay(g: Row, x: Row, rate: Row, bias: Row) -> list[float]:
    """Return g rate sigmoid(x + bias).

    >>> log_decay([1.0], [-1.0], [-2.0], [1.0])
    [-1.0]
    """
    rows = zip(g, x, rate, bias, strict=True)
    return [a * r / (1 + math.exp(-(v + b))) for a, v, r, b in rows]


def delta_rule(
    g: Sequence[Row], q: Sequence[Row], k: Sequence[Row], v: Sequence[Row], decay: Sequence[Row],
    beta: Sequence[Row], *, heads: int, key_heads: int, scale: float, sharing: str,
) -> tuple[Rows, Rows, Rows, Rows, Rows]:  # fmt: skip
    """Return the gradients of q, k, v, decay and beta of all tokens of a window.

    Forwards, each head: P = exp(decay) S, u = beta (v - P^T k), S = P + k u^T, o = scale S^T q.
    Backwards, with dS from the token after:

        dS += scale q g^T;   dq = scale S g
        du = dS^T k;   dv = beta du;   dbeta = (v - P^T k) du
        dP = dS - k dv^T;   dk = dS u - P dv
        ddecay = sum of dP P;   the token before has dS = exp(decay) dP

    >>> kind = {"heads": 1, "key_heads": 1, "scale": 1.0, "sharing": "runs"}
    >>> delta_rule([[1.0]], [[1.0]], [[2.0]], [[8.0]], [[0.0]], [[0.5]], **kind)
    ([[8.0]], [[4.0]], [[1.0]], [[0.0]], [[16.0]])
    """
    key, size = len(q[0]) // key_heads, len(v[0]) // heads
    owners = _owners(heads, key_heads, sharing)
    dq, dk, dv, d_decay, d_beta = (
        [[0.0] * len(row) for row in rows] for rows in (q, k, v, decay, beta)
    )
    for head in range(heads):
        own = slice(owners[head] * key, (owners[head] + 1) * key)
        at = slice(head * size, (head + 1) * size)
        steps, s = list[Matrix](), [[0.0] * size for _ in range(key)]
        for t in range(len(q)):
            faded = [[math.exp(decay[t][head]) * value for value in row] for row in s]
            steps.append(faded)
            u = _update(faded, k[t][own], v[t][at], beta[t][head])
            s = [_plus(row, u, a) for row, a in zip(faded, k[t][own], strict=True)]
        ds = [[0.0] * size for _ in range(key)]
        for t in reversed(range(len(q))):
            faded, keys, b = steps[t], k[t][own], beta[t][head]
            told = [sum(map(mul, keys, column)) for column in zip(*faded, strict=True)]
            u = _update(faded, keys, v[t][at], b)
            s = [_plus(row, u, a) for row, a in zip(faded, keys, strict=True)]
            o = [scale * value for value in g[t][at]]
            dq[t][own] = _plus(dq[t][own], [sum(map(mul, row, o)) for row in s], 1.0)
            ds = [_plus(row, o, a) for row, a in zip(ds, q[t][own], strict=True)]
            du = [sum(map(mul, keys, column)) for column in zip(*ds, strict=True)]
            own_v = [b * value for value in du]
            dv[t][at] = own_v
            d_beta[t][head] = sum((a - c) * e for a, c, e in zip(v[t][at], told, du, strict=True))
            more = [
                sum(map(mul, row, u)) - sum(map(mul, old, own_v))
                for row, old in zip(ds, faded, strict=True)
            ]
            dk[t][own] = _plus(dk[t][own], more, 1.0)
            ds = [_plus(row, own_v, -a) for row, a in zip(ds, keys, strict=True)]
            d_decay[t][head] = sum(sum(map(mul, *rows)) for rows in zip(ds, faded, strict=True))
            ds = [[math.exp(decay[t][head]) * value for value in row] for row in ds]
    return dq, dk, dv, d_decay, d_beta


def _update(s: Matrix, k: Row, v: Row, beta: float) -> list[float]:
    """Return beta (v - S^T k)."""
    told = [sum(map(mul, k, column)) for column in zip(*s, strict=True)]
    return [beta * (value - old) for value, old in zip(v, told, strict=True)]


def _plus(row: Row, more: Row, factor: float) -> list[float]:
    return [old + factor * value for old, value in zip(row, more, strict=True)]

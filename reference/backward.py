"""The backward pass of a plan over one window: gradients of every value and of weight vectors.

`run.forward` gives the value of each op; from the last op to the first, each gradient is passed to
the op's inputs, where the gradients of all readers are added. The ops' gradients are the functions
of gradients.py, gradients_gates.py and gradients_recurrent.py, in binary64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reference import gradients, gradients_gates, gradients_recurrent
from reference.run import Plan
from reference.weights import Weight

Row = Sequence[float]
Rows = list[list[float]]

PER_ROW: dict[str, Any] = {
    **{name: getattr(gradients, name) for name in ("l2_norm",)},
    **{name: getattr(gradients_gates, name) for name in (
        "mul", "scale", "softcap", "gelu", "silu", "sigmoid", "swiglu", "geglu", "clamped_swiglu",
    )},
    **{name: getattr(gradients_recurrent, name) for name in ("expert_sum", "log_decay")},
}  # fmt: skip
"""Ops whose gradient needs only a row of g and of each input, weight vectors and attributes."""


def backward(
    plan: Plan, weights: Mapping[str, Weight], values: Sequence[Rows], g: Sequence[Row], *,
    capacity: int | None = None,
) -> tuple[list[Rows | None], dict[str, list[float]]]:  # fmt: skip
    """Return the gradient of each op's value, None where the loss does not depend on it.

    Also those of the weight vectors of norms and of biases, by name. `values` is the trace of
    `run.forward` over all tokens of one window, `g` the gradient of the logits. `capacity` is that
    of the cache, for `long_rope` (default: the window's length).

    >>> plan = [{"op": "embed", "inputs": [], "weights": ["table"], "width": 2},
    ...         {"op": "add", "inputs": [0, 0], "weights": [], "width": 2}]
    >>> backward(plan, {}, [[[1.0, 2.0]], [[2.0, 4.0]]], [[1.0, 10.0]])
    ([[[2.0, 20.0]], [[1.0, 10.0]]], {})
    """
    found: list[Rows | None] = [None] * len(plan)
    found[-1] = [list(row) for row in g]
    vectors: dict[str, list[float]] = {}
    for index in reversed(range(len(plan))):
        op, own = plan[index], found[index]
        if own is None or op["op"] in ("embed", "embed_position"):
            continue
        inputs = [values[i] for i in op["inputs"]]
        _vectors(op, own, inputs, vectors)
        given = _inputs(op, own, inputs, values[index], weights, capacity)
        for value, rows in zip(op["inputs"], given, strict=True):
            found[value] = _sum(found[value], rows)
    return found, vectors


def _sum(old: Rows | None, new: Rows) -> Rows:
    if old is None:
        return new
    pairs = zip(old, new, strict=True)
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in pairs]


def _inputs(
    op: Mapping[str, Any], g: Rows, inputs: Sequence[Rows], output: Rows,
    weights: Mapping[str, Weight], capacity: int | None,
) -> Sequence[Rows]:  # fmt: skip
    """Return the gradients of an op's inputs, all rows of each."""
    attributes = {k: v for k, v in op.items() if k not in ("op", "inputs", "weights", "width")}
    stored = [weights[name] for name in op["weights"]]
    vectors = [weight.values[0] for weight in stored]
    match op["op"]:
        case "add":
            return [g, [list(row) for row in g]]
        case "take":
            return [g]
        case "rms_norm" | "layer_norm":
            norm = getattr(gradients, op["op"])
            rows = zip(g, inputs[0], strict=True)
            return [[norm(a, x, vectors[0], **attributes) for a, x in rows]]
        case "linear":
            return [[gradients.linear(a, stored[0]) for a in g]]
        case "rope":
            return [[gradients.rope(a, at, **attributes) for at, a in enumerate(g)]]
        case "long_rope":
            kind = {name: attributes[name] for name in ("heads", "factor", "pairing")}
            room = len(g) if capacity is None else capacity
            kind["freqs"] = attributes["long" if room > attributes["original"] else "short"]
            return [[gradients.rope(a, at, **kind) for at, a in enumerate(g)]]
        case "part":
            size = len(inputs[0][0])
            return [[gradients_gates.part(a, size=size, **attributes) for a in g]]
        case "attend":
            attributes.pop("layer")
            sinks = vectors[0] if vectors else None
            q, k, v = inputs
            return gradients.attend(g, q, k, v, sinks, **attributes)
        case "short_conv":
            return [gradients_recurrent.short_conv(g, stored[0].values)]
        case "delta_rule":
            attributes.pop("layer")
            q, k, v, decay, beta = inputs
            return gradients_recurrent.delta_rule(g, q, k, v, decay, beta, **attributes)
        case "route":
            rows3 = zip(g, inputs[0], output, strict=True)
            return [[gradients_recurrent.route(a, x, r, **attributes) for a, x, r in rows3]]
        case "expert_linear":
            rows3 = zip(g, *inputs, strict=True)
            dx = [
                gradients_recurrent.expert_linear(a, x, r, stored[0], **attributes)
                for a, x, r in rows3
            ]
            return [dx, [[0.0] * len(row) for row in inputs[1]]]
    made = [
        PER_ROW[op["op"]](a, *row, *vectors, **attributes)
        for a, row in zip(g, zip(*inputs, strict=True), strict=True)
    ]
    return [made] if len(inputs) == 1 else [list(rows) for rows in zip(*made, strict=True)]


def _vectors(
    op: Mapping[str, Any], g: Rows, inputs: Sequence[Rows], found: dict[str, list[float]]
) -> None:
    """Store the gradients of an op's weight vectors: a norm's weight, a bias."""
    attributes = {name: op[name] for name in ("eps", "heads") if name in op}
    names = op["weights"]
    if op["op"] in ("rms_norm", "layer_norm"):
        weight = getattr(gradients, op["op"] + "_weight")
        rows = [weight(a, x, **attributes) for a, x in zip(g, inputs[0], strict=True)]
        found[names[0]] = [math.fsum(column) for column in zip(*rows, strict=True)]
    if op["op"] in ("layer_norm", "linear") and len(names) > 1:
        found[names[1]] = [math.fsum(column) for column in zip(*g, strict=True)]

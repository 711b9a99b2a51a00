"""What several architectures share: linear layers by name, and their feed-forward halves."""

from __future__ import annotations

from collections.abc import Callable

from fewbit.errors import InputError
from fewbit.plan.plan import Plan, Value

Gate = Callable[[Value, Value], Value]
"""What joins the two halves of a gated layer."""


def linear(p: Plan, x: Value, stem: str, width: int, bias: bool = False) -> Value:
    """The product with ``STEM.weight``, plus ``STEM.bias``."""
    return p.linear(x, stem + ".weight", width, stem + ".bias" if bias else None)


def gated(p: Plan, h: Value, w: str, width: int, gate: Gate, suffix: str = "") -> Value:
    """down(gate(h) * up(h)), `width` between them, by the tensors ``ffn_*SUFFIX``."""
    bias = p.config.ffn_bias
    halves = (linear(p, h, f"{w}ffn_{n}{suffix}", width, bias) for n in ("gate", "up"))
    return linear(p, gate(*halves), f"{w}ffn_down{suffix}", p.config.width, bias)


def experts(p: Plan, h: Value, w: str, gate: Gate, bias: bool = False) -> Value:
    """Each token to a few experts, and to the shared one if there is one (arXiv 2401.06066)."""
    c, r = p.config, p.config.routing
    if r is None:
        raise InputError("the configuration has no experts")

    def each(x: Value, kind: str, width: int) -> Value:
        stem = f"{w}ffn_{kind}_exps"
        return p.expert_linear(x, route, stem + ".weight", width, stem + ".bias" if bias else None)

    route = p.route(linear(p, h, w + "ffn_gate_inp", c.experts, bias), r.used, r.normalize)
    inner = gate(each(h, "gate", r.ffn), each(h, "up", r.ffn))
    out = p.expert_sum(each(inner, "down", c.width), route)
    if r.shared:
        share = p.sigmoid(p.linear(h, w + "ffn_gate_inp_shexp.weight", 1))
        out = p.add(out, p.mul(gated(p, h, w, r.shared, gate, "_shexp"), share))
    return out


def feed_forward(p: Plan, h: Value, w: str, layer: int) -> Value:
    """swiglu, of experts where the layer has them."""
    if p.config.routing is None or layer in p.config.routing.dense:
        return gated(p, h, w, p.config.ffn, p.swiglu)
    return experts(p, h, w, p.swiglu)


def head(p: Plan, x: Value) -> Value:
    """The logits of the rows that are wanted, from values that the last norm has seen."""
    c = p.config
    return p.linear(x, "token_embd.weight" if c.tied else "output.weight", c.vocab)

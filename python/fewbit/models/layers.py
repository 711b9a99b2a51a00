"""Layers that several architectures share: linear, gated feed-forward, experts, output."""

from __future__ import annotations

from collections.abc import Callable

from fewbit.errors import InputError
from fewbit.plan.plan import Plan, Value

Gate = Callable[[Value, Value], Value]
"""Function of a gated layer: from its gate and up projections to the input of down."""


def linear(p: Plan, x: Value, stem: str, width: int, bias: bool = False) -> Value:
    """The product with ``STEM.weight``, plus ``STEM.bias``."""
    return p.linear(x, stem + ".weight", width, stem + ".bias" if bias else None)


def gated(p: Plan, h: Value, w: str, width: int, gate: Gate, suffix: str = "") -> Value:
    """Gated feed-forward layer of `width`: down(gate(gate_proj h, up_proj h)).

    Its tensors are ``ffn_gate``, ``ffn_up`` and ``ffn_down``, with `suffix` after their names.
    """
    bias = p.config.ffn_bias
    halves = (linear(p, h, f"{w}ffn_{n}{suffix}", width, bias) for n in ("gate", "up"))
    return linear(p, gate(*halves), f"{w}ffn_down{suffix}", p.config.width, bias)


def experts(p: Plan, h: Value, w: str, gate: Gate, bias: bool = False) -> Value:
    """Mixture of experts: the chosen experts of each token, and the shared one if there is one.

    Source: arXiv 2401.06066.
    """
    c, r = p.config, p.config.routing
    if r is None:
        raise InputError("a layer of experts needs a configuration with `routing`")

    def each(x: Value, kind: str, width: int) -> Value:
        stem = f"{w}ffn_{kind}_exps"
        return p.expert_linear(x, route, stem + ".weight", width, stem + ".bias" if bias else None)

    route = p.route(linear(p, h, w + "ffn_gate_inp", c.experts, bias), r.used, r.normalize)
    inner = gate(each(h, "gate", r.ffn), each(h, "up", r.ffn))
    out = p.expert_sum(each(inner, "down", c.width), route)
    if r.shared:
        weight = p.sigmoid(p.linear(h, w + "ffn_gate_inp_shexp.weight", 1))
        out = p.add(out, p.mul(gated(p, h, w, r.shared, gate, "_shexp"), weight))
    return out


def feed_forward(p: Plan, h: Value, w: str, layer: int) -> Value:
    """The feed-forward layer with swiglu: dense, or of experts if layer `layer` has them."""
    if p.config.routing is None or layer in p.config.routing.dense:
        return gated(p, h, w, p.config.ffn, p.swiglu)
    return experts(p, h, w, p.swiglu)


def head(p: Plan, x: Value) -> Value:
    """The logits, from values after the last norm."""
    c = p.config
    return p.linear(x, "token_embd.weight" if c.tied else "output.weight", c.vocab)

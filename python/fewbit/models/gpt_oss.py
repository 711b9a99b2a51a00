"""GPT-OSS: experts with a clamped gate, attention sinks, sliding windows in every other layer."""

from __future__ import annotations

from fewbit.models.layers import experts, head, linear
from fewbit.models.rope import frequencies
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan, Value

ALPHA, LIMIT = 1.702, 7.0
"""Slope of the gate, and the limit that its inputs are clamped to."""


def gpt_oss(c: Config) -> Plan:
    """Build the plan of GPT-OSS 20B or 120B (arXiv 2508.10925)."""
    p = Plan(c)

    def gate(a: Value, b: Value) -> Value:
        return p.clamped_swiglu(a, b, ALPHA, LIMIT)

    freqs, factor = frequencies(c.rope, c.rope_dims)
    x = p.embed("token_embd.weight")
    for i in range(c.layers):
        w = f"blk.{i}."
        h = p.rms_norm(x, w + "attn_norm.weight")
        q, k, v = (
            linear(p, h, f"{w}attn_{n}", heads * c.head_dim, bias=True)
            for n, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads))
        )
        q = p.rope(q, c.heads, freqs, factor, "halves")
        k = p.rope(k, c.kv_heads, freqs, factor, "halves")
        sinks = w + "attn_sinks.weight"
        a = p.attend(q, k, v, layer=i, scale=c.scale, window=c.window(i), sinks=sinks)
        x = p.add(x, linear(p, a, w + "attn_output", c.width, bias=True))
        h = p.rms_norm(x, w + "post_attention_norm.weight")
        x = p.add(x, experts(p, h, w, gate, bias=True))
    head(p, p.rms_norm(p.take(x), "output_norm.weight"))
    return p

"""Phi 3 and 4: Llama with fused projections and LongRoPE frequencies."""

from __future__ import annotations

from fewbit.models.layers import head
from fewbit.models.rope import frequencies, long_frequencies
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan, Value


def phi3(c: Config) -> Plan:
    """Build the plan of Phi 3, 3.5 or 4 (arXiv 2404.14219)."""
    p = Plan(c)
    q_width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    x = p.embed("token_embd.weight")
    for i in range(c.layers):
        w = f"blk.{i}."
        h = p.rms_norm(x, w + "attn_norm.weight")
        qkv = p.linear(h, w + "attn_qkv.weight", q_width + 2 * kv_width)
        q = _rope(p, p.part(qkv, 0, q_width), c.heads)
        k = _rope(p, p.part(qkv, q_width, kv_width), c.kv_heads)
        v = p.part(qkv, q_width + kv_width, kv_width)
        a = p.attend(q, k, v, layer=i, scale=c.scale, window=c.window(i))
        x = p.add(x, p.linear(a, w + "attn_output.weight", c.width))
        h = p.rms_norm(x, w + "ffn_norm.weight")
        both = p.linear(h, w + "ffn_up.weight", 2 * c.ffn)
        inner = p.swiglu(p.part(both, 0, c.ffn), p.part(both, c.ffn, c.ffn))
        x = p.add(x, p.linear(inner, w + "ffn_down.weight", c.width))
    head(p, p.rms_norm(p.take(x), "output_norm.weight"))
    return p


def _rope(p: Plan, x: Value, heads: int) -> Value:
    rope, dims = p.config.rope, p.config.rope_dims
    if rope.kind != "longrope":
        return p.rope(x, heads, *frequencies(rope, dims), "halves")
    short, long, factor = long_frequencies(rope, dims)
    return p.long_rope(x, heads, short, long, rope.original_context, factor, "halves")

"""Gemma 3: norms before and after attention and feed-forward, sliding windows in most layers."""

from __future__ import annotations

import math

from fewbit.models.layers import gated, head
from fewbit.models.rope import frequencies
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan


def gemma3(c: Config) -> Plan:
    """Build the plan of Gemma 3, text only (arXiv 2503.19786); GGUF stores 1 + w of its norms."""
    p = Plan(c)
    x = p.scale(p.embed("token_embd.weight"), math.sqrt(c.width))
    for i in range(c.layers):
        w = f"blk.{i}."
        h = p.rms_norm(x, w + "attn_norm.weight")
        q, k, v = (
            p.linear(h, f"{w}attn_{n}.weight", heads * c.head_dim)
            for n, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads))
        )
        rope = c.window_rope if c.window(i) and c.window_rope else c.rope
        freqs, factor = frequencies(rope, c.rope_dims)
        q = p.rms_norm(q, w + "attn_q_norm.weight", heads=c.heads)
        k = p.rms_norm(k, w + "attn_k_norm.weight", heads=c.kv_heads)
        q = p.rope(q, c.heads, freqs, factor, "halves")
        k = p.rope(k, c.kv_heads, freqs, factor, "halves")
        a = p.attend(q, k, v, layer=i, scale=c.scale, window=c.window(i))
        a = p.linear(a, w + "attn_output.weight", c.width)
        x = p.add(x, p.rms_norm(a, w + "post_attention_norm.weight"))
        f = gated(p, p.rms_norm(x, w + "ffn_norm.weight"), w, c.ffn, p.geglu)
        x = p.add(x, p.rms_norm(f, w + "post_ffw_norm.weight"))
    logits = head(p, p.rms_norm(p.take(x), "output_norm.weight"))
    if c.softcap:
        p.softcap(logits, c.softcap)
    return p

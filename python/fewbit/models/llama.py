"""Llama, Mistral and Mixtral: the plan that most other decoders are variants of."""

from __future__ import annotations

from fewbit.models.layers import feed_forward, head, linear
from fewbit.models.rope import frequencies
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan


def llama(c: Config) -> Plan:
    """Build the plan of Llama 1-3, Mistral or Mixtral; GGUF rotates neighbouring elements."""
    return decoder(c, pairing="neighbours", head_norm=False)


def decoder(c: Config, *, pairing: str, head_norm: bool) -> Plan:
    """Build the plan of a pre-norm decoder with rotary attention and swiglu.

    `pairing` is that of `Plan.rope`; `head_norm` adds Qwen 3's norm to each head of q and k.
    """
    p = Plan(c)
    freqs, factor = frequencies(c.rope, c.rope_dims)
    x = p.embed("token_embd.weight")
    for i in range(c.layers):
        w = f"blk.{i}."
        h = p.rms_norm(x, w + "attn_norm.weight")
        q, k, v = (
            linear(p, h, f"{w}attn_{n}", heads * c.head_dim, c.qkv_bias)
            for n, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads))
        )
        if head_norm:
            q = p.rms_norm(q, w + "attn_q_norm.weight", heads=c.heads)
            k = p.rms_norm(k, w + "attn_k_norm.weight", heads=c.kv_heads)
        q = p.rope(q, c.heads, freqs, factor, pairing)
        k = p.rope(k, c.kv_heads, freqs, factor, pairing)
        a = p.attend(q, k, v, layer=i, scale=c.scale, window=c.window(i))
        x = p.add(x, linear(p, a, w + "attn_output", c.width, c.output_bias))
        x = p.add(x, feed_forward(p, p.rms_norm(x, w + "ffn_norm.weight"), w, i))
    head(p, p.rms_norm(p.take(x), "output_norm.weight"))
    return p

"""Qwen3-Next and Qwen3.5: gated DeltaNet in most layers, gated attention in the others."""

from __future__ import annotations

from fewbit.models.layers import feed_forward, head
from fewbit.models.rope import frequencies
from fewbit.plan.config import Config, Delta
from fewbit.plan.plan import Plan, Value

L2_EPS = 1e-6


def qwen35(c: Config) -> Plan:
    """Build the plan of Qwen3.5: value head h uses key head h modulo the number of key heads."""
    return _hybrid(c, fused=False, sharing="turns")


def qwen3next(c: Config) -> Plan:
    """Build the plan of Qwen3-Next: fused beta and decay, consecutive value heads per key head."""
    return _hybrid(c, fused=True, sharing="runs")


def _hybrid(c: Config, *, fused: bool, sharing: str) -> Plan:
    p = Plan(c)
    x = p.embed("token_embd.weight")
    for i in range(c.layers):
        w = f"blk.{i}."
        h = p.rms_norm(x, w + "attn_norm.weight")
        if c.delta is not None and c.delta.layers[i]:
            mixed = _delta(p, h, w, i, c.delta, fused, sharing)
        else:
            mixed = _attention(p, h, w, i)
        x = p.add(x, mixed)
        h = p.rms_norm(x, w + "post_attention_norm.weight")
        x = p.add(x, feed_forward(p, h, w, i))
    head(p, p.rms_norm(p.take(x), "output_norm.weight"))
    return p


def _attention(p: Plan, h: Value, w: str, layer: int) -> Value:
    """Attention with a gate beside each head of q; a fraction of each head rotates."""
    c = p.config
    width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    freqs, factor = frequencies(c.rope, c.rope_dims)
    both = p.linear(h, w + "attn_q.weight", 2 * width)
    q, gate = (p.part(both, start, width, parts=c.heads) for start in (0, c.head_dim))
    k, v = (p.linear(h, f"{w}attn_{n}.weight", kv_width) for n in ("k", "v"))
    q = p.rms_norm(q, w + "attn_q_norm.weight", heads=c.heads)
    k = p.rms_norm(k, w + "attn_k_norm.weight", heads=c.kv_heads)
    q = p.rope(q, c.heads, freqs, factor, "halves")
    k = p.rope(k, c.kv_heads, freqs, factor, "halves")
    a = p.attend(q, k, v, layer=layer, scale=c.scale)
    return p.linear(p.mul(a, p.sigmoid(gate)), w + "attn_output.weight", c.width)


def _delta(
    p: Plan, h: Value, w: str, layer: int, d: Delta, fused: bool, sharing: str
) -> Value:  # fmt: skip
    """Gated DeltaNet (arXiv 2412.06464)."""
    keys, values = d.key_heads * d.key_size, d.heads * d.value_size
    qkv = p.linear(h, w + "attn_qkv.weight", d.channels)
    z = p.linear(h, w + "attn_gate.weight", values)
    if fused:
        both = p.linear(h, w + "ssm_ba.weight", 2 * d.heads)
        starts = (0, d.heads // d.key_heads)
        b, a = (p.part(both, start, d.heads, parts=d.key_heads) for start in starts)
    else:
        b, a = (p.linear(h, f"{w}ssm_{n}.weight", d.heads) for n in ("beta", "alpha"))
    mixed = p.silu(p.short_conv(qkv, w + "ssm_conv1d.weight", layer))
    q, k = (p.l2_norm(p.part(mixed, at, keys), d.key_heads, L2_EPS) for at in (0, keys))
    v = p.part(mixed, 2 * keys, values)
    decay = p.log_decay(a, w + "ssm_a", w + "ssm_dt.bias")
    o = p.delta_rule(q, k, v, decay, p.sigmoid(b), layer=layer, sharing=sharing)
    o = p.rms_norm(o, w + "ssm_norm.weight", heads=d.heads)
    return p.linear(p.swiglu(z, o), w + "ssm_out.weight", p.config.width)

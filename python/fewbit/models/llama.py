"""Llama and Mistral: the plan that most decoders vary."""

from __future__ import annotations

from fewbit.config import Config
from fewbit.models.rope import frequencies
from fewbit.plan import Plan, Value


def llama(c: Config) -> Plan:
    """Llama 1-3 and Mistral; GGUF's "llama" has the rotary pairs beside each other."""
    return decoder(c, pairing="neighbours", head_norm=False)


def decoder(c: Config, *, pairing: str, head_norm: bool) -> Plan:
    """A pre-norm decoder with rotary attention and swiglu; `head_norm` is Qwen 3's q and k norm."""
    p = Plan(c)
    freqs, factor = frequencies(c.rope, c.head_dim)
    x = p.embed("token_embd.weight")
    for i in range(c.layers):
        w = f"blk.{i}."
        h = p.rms_norm(x, w + "attn_norm.weight")
        q, k, v = (
            p.linear(
                h, f"{w}attn_{n}.weight", heads * c.head_dim, _bias(c.qkv_bias, f"{w}attn_{n}")
            )
            for n, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads))
        )
        if head_norm:
            q = p.rms_norm(q, w + "attn_q_norm.weight", heads=c.heads)
            k = p.rms_norm(k, w + "attn_k_norm.weight", heads=c.kv_heads)
        q = p.rope(q, c.heads, freqs, factor, pairing)
        k = p.rope(k, c.kv_heads, freqs, factor, pairing)
        a = p.attend(q, k, v, layer=i, scale=c.head_dim**-0.5, window=c.window(i))
        o = w + "attn_output"
        x = p.add(x, p.linear(a, o + ".weight", c.width, _bias(c.output_bias, o)))
        x = p.add(x, _ffn(p, p.rms_norm(x, w + "ffn_norm.weight"), w))
    x = p.rms_norm(p.take(x), "output_norm.weight")
    p.linear(x, "token_embd.weight" if c.tied else "output.weight", c.vocab)
    return p


def _ffn(p: Plan, h: Value, w: str) -> Value:
    c = p.config
    gate, up = (
        p.linear(h, f"{w}ffn_{n}.weight", c.ffn, _bias(c.ffn_bias, f"{w}ffn_{n}"))
        for n in ("gate", "up")
    )
    down = w + "ffn_down"
    return p.linear(p.swiglu(gate, up), down + ".weight", c.width, _bias(c.ffn_bias, down))


def _bias(present: bool, stem: str) -> str | None:
    return stem + ".bias" if present else None

"""GPT-2: learned positions, layer norms, biases everywhere."""

from __future__ import annotations

from fewbit.models.layers import head, linear
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan, Value


def gpt2(c: Config) -> Plan:
    """Build the plan of GPT-2, in any of its four sizes."""
    p = Plan(c)

    def norm(x: Value, stem: str) -> Value:
        return p.layer_norm(x, stem + ".weight", stem + ".bias")

    x = p.add(p.embed("token_embd.weight"), p.embed_position("position_embd.weight"))
    for i in range(c.layers):
        w = f"blk.{i}."
        qkv = linear(p, norm(x, w + "attn_norm"), w + "attn_qkv", 3 * c.width, bias=True)
        q, k, v = (p.part(qkv, start * c.width, c.width) for start in range(3))
        a = p.attend(q, k, v, layer=i, scale=c.scale)
        x = p.add(x, linear(p, a, w + "attn_output", c.width, bias=True))
        h = p.gelu(linear(p, norm(x, w + "ffn_norm"), w + "ffn_up", c.ffn, bias=True))
        x = p.add(x, linear(p, h, w + "ffn_down", c.width, bias=True))
    head(p, norm(p.take(x), "output_norm"))
    return p

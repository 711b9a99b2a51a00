"""Qwen 2, 2.5 and 3, dense and with experts."""

from __future__ import annotations

from fewbit.models.llama import decoder
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan


def qwen2(c: Config) -> Plan:
    """Build the plan of Qwen 2: Llama with biases on q, k, v and rotary pairs (i, i + dims/2)."""
    return decoder(c, pairing="halves", head_norm=False)


def qwen3(c: Config) -> Plan:
    """Build the plan of Qwen 3: Qwen 2 with a norm of each head of q and k before the rotation."""
    return decoder(c, pairing="halves", head_norm=True)

"""Qwen 2 (and 2.5) and Qwen 3, dense and with experts."""

from __future__ import annotations

from fewbit.models.llama import decoder
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan


def qwen2(c: Config) -> Plan:
    """Llama with biases on q, k and v, and the rotary pairs half a head apart."""
    return decoder(c, pairing="halves", head_norm=False)


def qwen3(c: Config) -> Plan:
    """Qwen 2 with each head of q and k normalised before the rotation."""
    return decoder(c, pairing="halves", head_norm=True)

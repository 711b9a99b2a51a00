"""Architectures by their GGUF names: each is a short function from a `Config` to a `Plan`."""

from __future__ import annotations

from collections.abc import Callable

from fewbit.errors import UnsupportedError, did_you_mean
from fewbit.models.gemma import gemma3
from fewbit.models.gpt2 import gpt2
from fewbit.models.gpt_oss import gpt_oss
from fewbit.models.llama import llama
from fewbit.models.phi import phi3
from fewbit.models.qwen import qwen2, qwen3
from fewbit.models.qwen_hybrid import qwen3next, qwen35
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan

ARCHITECTURES: dict[str, Callable[[Config], Plan]] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3moe": qwen3,
    "qwen3next": qwen3next,
    "qwen35": qwen35,
    "qwen35moe": qwen35,
    "gemma3": gemma3,
    "phi3": phi3,
    "gpt2": gpt2,
    "gpt-oss": gpt_oss,
}


def build_plan(config: Config) -> Plan:
    """Build the plan of `config.architecture`.

    Raises:
        UnsupportedError: the architecture is not in `ARCHITECTURES`.

    """
    build = ARCHITECTURES.get(config.architecture)
    if build is None:
        raise unknown_architecture(config.architecture)
    return build(config)


def unknown_architecture(name: str) -> UnsupportedError:
    """Make the error of an unknown architecture, with the nearest known one."""
    return UnsupportedError(
        f"unknown architecture `{name}`",
        hint=f"{did_you_mean(name, ARCHITECTURES)}known: {', '.join(ARCHITECTURES)}",
        architecture=name,
    )

"""Hugging Face tensor names in GGUF's words, and the order of rows that GGUF's "llama" has."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

from fewbit.errors import UnsupportedError

_LEFT_OUT = re.compile(r"rotary_emb\.inv_freq$|attention\.(masked_)?bias$")
"""Buffers that old checkpoints carry along: they follow from the configuration."""
_WITH_SUFFIX = re.compile(r"attn_sinks$")
"""Names that lack the suffix which GGUF gives them."""
_ROTATED = re.compile(r"blk\.\d+\.attn_[qk]\.(weight|bias)")


def gguf_names(names: Iterable[str], architecture: str, layers: int) -> dict[str, str]:
    """GGUF name -> the name in the checkpoint, for each of `names` that is a weight.

    Raises:
        UnsupportedError: a tensor has no place in the architecture.

    """
    number = {name: number for number, name in MODEL_ARCH_NAMES.items()}[architecture]
    table = get_tensor_name_map(number, layers)
    # gguf's list for Qwen3 with experts lacks the layers that have none.
    dense_kind = {"qwen3moe": MODEL_ARCH.QWEN3}.get(architecture, number)
    dense = get_tensor_name_map(dense_kind, layers)
    found: dict[str, str] = {}
    for name in names:
        if _LEFT_OUT.search(name):
            continue
        spelled = name.replace(".linear_attn.dt_bias", ".linear_attn.dt_proj.bias")
        renamed = table.get_name(spelled, try_suffixes=(".weight", ".bias"))
        if renamed is None:
            renamed = dense.get_name(spelled, try_suffixes=(".weight", ".bias"))
        if renamed is None:
            raise UnsupportedError(
                f"tensor `{name}` has no place in {architecture} of {layers} layers",
                hint="the checkpoint is of another kind than its config.json says",
                tensor=name,
            )
        found[_WITH_SUFFIX.sub(r"\g<0>.weight", renamed)] = name
    return found


def rotated_heads(name: str, architecture: str, heads: int, kv_heads: int) -> int:
    """How many heads of tensor `name` GGUF stores interleaved, 0 if it does not."""
    if architecture != "llama" or not _ROTATED.fullmatch(name):
        return 0
    return heads if ".attn_q." in name else kv_heads

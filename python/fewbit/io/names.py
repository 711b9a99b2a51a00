"""Hugging Face tensor names in GGUF's words, and the order of rows that GGUF's "llama" has."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
from numpy.typing import NDArray

from fewbit.errors import UnsupportedError

_LEFT_OUT = re.compile(r"rotary_emb\.inv_freq$|attention\.(masked_)?bias$")
"""Buffers that old checkpoints carry along: they follow from the configuration."""
_ROTATED = re.compile(r"blk\.\d+\.attn_[qk]\.(weight|bias)")


def gguf_names(names: Iterable[str], architecture: str, layers: int) -> dict[str, str]:
    """GGUF name -> the name in the checkpoint, for each of `names` that is a weight.

    Raises:
        UnsupportedError: a tensor has no place in the architecture.

    """
    number = {name: number for number, name in MODEL_ARCH_NAMES.items()}[architecture]
    table = get_tensor_name_map(number, layers)
    found: dict[str, str] = {}
    for name in names:
        if _LEFT_OUT.search(name):
            continue
        renamed = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if renamed is None:
            raise UnsupportedError(
                f"tensor `{name}` has no place in {architecture} of {layers} layers",
                hint="the checkpoint is of another kind than its config.json says",
                tensor=name,
            )
        found[renamed] = name
    return found


def rotated_heads(name: str, architecture: str, heads: int, kv_heads: int) -> int:
    """How many heads of tensor `name` GGUF stores interleaved, 0 if it does not."""
    if architecture != "llama" or not _ROTATED.fullmatch(name):
        return 0
    return heads if ".attn_q." in name else kv_heads


def interleave_heads(rows: NDArray[np.uint8], heads: int) -> NDArray[np.uint8]:
    """Rows [heads * dim, row bytes] with the two halves of each head interleaved.

    Hugging Face rotates elements (i, i + dim/2) of a head, GGUF's "llama" (2i, 2i + 1).
    """
    halves = rows.reshape(heads, 2, -1, rows.shape[-1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)

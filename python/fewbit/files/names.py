"""Tensor names: Hugging Face names as GGUF names, names that match a regex, interleaved heads."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fewbit.errors import InputError, UnsupportedError, did_you_mean

_BUFFERS = re.compile(
    r"(^|\.)(inv_freq|original_inv_freq|(cos|sin)_cached|position_ids|causal_mask"
    r"|(attn|attention)\.(masked_)?bias|[kvq]_scale|kv_scale|prob_scale)$"
)
"""Names of tensors that are no weights: rotary tables, positions, causal masks, KV cache scales.

All but the scales follow from the configuration. The scales belong to caches in 8 bits, which
fewbit does not have; a scale of a weight (`weight_scale`) is not among them.
"""
_WITH_SUFFIX = re.compile(r"attn_sinks$")
"""Names to which GGUF adds `.weight`."""
_ROTATED = re.compile(r"blk\.\d+\.attn_[qk]\.(weight|bias)")


def is_buffer(name: str) -> bool:
    """Whether the tensor `name` of a checkpoint is a buffer: it is no weight and is not read.

    >>> is_buffer("h.0.attn.bias"), is_buffer("h.0.attn.c_attn.bias")
    (True, False)
    """
    return _BUFFERS.search(name) is not None


def gguf_names(names: Iterable[str], architecture: str, layers: int) -> dict[str, str]:
    """Map GGUF names to the names in the checkpoint, for `names` of weights.

    Raises:
        UnsupportedError: the architecture has no tensor of a name.

    """
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    number = {name: number for number, name in MODEL_ARCH_NAMES.items()}[architecture]
    table = get_tensor_name_map(number, layers)
    # gguf's name table for Qwen3-MoE lacks the tensors of dense layers.
    dense_kind = {"qwen3moe": MODEL_ARCH.QWEN3}.get(architecture, number)
    dense = get_tensor_name_map(dense_kind, layers)
    found: dict[str, str] = {}
    for name in names:
        spelled = name.replace(".linear_attn.dt_bias", ".linear_attn.dt_proj.bias")
        renamed = table.get_name(spelled, try_suffixes=(".weight", ".bias"))
        if renamed is None:
            renamed = dense.get_name(spelled, try_suffixes=(".weight", ".bias"))
        if renamed is None:
            raise UnsupportedError(
                f"unexpected tensor `{name}`: {architecture} with {layers} layers does not have it",
                hint="take the config.json that belongs to the weights",
                tensor=name,
            )
        found[_WITH_SUFFIX.sub(r"\g<0>.weight", renamed)] = name
    return found


def rotated_heads(name: str, architecture: str, heads: int, kv_heads: int) -> int:
    """Number of heads of tensor `name` whose rows GGUF stores interleaved, 0 for none."""
    if architecture != "llama" or not _ROTATED.fullmatch(name):
        return 0
    return heads if ".attn_q." in name else kv_heads


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names in which the regular expression `pattern` is found, at least one.

    Raises:
        InputError: `pattern` is not a regular expression, or matches no name.

    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"`{pattern}` is not a regular expression: {error}",
            hint="for example `--tensor 'blk.0.attn_q'`",
        ) from None
    known = list(names)
    found = [name for name in known if expression.search(name)]
    if not found:
        raise InputError(
            f"no tensor matches `{pattern}`",
            hint=f"{did_you_mean(pattern, known)}`fewbit inspect` lists the names",
        )
    return found

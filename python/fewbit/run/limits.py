"""Choices that both executors share: batch size, activations, and types of the KV cache."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

from fewbit import _core
from fewbit.errors import InputError, did_you_mean

BATCH = _core.BATCH
"""Tokens of one forward pass: enough for matrix products, few enough for their logits."""

Activations: TypeAlias = Literal["f32", "int8"]
"""What a product does to its activations: nothing, or round those that meet quantized weights."""

KvType: TypeAlias = Literal["f32", "f16", "int8"]
"""Element type of the keys and values in a KV cache."""

ACTIVATIONS = _core.ACTIVATIONS
"""The names of `Activations`."""
KV_TYPES = _core.KV_TYPES
"""The names of `KvType`, in the order of the core and the shaders."""


def activations_named(name: str) -> Activations:
    """The kind of activations called `name`.

    Raises:
        InputError: no kind is called so.

    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(
            f"unknown activations `{name}`",
            hint=f"{did_you_mean(name, ACTIVATIONS)}known: {known}",
            acts=name,
        )
    return cast(Activations, name)


def kv_type_named(name: str) -> KvType:
    """The type of keys and values called `name`.

    Raises:
        InputError: no type is called so.

    """
    if name not in KV_TYPES:
        raise InputError(
            f"unknown type of keys and values `{name}`",
            hint=f"{did_you_mean(name, KV_TYPES)}known: {', '.join(KV_TYPES)}",
        )
    return cast(KvType, name)

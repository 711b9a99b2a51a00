"""Choices that both executors share: batch size, activations, and types of the KV cache."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast, get_args

from fewbit.errors import InputError

BATCH = 512
"""Tokens of one forward pass: enough for matrix products, few enough for their logits."""

Activations: TypeAlias = Literal["f32", "int8"]
"""What a product does to its activations: nothing, or round those that meet quantized weights."""

KvType: TypeAlias = Literal["f32", "f16", "int8"]
"""Element type of the keys and values in a KV cache."""

ACTIVATIONS: tuple[str, ...] = get_args(Activations)
KV_TYPES: tuple[str, ...] = get_args(KvType)


def activations_named(name: str) -> Activations:
    """The kind of activations called `name`.

    Raises:
        InputError: no kind is called so.

    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(f"unknown activations `{name}`", hint=f"known: {known}", acts=name)
    return cast(Activations, name)


def kv_type_named(name: str) -> KvType:
    """The type of keys and values called `name`.

    Raises:
        InputError: no type is called so.

    """
    if name not in KV_TYPES:
        raise InputError(
            f"unknown type of keys and values `{name}`", hint="known: " + ", ".join(KV_TYPES)
        )
    return cast(KvType, name)

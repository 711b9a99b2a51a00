"""The block formats by name: elements and bytes of a block, its encoder and its decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from reference import codebook, float4, iq, iq1, iq1_encode, iq_encode, k, k_encode, legacy, ternary
from reference.legacy import Group

Row = Sequence[float]
Data = bytes


class Format(NamedTuple):
    """A block format: `block` elements take `bytes` bytes; a block never crosses rows.

    `encode` takes a block and its importance or None; where `row_mean` is set, the importance is
    that of `legacy.row_weights`. `groups` decodes a block. `needs_importance` formats have no
    encoding without importance.
    """

    block: int
    bytes: int
    encode: Callable[[Row, Row | None], Data]
    groups: Callable[[Data], list[Group]]
    row_mean: bool = False
    needs_importance: bool = False


def _legacy(size: int, bits: int, symmetric: bool) -> Format:
    encode = legacy.encode_symmetric if symmetric else legacy.encode_asymmetric
    groups = legacy.groups_symmetric if symmetric else legacy.groups_asymmetric
    return Format(32, size, lambda x, w: encode(x, bits, w), partial(groups, bits=bits), True)


def _k(size: int, name: str, encode: Callable[[Row, Row | None], Data]) -> Format:
    return Format(256, size, encode, partial(k.groups_k, name=name))


def _iq(size: int, name: str, needs_importance: bool = False) -> Format:
    encode, groups = partial(iq_encode.encode_iq, name=name), partial(iq.groups_iq, name=name)
    return Format(256, size, encode, groups, False, needs_importance)


BLOCKS: dict[str, Format] = {
    "Q4_0": _legacy(18, 4, symmetric=True),
    "Q4_1": _legacy(20, 4, symmetric=False),
    "Q5_0": _legacy(22, 5, symmetric=True),
    "Q5_1": _legacy(24, 5, symmetric=False),
    "Q8_0": Format(32, 34, legacy.encode_q8_0, legacy.groups_q8_0),
    "Q2_K": _k(84, "Q2_K", k_encode.encode_q2_k),
    "Q3_K": _k(110, "Q3_K", k_encode.encode_q3_k),
    "Q4_K": _k(144, "Q4_K", k_encode.encode_q4_k),
    "Q5_K": _k(176, "Q5_K", k_encode.encode_q5_k),
    "Q6_K": _k(210, "Q6_K", k_encode.encode_q6_k),
    "IQ1_S": Format(
        256, 50, iq1_encode.encode_iq1_s, partial(iq1.groups_iq1, name="IQ1_S"), False, True
    ),
    "IQ1_M": Format(256, 56, iq1_encode.encode_iq1_m, partial(iq1.groups_iq1, name="IQ1_M")),
    "IQ2_XXS": _iq(66, "IQ2_XXS", needs_importance=True),
    "IQ2_XS": _iq(74, "IQ2_XS", needs_importance=True),
    "IQ2_S": _iq(82, "IQ2_S"),
    "IQ3_XXS": _iq(98, "IQ3_XXS"),
    "IQ3_S": _iq(110, "IQ3_S"),
    "IQ4_NL": Format(32, 18, codebook.encode_iq4_nl, codebook.groups_iq4_nl),
    "IQ4_XS": Format(256, 136, codebook.encode_iq4_xs, codebook.groups_iq4_xs),
    "MXFP4": Format(32, 17, float4.encode_mxfp4, float4.groups_mxfp4),
    "NVFP4": Format(64, 36, float4.encode_nvfp4, float4.groups_nvfp4),
    "Q1_0": Format(128, 18, ternary.encode_q1_0, ternary.groups_q1_0),
    "Q2_0": Format(64, 18, ternary.encode_q2_0, ternary.groups_q2_0),
    "TQ1_0": Format(256, 54, ternary.encode_tq1_0, ternary.groups_tq1_0),
    "TQ2_0": Format(256, 66, ternary.encode_tq2_0, ternary.groups_tq2_0),
}
"""The block formats; formats.py adds the affine formats, which are made by name, and floats."""

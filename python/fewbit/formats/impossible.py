"""Values in blocks that no encoder writes: what a damaged file holds, as data for each format.

A scale is never NaN or infinite, in most formats never negative; ternary codes stop at 2; some bits
are unused. A block with such a value decodes, but nobody stored what it decodes to. Source:
``reference/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbit.formats.layouts import layout_of
from fewbit.formats.table import Format

Blocks = NDArray[np.uint8]
Marks = NDArray[np.bool_]

SIGNED_SCALES = frozenset(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q3_K", "Q6_K", "IQ4_NL", "IQ4_XS"))
"""Formats whose scale `d` may be negative: it takes the sign of the largest weight, or comes out of
least squares with importance (Q4_1 and Q5_1). Their minimum `m` has either sign."""
_EXPONENTS = {"f16": 0x7C00, "f32": 0x7F800000}
_SIGNS = {"f16": 0x8000, "f32": 0x80000000}
_WORDS = {"f16": "<u2", "f32": "<u4"}
_BYTES_OF_TRITS = np.array([(n * 256 + 242) // 243 for n in range(243)])
"""The byte of each five trits, `n` in base 3; of four trits, those of the `n` that 3 divides."""


@dataclass(frozen=True)
class Check:
    """One kind of impossible value.

    `find` takes blocks, uint8 [n, block bytes], and marks places, bool [n, places]: the first place
    begins at byte `start` of a block, each is `width` bytes long.
    """

    reason: str
    start: int
    width: int
    find: Callable[[Blocks], Marks]


def checks_of(format_: Format) -> tuple[Check, ...]:
    """The checks of a format's blocks."""
    layout, found = layout_of(format_), list(_OTHER.get(format_.name, ()))
    if format_.name == "BF16":
        found.append(Check("the value is not finite", 0, 2, _all_set("<u2", 0, 2, 0x7F80)))
    for place in layout.fields:
        kind = layout.kinds.get(place.name, "")
        if kind not in _WORDS:
            continue
        signed = place.name in ("m", "values") or format_.name in SIGNED_SCALES
        found += _of_float(place.name, kind, place.start, place.stop, signed)
    return tuple(found)


def _of_float(name: str, kind: str, start: int, stop: int, signed: bool) -> list[Check]:
    """The checks of a scale, minimum or value that is stored as f16 or f32."""
    word, what = _WORDS[kind], "the value" if name == "values" else f"`{name}`"
    finite = _all_set(word, start, stop, _EXPONENTS[kind])
    found = [Check(f"{what} is not finite", start, stop - start, finite)]
    if not signed:
        negative = _below_zero(word, start, stop, _SIGNS[kind])
        found.append(Check(f"{what} is negative", start, stop - start, negative))
    return found


def _all_set(word: str, start: int, stop: int, bits: int) -> Callable[[Blocks], Marks]:
    """Marks the numbers that have all of `bits`."""
    return lambda blocks: (_words(blocks, word, start, stop) & bits) == bits


def _below_zero(word: str, start: int, stop: int, sign: int) -> Callable[[Blocks], Marks]:
    """Marks the numbers whose sign is set; -0.0 is zero, and NaN is marked as not finite."""

    def find(blocks: Blocks) -> Marks:
        numbers = _words(blocks, word, start, stop)
        infinity = _EXPONENTS["f16" if sign == _SIGNS["f16"] else "f32"]
        return (numbers > sign) & (numbers < sign + infinity)

    return find


def _words(blocks: Blocks, word: str, start: int, stop: int) -> NDArray[np.unsignedinteger]:
    return np.ascontiguousarray(blocks[:, start:stop]).view(word)


def _iq1_m_scales(blocks: Blocks) -> NDArray[np.unsignedinteger]:
    """The bits of `d` of IQ1_M, [n, 1]: the highest four of each of its last four words."""
    first, *others = np.split(_words(blocks, "<u2", 48, 56) >> 12, 4, axis=1)
    for place, four in enumerate(others, 1):
        first = first | four << 4 * place
    return np.asarray(first)


def _iq1_m_negative(blocks: Blocks) -> Marks:
    d = _iq1_m_scales(blocks)
    return np.asarray((d > 0x8000) & (d < 0xFC00))


def _mxfp4_overflow(blocks: Blocks) -> Marks:
    """An exponent above 252, unless all codes are zero: blocks of tiny weights end there."""
    coded = (blocks[:, 1:17] & 0x77).any(axis=1, keepdims=True)
    return np.asarray((blocks[:, :1] > 252) & coded)


def _not_in(start: int, stop: int, possible: NDArray[np.int64]) -> Callable[[Blocks], Marks]:
    missing = ~np.isin(np.arange(256), possible)
    return lambda blocks: missing[blocks[:, start:stop]]


def _code_three(blocks: Blocks) -> Marks:
    codes = blocks[:, :64]
    return np.asarray((codes & codes >> 1 & 0x55) != 0)


_NO_FIVE_TRITS = "a byte of `codes` stands for no five trits"
_NO_FOUR_TRITS = "a byte of `codes` stands for no four trits"
_OTHER: dict[str, tuple[Check, ...]] = {
    "MXFP4": (Check("`d` is 2^125 or more, values overflow", 0, 1, _mxfp4_overflow),),
    "NVFP4": (
        Check("`d` is NaN", 0, 1, lambda blocks: (blocks[:, :4] & 0x7F) == 0x7F),
        Check("`d` has its unused highest bit set", 0, 1, lambda blocks: blocks[:, :4] > 0x7F),
    ),
    "IQ1_M": (
        Check("`d` is not finite", 48, 8, lambda b: (_iq1_m_scales(b) & 0x7C00) == 0x7C00),
        Check("`d` is negative", 48, 8, _iq1_m_negative),
    ),
    "TQ1_0": (
        Check(_NO_FIVE_TRITS, 0, 1, _not_in(0, 48, _BYTES_OF_TRITS)),
        Check(_NO_FOUR_TRITS, 48, 1, _not_in(48, 52, _BYTES_OF_TRITS[::3])),
    ),
    "TQ2_0": (Check("`codes` are 0 to 2, found 3", 0, 1, _code_three),),
}
"""Checks beside those of scales that are floats of 16 or 32 bits."""

"""Names of number formats: float32, bf16, e4m3fn, any eXmY, u8."""

from __future__ import annotations

import re
from typing import Any

from fewbit.errors import FormatError, did_you_mean
from fewbit.floats.float_format import FloatFormat, Top
from fewbit.floats.number_format import NumberFormat
from fewbit.floats.unsigned_format import UnsignedFormat


def _named(*rows: tuple[Any, ...]) -> dict[str, FloatFormat]:
    return {row[0]: FloatFormat(*row) for row in rows}


FLOAT_FORMATS = _named(
    ("float64", 11, 52), ("float32", 8, 23), ("float16", 5, 10), ("bfloat16", 8, 7),
    ("float8", 4, 3), ("e4m3fn", 4, 3, "fn"), ("e5m2", 5, 2), ("e3m2", 3, 2, "finite"),
    ("e2m3", 2, 3, "finite"), ("float4", 2, 1), ("e2m1", 2, 1, "finite"),
)  # fmt: skip
"""Float formats with a name, widest first. float8 and float4 have infinities, as in the article
"Quantization from the ground up"; e4m3fn, e5m2, e3m2, e2m3 and e2m1 are those of OCP MX."""
ALIASES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "f8": "float8",
    "f4": "float4", "fp64": "float64", "fp32": "float32", "fp16": "float16", "fp8": "e4m3fn",
    "fp4": "e2m1", "half": "float16", "e3m2fn": "e3m2", "e2m3fn": "e2m3", "e2m1fn": "e2m1",
    "float8_e4m3fn": "e4m3fn", "float8_e5m2": "e5m2", "float4_e2m1fn": "e2m1",
}  # fmt: skip
"""Other names of these formats."""


def number_format(name: str) -> NumberFormat:
    """Find a format by its name, in any letter case.

    Names are those of `FLOAT_FORMATS` and `ALIASES`; ``eXmY`` for X exponent and Y significand
    bits with infinities and NaN, ``eXmYfn`` with one NaN and no infinity, ``eXmYfinite`` with
    neither; ``u8`` or ``uint8`` for unsigned integers. e3m2, e2m3 and e2m1 are the formats of OCP
    MX, which have neither infinities nor NaN.

    >>> number_format("bf16").bits, number_format("e6m9").largest, number_format("u4").largest
    (16, 4290772992.0, 15.0)

    Raises:
        FormatError: the format is unknown, or its fields have sizes that are not supported.

    """
    low = str(name).strip().lower()
    if found := FLOAT_FORMATS.get(ALIASES.get(low, low)):
        return found
    if match := re.fullmatch(r"e(\d{1,3})m(\d{1,3})(fn|finite)?", low):
        tops: dict[str | None, Top] = {None: "ieee", "fn": "fn", "finite": "finite"}
        return FloatFormat(low, int(match[1]), int(match[2]), tops[match[3]])
    if match := re.fullmatch(r"u(?:int)?(\d{1,3})", low):
        return UnsignedFormat(f"u{match[1]}", int(match[1]))
    raise FormatError(
        f"unknown number format `{name}`",
        hint=f"{did_you_mean(low, [*FLOAT_FORMATS, *ALIASES])}known: {', '.join(FLOAT_FORMATS)}, "
        "eXmY for X exponent and Y significand bits, uN for unsigned integers",
        format=name,
    )

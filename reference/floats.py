"""Floating-point formats from 4 to 32 bits: a value to its code and back.

A code has a sign bit, an exponent field and a significand field:

    value = (-1)^sign * 2^(exponent - bias) * (1 + significand / 2^significand_bits)
    exponent field 0:   2^(1 - bias) * significand / 2^significand_bits       (subnormal, zero)

`FLOATS` lists the field sizes of each format; `encode` and `decode` work for all of them. Python's
own float (1 + 11 + 52 bits) holds every value of these formats exactly. Sources: IEEE 754, and the
OCP Microscaling (MX) specification for 4, 6 and 8 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Rounding = Literal["even", "away", "zero"]


@dataclass(frozen=True)
class FloatFormat:
    """The field sizes of a format, and the meaning of its highest codes.

    `top` is "ieee" if the highest exponent means infinity and NaN, "fn" if only the code of all
    ones is NaN and there is no infinity, "finite" if every code is a number.
    """

    name: str
    exponent_bits: int
    significand_bits: int
    bias: int
    top: Literal["ieee", "fn", "finite"] = "ieee"

    @property
    def bits(self) -> int:
        """Bits of a code, including the sign."""
        return 1 + self.exponent_bits + self.significand_bits

    @property
    def largest_code(self) -> int:
        """The code of the largest finite value."""
        all_ones = (1 << self.exponent_bits + self.significand_bits) - 1
        return all_ones - {"ieee": 1 << self.significand_bits, "fn": 1, "finite": 0}[self.top]

    @property
    def largest(self) -> float:
        """The largest finite value.

        >>> [(f.name, f.largest) for f in FLOATS.values()]     # doctest: +NORMALIZE_WHITESPACE
        [('float32', 3.4028234663852886e+38), ('float16', 65504.0),
         ('bfloat16', 3.3895313892515355e+38), ('float8', 240.0), ('e4m3fn', 448.0),
         ('e5m2', 57344.0), ('e3m2fn', 28.0), ('e2m3fn', 7.5), ('float4', 3.0), ('e2m1fn', 6.0)]
        """
        return decode(self.largest_code, self)


_ROWS = (
    FloatFormat("float32", 8, 23, 127),
    FloatFormat("float16", 5, 10, 15),
    FloatFormat("bfloat16", 8, 7, 127),
    FloatFormat("float8", 4, 3, 7),
    FloatFormat("e4m3fn", 4, 3, 7, "fn"),
    FloatFormat("e5m2", 5, 2, 15),
    FloatFormat("e3m2fn", 3, 2, 3, "finite"),
    FloatFormat("e2m3fn", 2, 3, 1, "finite"),
    FloatFormat("float4", 2, 1, 1),
    FloatFormat("e2m1fn", 2, 1, 1, "finite"),
)
FLOATS = {f.name: f for f in _ROWS}
FLOAT32, FLOAT16, BFLOAT16 = _ROWS[:3]


def decode(code: int, f: FloatFormat) -> float:
    """Return the exact value of a code.

    >>> [decode(c, FLOATS["float4"]) for c in range(8)]
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, inf, nan]
    >>> decode(0b1_10000000_10010010000111111011011, FLOAT32)
    -3.1415927410125732
    """
    magnitude = code & (1 << f.bits - 1) - 1
    exponent, significand = magnitude >> f.significand_bits, magnitude & _mask(f)
    if magnitude > f.largest_code:
        value = math.inf if f.top == "ieee" and significand == 0 else math.nan
    elif exponent == 0:
        value = math.ldexp(significand, 1 - f.bias - f.significand_bits)
    else:
        value = math.ldexp(significand + _mask(f) + 1, exponent - f.bias - f.significand_bits)
    return -value if code >> f.bits - 1 else value


def encode(x: float, f: FloatFormat, rounding: Rounding = "even") -> int:
    """Return the code of the value nearest to x.

    `rounding` decides ties: "even" takes the even code, "away" the one away from zero; "zero"
    truncates instead of rounding. A value that rounds past the largest finite one becomes infinity;
    it becomes the largest finite one if the format has no infinity or `rounding` is "zero". Raises
    ValueError for a NaN that the format cannot hold.

    >>> hex(encode(1 / 3, FLOAT16)), hex(encode(-0.0, FLOAT16)), hex(encode(65520.0, FLOAT16))
    ('0x3555', '0x8000', '0x7c00')
    >>> [encode(2.5, FLOATS["e2m1fn"], r) for r in ("even", "away", "zero")]   # codes of 2, 3, 2
    [4, 5, 4]
    >>> encode(math.nan, FLOATS["e2m1fn"])
    Traceback (most recent call last):
    ValueError: e2m1fn has no NaN
    """
    sign = int(math.copysign(1.0, x) < 0) << f.bits - 1
    if math.isnan(x):
        if f.top == "finite":
            raise ValueError(f"{f.name} has no NaN")
        quiet = 1 << f.significand_bits - 1 if f.top == "ieee" else 0
        return sign | f.largest_code + 1 + quiet
    if x == 0:
        return sign
    if math.isinf(x):
        return sign | f.largest_code + (f.top == "ieee")
    exponent = max(math.frexp(x)[1] - 1, 1 - f.bias)
    steps = _to_integer(math.ldexp(abs(x), f.significand_bits - exponent), rounding)
    # A significand that rounds up past its field carries into the exponent field.
    code = (exponent + f.bias - 1 << f.significand_bits) + steps
    if code > f.largest_code:
        code = f.largest_code + (f.top == "ieee" and rounding != "zero")
    return sign | code


def round_to(x: float, f: FloatFormat, rounding: Rounding = "even") -> float:
    """Return x rounded to a value of format `f`.

    Rounding twice can differ from rounding once:

    >>> x = 1 + 2**-8 + 2**-20                  # just above a tie of bfloat16
    >>> round_to(x, BFLOAT16), round_to(round_to(x, FLOAT16), BFLOAT16)
    (1.0078125, 1.0)
    """
    return decode(encode(x, f, rounding), f)


def convert(code: int, source: FloatFormat, target: FloatFormat) -> int:
    """Convert a code of one format to another format, rounding to nearest even.

    >>> hex(convert(0x3C00, FLOAT16, BFLOAT16))
    '0x3f80'
    """
    return encode(decode(code, source), target)


def decode_e8m0(code: int) -> float:
    """Return 2^(code - 127), the scale type E8M0 of the MX formats; code 255 is NaN.

    >>> decode_e8m0(127), decode_e8m0(0) == 2.0**-127, decode_e8m0(255)
    (1.0, True, nan)
    """
    return math.nan if code == 255 else math.ldexp(1.0, code - 127)


def encode_e8m0(x: float) -> int:
    """Return the E8M0 code of the largest power of two <= x, x > 0 (the "floor" rule of OCP MX).

    >>> encode_e8m0(1.0), encode_e8m0(7.9), encode_e8m0(1e-45)
    (127, 129, 0)
    """
    return min(max(math.frexp(x)[1] - 1 + 127, 0), 254)


def _mask(f: FloatFormat) -> int:
    return (1 << f.significand_bits) - 1


def _to_integer(x: float, rounding: Rounding) -> int:
    """Round x >= 0 to an integer; x is below 2^53, so adding a half would be exact."""
    match rounding:
        case "even":
            return round(x)
        case "away":
            floor = math.floor(x)
            return floor + (x - floor >= 0.5)
        case "zero":
            return math.floor(x)

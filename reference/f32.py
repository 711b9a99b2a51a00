"""IEEE binary32 (f32) arithmetic, built on Python's binary64 floats.

`f32(x + y)` of two f32 values is their f32 sum: one rounding per operator. Python first rounds to
53 bits; rounding that again to 24 bits gives the correct result for + - * / and sqrt, because 53 >=
2 * 24 + 2 (Figueroa, "When is double rounding innocuous?", 1995). A fused multiply-add can go
wrong, so `fma` checks for that.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import repeat
from operator import add, mul
from struct import Struct

_one = Struct("f")
_bits = Struct("I")
_UP, _DOWN = 1 + 2.0**-52, 1 - 2.0**-52


def f32(x: float) -> float:
    """Return x rounded to the nearest f32, ties to even; infinity if x is past the largest f32.

    >>> f32(0.1), f32(1e39), f32(1e-46)
    (0.10000000149011612, inf, 0.0)
    """
    return float(_one.unpack(_one.pack(x))[0])


def f32s(values: Iterable[float]) -> list[float]:
    """Round each value with `f32`.

    >>> f32s([0.1, 2.0])
    [0.10000000149011612, 2.0]
    """
    return array("f", values).tolist()


def total(values: Iterable[float]) -> float:
    """Return the f32 sum in element order, rounding after each addition.

    >>> total([1.0, 2.0**-24, 2.0**-24]), total([2.0**-24, 2.0**-24, 1.0])
    (1.0, 1.0000001192092896)
    """
    pack, unpack = _one.pack, _one.unpack
    s = 0.0
    for v in values:
        (s,) = unpack(pack(s + v))
    return s


def products(*factors: Sequence[float]) -> list[float]:
    """Multiply several lists element by element in f32, from left to right.

    >>> products([1.0, 2.0], [3.0, 4.0], [2.0, 2.0])
    [6.0, 16.0]
    """
    result = list(factors[0])
    for factor in factors[1:]:
        result = f32s(map(mul, result, factor))
    return result


def div(x: float, y: float) -> float:
    """Return the f32 quotient; a zero divisor gives infinity or NaN as in IEEE 754.

    >>> div(1.0, 3.0), div(-1.0, 0.0), div(0.0, 0.0)
    (0.3333333432674408, -inf, nan)
    """
    if y == 0:
        return (
            math.nan
            if x == 0 or math.isnan(x)
            else math.copysign(math.inf, x) / (math.copysign(1.0, y))
        )
    return f32(x / y)


def inverse(x: float) -> float:
    """Return 1 / x in f32, and 0 for x = 0, as llama.cpp's encoders do with a zero scale.

    >>> inverse(8.0), inverse(0.0)
    (0.125, 0.0)
    """
    return div(1.0, x) if x else 0.0


def nearest(x: float) -> int:
    """Return the integer nearest to x, ties to even: `nearest_int` of llama.cpp.

    llama.cpp adds 1.5 * 2^23 = 12582912 in f32 and reads the low bits of the significand. That is
    exact for |x| <= 4194303; beyond, this function returns the same low bits. Encoders get there
    only with scales below f32's smallest normal number.

    >>> nearest(2.5), nearest(-3.5), nearest(math.inf), nearest(math.nan)
    (2, -4, -4194304, 0)
    """
    if -4194303 <= x <= 4194303:
        return round(x)
    (bits,) = _bits.unpack(_one.pack(x + 12582912.0))
    return int((bits & 0x7FFFFF) - 0x400000)


def half_away(x: float) -> int:
    """Return the nearest integer, ties away from zero: C's `roundf`; 0 for infinity and NaN.

    >>> half_away(2.5), half_away(-2.5), half_away(0.49999997)
    (3, -3, 0)
    """
    return truncate(x + math.copysign(0.5, x)) if math.isfinite(x) else 0


def truncate(x: float) -> int:
    """Return the integer part of x; 0 for infinity and NaN.

    C leaves those two undefined. An x86 conversion yields -2^31, and encoders use its low byte,
    which is 0.

    >>> truncate(-2.7), truncate(math.inf)
    (-2, 0)
    """
    return int(x) if math.isfinite(x) else 0


def clamp(x: int, low: int, high: int) -> int:
    """Return x limited to [low, high].

    >>> clamp(9, -8, 7)
    7
    """
    return low if x < low else min(x, high)


def fma(x: float, y: float, z: float) -> float:
    """Return x * y + z of f32 values, rounded once (fused multiply-add).

    >>> fma(1 + 2.0**-23, 1 - 2.0**-23, -1.0) == -(2.0**-46)
    True
    """
    return fmas([x], [y], [z])[0]


def fmas(xs: Sequence[float], ys: Sequence[float], zs: Sequence[float]) -> list[float]:
    """Return x * y + z of f32 values, element by element, each rounded once.

    The product is exact in binary64, and the binary64 sum is off by at most half a unit in its last
    place. If the sum one unit higher and one unit lower round to the same f32, the exact sum rounds
    to it too. Otherwise the sum is computed in exact fractions.

    >>> fmas([1.0, 2.0**-24], [2.0**-24, 1 + 2.0**-23], [1.0, 1.0])   # a tie; just above it
    [1.0, 1.0000001192092896]
    """
    sums = list(map(add, map(mul, xs, ys), zs))
    above = array("f", map(mul, sums, repeat(_UP)))
    below = array("f", map(mul, sums, repeat(_DOWN)))
    if above == below:
        return above.tolist()
    return [
        a if a == b else _exact_fma(x, y, z)
        for a, b, x, y, z in zip(above, below, xs, ys, zs, strict=True)
    ]


def _exact_fma(x: float, y: float, z: float) -> float:
    """Return x * y + z from exact fractions, rounded once to a multiple of f32's spacing."""
    exact = Fraction(x) * Fraction(y) + Fraction(z) if math.isfinite(x * y + z) else 0
    if not exact:
        return f32(x * y + z)
    exponent = max(math.frexp(float(exact))[1] - 1, -126)
    step = Fraction(2) ** (exponent - 23)
    return f32(float(round(exact / step) * step))

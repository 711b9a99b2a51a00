"""IEEE binary32 arithmetic on Python's binary64 floats.

One rounding per operator: `f32(x + y)` of two f32 values is the f32 sum. The first rounding, to 53
bits, does no harm for + - * / and sqrt, as 53 >= 2 * 24 + 2 (Figueroa 1995). It can for a fused
multiply-add, so `fma` checks.
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
    """x rounded to the nearest f32, ties to even; past the largest it is infinity.

    >>> f32(0.1), f32(1e39), f32(1e-46)
    (0.10000000149011612, inf, 0.0)
    """
    return float(_one.unpack(_one.pack(x))[0])


def f32s(values: Iterable[float]) -> list[float]:
    """`f32` of each value.

    >>> f32s([0.1, 2.0])
    [0.10000000149011612, 2.0]
    """
    return array("f", values).tolist()


def total(values: Iterable[float]) -> float:
    """The f32 sum in element order.

    >>> total([1.0, 2.0**-24, 2.0**-24]), total([2.0**-24, 2.0**-24, 1.0])
    (1.0, 1.0000001192092896)
    """
    pack, unpack = _one.pack, _one.unpack
    s = 0.0
    for v in values:
        (s,) = unpack(pack(s + v))
    return s


def products(*factors: Sequence[float]) -> list[float]:
    """Element by element products of several lists, from the left.

    >>> products([1.0, 2.0], [3.0, 4.0], [2.0, 2.0])
    [6.0, 16.0]
    """
    result = list(factors[0])
    for factor in factors[1:]:
        result = f32s(map(mul, result, factor))
    return result


def div(x: float, y: float) -> float:
    """The f32 quotient, with IEEE's infinities and NaN for a zero divisor.

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
    """1 / x in f32, and 0 for 0: how encoders treat the scale of nothing.

    >>> inverse(8.0), inverse(0.0)
    (0.125, 0.0)
    """
    return div(1.0, x) if x else 0.0


def nearest(x: float) -> int:
    """The integer nearest to x, ties to even; past 4194303 the low bits of adding 12582912.

    llama.cpp rounds by adding 1.5 * 2^23 in f32 and reading the significand. Only scales below
    f32's smallest normal number come that far.

    >>> nearest(2.5), nearest(-3.5), nearest(math.inf), nearest(math.nan)
    (2, -4, -4194304, 0)
    """
    if -4194303 <= x <= 4194303:
        return round(x)
    (bits,) = _bits.unpack(_one.pack(x + 12582912.0))
    return int((bits & 0x7FFFFF) - 0x400000)


def half_away(x: float) -> int:
    """C's roundf: the nearest integer, ties away from zero.

    >>> half_away(2.5), half_away(-2.5), half_away(0.49999997)
    (3, -3, 0)
    """
    return truncate(x + math.copysign(0.5, x)) if math.isfinite(x) else 0


def truncate(x: float) -> int:
    """The integer part of x; 0 for infinity and NaN.

    C leaves those undefined. An x86 conversion yields -2^31, of which the low byte that a code is
    made of is 0.

    >>> truncate(-2.7), truncate(math.inf)
    (-2, 0)
    """
    return int(x) if math.isfinite(x) else 0


def clamp(x: int, low: int, high: int) -> int:
    """x, or the end of [low, high] that it lies beyond.

    >>> clamp(9, -8, 7)
    7
    """
    return low if x < low else min(x, high)


def fma(x: float, y: float, z: float) -> float:
    """x * y + z of f32 values, rounded once.

    >>> fma(1 + 2.0**-23, 1 - 2.0**-23, -1.0) == -(2.0**-46)
    True
    """
    return fmas([x], [y], [z])[0]


def fmas(xs: Sequence[float], ys: Sequence[float], zs: Sequence[float]) -> list[float]:
    """x * y + z of f32 values, element by element, each rounded once.

    The product is exact in binary64, the sum s within half a unit in its last place. If the f32
    nearest to s is the same a unit above and below, then s is nowhere near a tie and the second
    rounding was harmless. Otherwise the sum is done in fractions.

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
    """The sum in fractions, as a whole number of f32's steps at its size."""
    exact = Fraction(x) * Fraction(y) + Fraction(z) if math.isfinite(x * y + z) else 0
    if not exact:
        return f32(x * y + z)
    exponent = max(math.frexp(float(exact))[1] - 1, -126)
    step = Fraction(2) ** (exponent - 23)
    return f32(float(round(exact / step) * step))

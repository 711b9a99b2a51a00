"""The values of a float format on the number line: digits, neighbours, values in an interval."""

from __future__ import annotations

import math

from reference.floats import FloatFormat, decode, encode


def significant_digits(f: FloatFormat) -> float:
    """Decimal digits that the significand resolves: (significand_bits + 1) * log10(2).

    >>> from reference.floats import FLOATS
    >>> [f"{significant_digits(FLOATS[n]):.1f}" for n in ("float32", "float16", "bfloat16")]
    ['7.2', '3.3', '2.4']
    """
    return (f.significand_bits + 1) * math.log10(2)


def next_up(x: float, f: FloatFormat) -> float:
    """Return the smallest value of the format above x.

    Above the largest finite value that is infinity, or NaN in a format without infinity.

    >>> from reference.floats import FLOAT16, FLOATS
    >>> next_up(1.0, FLOAT16), next_up(0.0, FLOAT16), next_up(-0.5, FLOATS["float4"])
    (1.0009765625, 5.960464477539063e-08, -0.0)
    >>> next_up(6.0, FLOATS["e2m1fn"])
    nan
    """
    code = encode(x, f)
    if decode(code, f) > x:
        return decode(code, f)
    if x == 0:
        return decode(1, f)
    if f.top == "finite" and code == f.largest_code:
        return math.nan
    return decode(code - 1 if x < 0 else code + 1, f)


def next_down(x: float, f: FloatFormat) -> float:
    """Return the largest value of the format below x.

    >>> from reference.floats import FLOAT16
    >>> next_down(1.0, FLOAT16), next_down(65504.0, FLOAT16)
    (0.99951171875, 65472.0)
    """
    return -next_up(-x, f)


def count_between(low: float, high: float, f: FloatFormat) -> int:
    """Count the values of the format in [low, high); the two zeros count as one value.

    Every interval from a power of two to the next holds the same number of values, so about half of
    all floats lie between -1 and 1:

    >>> from reference.floats import BFLOAT16, FLOAT16, FLOATS
    >>> [count_between(2.0**e, 2.0**(e + 1), FLOAT16) for e in (-3, 0, 10)]
    [1024, 1024, 1024]
    >>> count_between(-1, 1, BFLOAT16), count_between(0.0, 3.5, FLOATS["float4"])
    (32512, 6)
    """
    return _rank(high, f) - _rank(low, f)


def _rank(x: float, f: FloatFormat) -> int:
    """Count the finite values below x, starting from zero; negative values count downwards."""
    code = encode(x, f)
    magnitude = code & (1 << f.bits - 1) - 1
    rank = -magnitude if code >> f.bits - 1 else magnitude
    return rank + (decode(code, f) < x)

"""The oracle's f32 arithmetic against exact fractions and numpy's float32."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from reference.f32 import div, f32, fma, half_away, nearest, total
from reference.floats import FLOAT32, decode
from tests.compare import same_bits

CODES = st.integers(0, 2**32 - 1)
finite = CODES.map(lambda code: decode(code, FLOAT32)).filter(math.isfinite)
near_one = st.integers(-40, 40).map(lambda step: f32(1 + step * 2.0**-23))
powers = st.integers(-126, 60).map(lambda e: 2.0**e)
numbers = finite | near_one | powers


def neighbours(v: float) -> tuple[float, float]:
    return tuple(float(np.nextafter(np.float32(v), np.float32(s * math.inf))) for s in (-1, 1))


@given(numbers, numbers, numbers, st.booleans())
@example(1.0, 2.0**-24, 1.0, False)
@example(2.0**-24, 1 + 2.0**-23, 1.0, False)
@example(2.0**-75, 1 + 2.0**-23, 2.0**-149, False)
def test_fma_is_the_nearest_float(x, y, z, cancel):
    """No f32 is nearer to the exact x * y + z, and ties go to the even one."""
    if cancel:
        z = f32(-x * y)
    exact = Fraction(x) * Fraction(y) + (Fraction(z) if math.isfinite(z) else 0)
    if not math.isfinite(z) or abs(exact) > Fraction(decode(0x7F7FFFFF, FLOAT32)):
        return
    got = fma(x, y, z)
    error = abs(Fraction(got) - exact)
    for other in neighbours(got):
        if math.isfinite(other):
            distance = abs(Fraction(other) - exact)
            even = np.float32(got).view(np.uint32) % 2 == 0
            assert error < distance or (error == distance and even)


@given(finite, finite)
def test_operators_round_once(x, y):
    a, b = np.float32(x), np.float32(y)
    with np.errstate(all="ignore"):
        pairs = [
            (f32(x + y), a + b),
            (f32(x * y), a * b),
            (div(x, y), a / b),
            (f32(abs(x) ** 0.5), np.sqrt(abs(a))),
        ]
    for got, expected in pairs:
        if not np.isnan(expected):  # the sign of a NaN depends on the machine
            same_bits(np.float32(got), expected)


@given(st.lists(finite.map(lambda v: f32(v * 2.0**-20)), max_size=40))
def test_total_is_in_order(values):
    expected = np.float32(0)
    for v in values:
        expected = expected + np.float32(v)
    same_bits(np.float32(total(values)), expected)


@given(st.floats(-4194303, 4194303, width=32))
def test_integers(x):
    assert nearest(x) == int(np.rint(np.float32(x)))
    assert half_away(x) == int(math.copysign(math.floor(Fraction(abs(x)) + Fraction(1, 2)), x))

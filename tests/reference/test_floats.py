"""Every code and every rounding tie of the small float formats against numpy and ml_dtypes."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest

from reference.floats import FLOATS, decode, encode, encode_e8m0
from reference.spacing import count_between, next_down, next_up
from tests.compare import same_bits

PEERS = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8": ml_dtypes.float8_e4m3,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2fn": ml_dtypes.float6_e3m2fn,
    "e2m3fn": ml_dtypes.float6_e2m3fn,
    "e2m1fn": ml_dtypes.float4_e2m1fn,
}


def codes(name: str) -> np.ndarray:
    bits = FLOATS[name].bits
    return np.arange(2**bits, dtype=np.uint16 if bits > 8 else np.uint8)


@pytest.mark.parametrize("name", PEERS)
def test_decode_every_code(name):
    with np.errstate(invalid="ignore"):  # signalling NaNs
        expected = codes(name).view(PEERS[name]).astype(np.float64)
    got = np.float64([decode(int(code), FLOATS[name]) for code in codes(name)])
    assert (np.isnan(got) == np.isnan(expected)).all()
    keep = ~np.isnan(expected)
    same_bits(got[keep], expected[keep])


@pytest.mark.parametrize("name", PEERS)
def test_encode_every_value_and_every_tie(name):
    f = FLOATS[name]
    values = sorted({decode(int(c), f) for c in codes(name) if math.isfinite(decode(int(c), f))})
    middles = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    beside = [math.nextafter(m, s * math.inf) for m in middles for s in (-1, 1)]
    for x in [*values, *middles, *(float(np.float32(b)) for b in beside)]:
        expected = np.float32(x).astype(PEERS[name])
        got = decode(encode(float(np.float32(x)), f), f)
        same_bits(np.float64(got), np.float64(expected), f"{name} of {x!r}")


@pytest.mark.parametrize("name", FLOATS)
def test_codes_survive(name):
    f = FLOATS[name]
    step = 1 if f.bits <= 16 else 65521
    for code in range(0, 2**f.bits, step):
        value = decode(code, f)
        assert math.isnan(value) or encode(value, f) == code


@pytest.mark.parametrize("rounding", ["even", "away", "zero"])
def test_roundings_agree_off_ties(rounding):
    """ "zero" never increases x; "away" and "even" differ only at ties."""
    f = FLOATS["float8"]
    for step in range(1, 4000):
        x = step / 256
        got, even = decode(encode(x, f, rounding), f), decode(encode(x, f), f)
        below, above = next_down(x, f), next_up(x, f)
        if rounding == "zero":
            assert got <= x < next_up(got, f)
        elif got != even:
            assert x - below == above - x
            assert got == above


@pytest.mark.parametrize("name", ["float16", "float8", "float4", "e2m1fn"])
def test_neighbours_and_counts(name):
    f = FLOATS[name]
    every = {decode(c, f) + 0.0 for c in range(2**f.bits)}
    values = sorted(v for v in every if math.isfinite(v))
    for low, high in itertools.pairwise(values):
        assert next_up(low, f) == high
        assert next_down(high, f) == low
        assert count_between(low, high, f) == 1
    assert count_between(values[0], values[-1], f) == len(values) - 1


def test_e8m0():
    for code in range(255):
        expected = np.uint8(code).view(ml_dtypes.float8_e8m0fnu)
        assert encode_e8m0(float(expected)) == code

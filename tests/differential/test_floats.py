"""`fewbit.floats` against the oracle: codes, values, neighbours and counts are the same."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fewbit.errors import FormatError, InputError
from fewbit.floats import FLOAT_FORMATS, FloatFormat, UnsignedFormat, number_format
from reference import floats, spacing
from tests.compare import same_bits

TOPS = ("ieee", "fn", "finite")
OF_THE_ORACLE = {
    name: floats.FLOATS[{"e3m2": "e3m2fn", "e2m3": "e2m3fn", "e2m1": "e2m1fn"}.get(name, name)]
    for name in FLOAT_FORMATS
    if name != "float64"
}
PAIRS = [(FLOAT_FORMATS[name], theirs) for name, theirs in OF_THE_ORACLE.items()] + [
    (
        FloatFormat(f"e{e}m{m}", e, m, top),
        floats.FloatFormat(f"e{e}m{m}", e, m, (1 << e - 1) - 1, top),
    )
    for e, m, top in [(2, 5, "ieee"), (6, 9, "fn"), (3, 4, "finite"), (9, 12, "ieee")]
]
both = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda f: f.name + f.top)


def numbers(theirs: floats.FloatFormat) -> list[float]:
    """Values of the format, ties between them, what lies beside both, and anything else."""
    random = np.random.default_rng(7)
    codes = random.integers(0, 1 << theirs.bits, 150).tolist()
    codes += [0, 1, 2, theirs.largest_code - 1, theirs.largest_code, 1 << theirs.significand_bits]
    found = [v for v in (floats.decode(code, theirs) for code in codes) if math.isfinite(v)]
    found += [(a + b) / 2 for a, b in itertools.pairwise(sorted(found))]
    step = floats.decode(1, theirs)
    found += [step / 2, step * 1.5, step * 2.5, theirs.largest + step, theirs.largest * 1.04]
    found += [math.nextafter(v, way) for v in found for way in (-math.inf, math.inf)]
    found += (random.standard_normal(100) * np.exp(random.uniform(-20, 20, 100))).tolist()
    return [0.0, -0.0, math.inf, -math.inf, 1e300, -1e-300, 5e-324, *found, *(-v for v in found)]


@both
def test_codes_and_values(ours: FloatFormat, theirs: floats.FloatFormat) -> None:
    x = numbers(theirs)
    codes = [floats.encode(v, theirs) for v in x]
    assert ours.encode(x).tolist() == codes
    same_bits(ours.decode(codes), [floats.decode(code, theirs) for code in codes])
    assert (ours.bits, ours.bias, ours.largest) == (theirs.bits, theirs.bias, theirs.largest)
    assert ours.digits == spacing.significant_digits(theirs)


@both
def test_every_code_up_to_16_bits(ours: FloatFormat, theirs: floats.FloatFormat) -> None:
    if ours.bits > 16:
        codes = np.random.default_rng(3).integers(0, 1 << ours.bits, 4096).tolist()
    else:
        codes = list(range(0, 1 << ours.bits, 1 if ours.bits < 16 else 17))
    found = [floats.decode(code, theirs) for code in codes]
    same_bits(ours.decode(codes), found)
    if ours.bits <= 12:
        listed = sorted({v + 0.0 for v in found if math.isfinite(v)})
        assert ours.values().tolist() == listed


@both
def test_neighbours(ours: FloatFormat, theirs: floats.FloatFormat) -> None:
    x = [v for v in numbers(theirs) if math.isfinite(v)]
    same_bits(ours.next_up(x), [spacing.next_up(v, theirs) for v in x])
    same_bits(ours.next_down(x), [spacing.next_down(v, theirs) for v in x])


@both
def test_counts(ours: FloatFormat, theirs: floats.FloatFormat) -> None:
    edges = sorted(v for v in numbers(theirs) if abs(v) <= theirs.largest)
    counts = ours.histogram(edges)
    assert counts == tuple(
        spacing.count_between(a, b, theirs) for a, b in itertools.pairwise(edges)
    )
    assert ours.count_between(edges[0], edges[-1]) == sum(counts)


def test_all_finite_values_are_counted() -> None:
    for name, f in FLOAT_FORMATS.items():
        assert f.count_between(-math.inf, math.inf) == 2 * f.largest_code + 1, name
    assert number_format("u6").count_between(-math.inf, math.inf) == 64


def test_the_numbers_of_the_article() -> None:
    assert number_format("float32").count_between(-0.5, 0.5) == 2_113_929_216
    assert number_format("float8").largest == 240
    assert number_format("float4").largest == 3
    assert number_format("float4").values().tolist()[5:] == [0, 0.5, 1, 1.5, 2, 3]


def test_numpy_agrees() -> None:
    """float16, float32 and float64 are NumPy's types, to the bit."""
    x = np.float64(numbers(floats.FLOAT16) + numbers(floats.FLOAT32))
    with np.errstate(over="ignore"):
        assert np.array_equal(number_format("f16").encode(x), x.astype(np.float16).view(np.uint16))
        assert np.array_equal(number_format("f32").encode(x), x.astype(np.float32).view(np.uint32))
    assert np.array_equal(number_format("f64").encode(x), x.view(np.uint64))
    same_bits(number_format("f64").decode(x.view(np.uint64)), x)
    finite = x[np.isfinite(x) & (x != 0)]
    assert np.array_equal(number_format("f64").next_up(finite), np.nextafter(finite, np.inf))


def test_nan() -> None:
    assert np.isnan(number_format("float8").round(math.nan))
    assert number_format("e4m3fn").encode(math.nan) == 0x7F
    with pytest.raises(FormatError, match="e2m1 has no NaN"):
        number_format("fp4").encode([1.0, math.nan])
    with pytest.raises(FormatError, match="u8 has no NaN"):
        number_format("uint8").encode(math.nan)


def test_unsigned_integers() -> None:
    u = number_format("u4")
    assert isinstance(u, UnsignedFormat)
    assert u.encode([-1, 0.5, 1.5, 14.6, 1e9]).tolist() == [0, 0, 2, 15, 15]
    assert u.next_up([0, 2.5, 14.5]).tolist() == [1, 3, 15]
    assert np.isnan(u.next_up(15))
    assert u.next_down([1, 2.5, 99]).tolist() == [0, 2, 15]
    assert np.isnan(u.next_down(0))
    assert u.histogram([0, 1, 3.5, 20]) == (1, 3, 12)
    assert u.values().tolist() == list(range(16))


@pytest.mark.parametrize("name", ["float7", "e1m3", "e12m3", "e4m0", "e4m53", "u0", "u99", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(FormatError):
        number_format(name)


def test_wrong_use() -> None:
    with pytest.raises(FormatError, match="too many values"):
        number_format("f32").values()
    with pytest.raises(InputError, match="not numbers"):
        number_format("f32").encode(["a"])
    with pytest.raises(InputError, match="edges"):
        number_format("f32").histogram([1, 0])
    with pytest.raises(FormatError, match="unknown `top`"):
        FloatFormat("x", 4, 3, "none")  # type: ignore[arg-type]

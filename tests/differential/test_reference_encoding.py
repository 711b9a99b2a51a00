"""Rust's encoders and decoders against the oracle, bit for bit, on rows that are hard to encode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbit import _core
from fewbit.errors import FormatError
from reference.floats import FLOAT32, decode
from reference.formats import FLOAT_ROWS, decode_row, encode_row, row_bytes
from tests.compare import same_bits

LEGACY = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
AFFINE = [f"{kind}{bits}-g{group}" for kind in ("sym", "asym") for bits in range(1, 9)
          for group in (7, 32)]  # fmt: skip
K = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ1_0", "TQ2_0"]
COLUMNS = 64


def columns(name: str) -> int:
    return 256 if name in K else COLUMNS


def hard_rows(size: int = COLUMNS) -> st.SearchStrategy[np.ndarray]:
    """Rows of any floats, of multiples of 1/2, of few values, of outliers, or subnormal."""
    anything = st.integers(0, 2**32 - 1).map(lambda code: decode(code, FLOAT32))
    finite = anything.filter(np.isfinite)
    halves = st.integers(-40, 40).map(lambda n: n / 2)
    small = st.floats(-1, 1, width=32)
    few_values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.25])
    tiny = st.integers(-300, 300).map(lambda n: n * 2.0**-149)
    row = st.one_of(
        *(
            st.lists(s, min_size=size, max_size=size)
            for s in (finite, halves, small, few_values, tiny, small | finite)
        )
    )
    return row.map(np.float32)


def moderate_rows(size: int) -> st.SearchStrategy[np.ndarray]:
    """Hard rows below 10^6: the searches compare sixth powers, which stay within f32."""
    return hard_rows(size).map(lambda row: np.where(np.abs(row) < 1e6, row, np.float32(1)))


def core_encode(row: np.ndarray, name: str, importance: np.ndarray | None = None) -> bytes:
    data = row.reshape(1, -1).view(np.uint8)
    return _core.encode(data, "F32", row.size, name, importance).tobytes()


def same_rows(row: np.ndarray, name: str, importance: np.ndarray | None = None) -> None:
    """The core and the oracle store the same bytes; the core refuses a row that overflows."""
    weights = None if importance is None else importance.tolist()
    try:
        found = core_encode(row, name, importance)
    except FormatError as error:
        assert "overflows" in error.message  # noqa: PT017
        assert overflows(row, name, weights)
    else:
        same_bits(found, encode_row(row.tolist(), name, weights), name)


def overflows(row: np.ndarray, name: str, weights: list[float] | None) -> bool:
    """Whether the oracle's bytes hold an infinity or a NaN, or 0 for a large number."""
    with np.errstate(over="ignore"):
        if not np.isfinite(row.max() - row.min()):
            return True
    values = np.float32(decode_row(encode_row(row.tolist(), name, weights), name, row.size))
    return not np.isfinite(values).all() or bool((values[np.abs(row) >= 32768] == 0).any())


@pytest.mark.parametrize("name", [*FLOAT_ROWS, *LEGACY, *AFFINE])
@settings(deadline=None, max_examples=40)
@given(row=hard_rows())
def test_encode(name, row):
    same_rows(row, name)


@pytest.mark.parametrize("name", K)
@settings(deadline=None, max_examples=20)
@given(row=moderate_rows(256))
def test_encode_super_blocks(name, row):
    same_rows(row, name)


@pytest.mark.parametrize("name", [*(n for n in LEGACY if n != "Q8_0"), *K])
@settings(deadline=None, max_examples=15)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_encode_with_importance(name, data, seed):
    """The importance has large and small weights and zeros."""
    row = data.draw(moderate_rows(columns(name)))
    rng = np.random.default_rng(seed)
    weights = np.float32(rng.lognormal(0, 3, row.size) * (rng.random(row.size) < 0.9))
    same_rows(row, name, weights)


@pytest.mark.parametrize("name", [*LEGACY, *AFFINE, *K])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_decode_any_bytes(name, seed):
    """Random bytes decode to the same bits, as long as the scales are finite."""
    count = columns(name)
    size = row_bytes(name, count)
    data = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    expected = np.float32(decode_row(data.tobytes(), name, count))
    if np.isfinite(expected).all():
        same_bits(_core.decode(data[None], name, count)[0], expected, name)


@pytest.mark.parametrize("name", FLOAT_ROWS)
def test_decode_every_code(name):
    codes = np.arange(2**16, dtype=np.uint16)
    expected = np.float32(decode_row(codes.tobytes(), name, codes.size))
    codes = codes[np.isfinite(expected)]
    got = _core.decode(codes.view(np.uint8)[None], name, codes.size)[0]
    same_bits(got, expected[np.isfinite(expected)], name)


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_1", "asym4-g32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(name, value):
    row = np.ones(64, np.float32)
    row[40] = value
    with pytest.raises(FormatError, match="40"):
        core_encode(row, name)
    with pytest.raises(ValueError, match="column 40"):
        encode_row(row.tolist(), name)

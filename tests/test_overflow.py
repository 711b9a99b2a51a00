"""Finite weights that a format cannot hold are refused; what is stored is finite when read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fewbit
from fewbit import _core

FORMATS = [*fewbit.FORMATS, "sym1-g32", "sym4-g32", "asym4-g32", "asym8-g64"]


def stored(rows: np.ndarray, format_: str, weights: np.ndarray | None = None) -> np.ndarray:
    """The rows as `format_` holds them."""
    if weights is None and _core.find_format(format_).needs_importance:
        weights = np.ones(rows.shape[1], np.float32)
    return fewbit.quantize(rows, format_, weights, measure_error=False).dequantize()


def hostile_rows() -> np.ndarray:
    """Rows of 256 numbers of all magnitudes that f32 has, most of them with outliers."""
    rng = np.random.default_rng(23)
    normal = rng.standard_normal((24, 256))
    rows = normal * 10.0 ** np.linspace(-44, 38, 24)[:, None]
    outliers = normal.copy()
    outliers[np.arange(24), rng.integers(0, 256, 24)] = np.geomspace(1e3, 3e38, 24)
    halves = np.where(np.arange(256) % 2, -3e38, 3e38) * np.ones((1, 256))
    limit = np.finfo(np.float32).max
    return np.clip(np.concatenate([rows, outliers, halves]), -limit, limit).astype(np.float32)


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_stored_is_finite(format_: str) -> None:
    weights = np.ones(256, np.float32)
    large = weights.copy()
    large[::3] = 3e38
    for row in hostile_rows():
        for importance in (None, weights, large, weights * np.float32(1e-44)):
            try:
                found = stored(row[None], format_, importance)
            except fewbit.FormatError as error:
                assert "overflow" in error.message  # noqa: PT017
            else:
                assert np.isfinite(found).all()
                peak = np.abs(row).argmax()
                assert abs(row[peak]) < 32768 or found[0, peak] != 0


@pytest.mark.parametrize(
    ("value", "format_", "place"),
    [
        (7e4, "F16", "7e4 as F16: row 1, column 40 overflows"),
        (3e38, "Q8_0", "3e38 as Q8_0: row 1, block 1 (columns 32 to 63) overflows"),
        (-1e7, "Q4_0", "-1e7 as Q4_0: row 1, block 1 (columns 32 to 63) overflows"),
        (3e38, "Q4_K", "3e38 as Q4_K: row 1, block 0 (columns 0 to 255) overflows"),
        (3e38, "Q6_K", "3e38 as Q6_K: row 1, block 0 (columns 0 to 255) overflows"),
    ],
)
def test_the_block_that_overflows_is_named(
    value: float, format_: str, place: str, tmp_path: Path
) -> None:
    rows = np.ones((3, 256), np.float32)
    rows[1:, 40] = value
    with pytest.raises(fewbit.FormatError) as caught:
        fewbit.quantize(rows, format_)
    assert caught.value.message == f"cannot store {place}"
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(fewbit.FormatError) as caught:
        _core.encode_to_file(
            rows.view(np.uint8), "F32", 256, format_, str(tmp_path / "f"), 0, 100, None, 1
        )
    assert caught.value.message == f"cannot store {place.replace('row 1', 'row 101')}"


def test_the_largest_numbers_that_fit_are_stored() -> None:
    row = np.zeros((1, 256), np.float32)
    row[0, 3] = 65504
    assert stored(row, "F16")[0, 3] == 65504
    row[0, 3] = 65504 * 127
    assert stored(row, "Q8_0")[0, 3] == 65504 * 127
    row[0, 3] = np.finfo(np.float32).max
    assert stored(row, "F32")[0, 3] == row[0, 3]


@pytest.mark.parametrize("format_", ["Q4_1", "Q5_1"])
def test_a_range_beyond_float32_is_refused(format_: str) -> None:
    """The difference of two finite numbers may be infinite; 0 times it is not a code."""
    row = np.full((1, 32), 3e38, np.float32)
    row[0, ::2] = -3e38
    with pytest.raises(fewbit.FormatError, match="overflows"):
        fewbit.quantize(row, format_)


def test_nvfp4_cuts_off_as_llama_cpp_does() -> None:
    """Its scale is a float of 8 bits that has no infinity: 448 times 6 is the largest value."""
    rows = np.ones((2, 64), np.float32)
    rows[1, 20] = -1e6
    assert stored(rows, "NVFP4")[1, 20] == -2688


@settings(deadline=None, max_examples=40)
@given(
    exponent=st.floats(-45, 38.5), seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["normal", "constant", "spike", "one sign", "all magnitudes"]),
)  # fmt: skip
def test_any_magnitude_is_stored_near_or_refused(exponent: float, seed: int, kind: str) -> None:
    """What is stored is finite, and no format loses the size of a row."""
    rng = np.random.default_rng(seed)
    shape = {
        "normal": rng.standard_normal(256) / 4,
        "constant": np.full(256, rng.choice([-1.0, 1.0])),
        "spike": np.eye(1, 256, int(rng.integers(256)))[0],
        "one sign": rng.uniform(0, 1, 256),
        "all magnitudes": rng.uniform(-1, 1, 256) * 10.0 ** rng.integers(-40, 1, 256),
    }[kind]
    limit = float(np.finfo(np.float32).max)
    row = np.clip(shape * 10.0**exponent, -limit, limit).astype(np.float32)[None]
    peak = float(np.abs(row).max())
    for format_ in FORMATS:
        try:
            found = stored(row, format_)
        except fewbit.FormatError as error:
            assert "overflows" in error.message, format_  # noqa: PT017
            assert peak > 1e4, format_
            continue
        assert np.isfinite(found).all(), format_
        cut = format_ == "NVFP4" and not 0.05 < peak < 2688  # its scales are floats of 8 bits
        if peak > 1e-3 and kind in ("normal", "constant", "one sign") and not cut:
            assert 0.2 * peak < float(np.abs(found).max()) < 3 * peak, format_

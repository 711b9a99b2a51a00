"""`fewbit.quantize`: shapes, dtypes, errors of rounding, and importance."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fewbit
from fewbit import _core
from tests.compare import same_bits, within_bound

WIDTHS = range(1, 9)
rng = np.random.default_rng(0)


@pytest.mark.parametrize("name", [*fewbit.FORMATS, "sym2-g32", "asym8-g64", "asym3-g40"])
def test_shapes_and_sizes(name: str) -> None:
    x = rng.normal(size=(2, 3, 256)).astype(np.float32)
    if name in ("IQ1_S", "IQ2_XXS", "IQ2_XS"):
        with pytest.raises(fewbit.FormatError, match="needs an importance matrix"):
            fewbit.quantize(x, name)
        return
    q = fewbit.quantize(x, name)
    row_bytes = fewbit.find_format(name).row_bytes(256)
    assert (q.data.shape, q.data.dtype, q.shape) == ((6, row_bytes), np.uint8, (2, 3, 256))
    assert q.bits_per_weight == 8 * row_bytes / 256
    back = q.dequantize()
    assert (back.shape, back.dtype) == (x.shape, np.float32)
    off = np.abs(np.float64(x) - back)
    assert q.error.max_abs == off.max()
    within_bound(q.error.rmse, math.sqrt((off**2).mean()), 1e-12, "rmse")
    within_bound(q.error.mean_relative, (off / np.abs(x)).mean(), 1e-9, "mean relative error")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_every_float_dtype_is_the_same_array(dtype: type) -> None:
    x = rng.normal(size=(4, 64)).astype(dtype)
    same_bits(fewbit.quantize(x, "Q4_0").data, fewbit.quantize(np.float32(x), "Q4_0").data)


def test_strided_arrays_and_threads() -> None:
    x = rng.normal(size=(64, 128)).astype(np.float32)
    expected = fewbit.quantize(np.ascontiguousarray(x[::2, ::2]), "Q5_1").data
    same_bits(fewbit.quantize(x[::2, ::2], "Q5_1").data, expected)
    for threads in (1, 3):
        same_bits(fewbit.quantize(x[::2, ::2], "Q5_1", threads=threads).data, expected)


@settings(deadline=None, max_examples=60)
@given(
    bits=st.sampled_from(WIDTHS),
    group=st.integers(1, 70),
    kind=st.sampled_from(["sym", "asym"]),
    row=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=150),
)
def test_no_value_is_off_by_more_than_half_a_step(
    bits: int, group: int, kind: str, row: list[float]
) -> None:
    """A step is the range of a group over its levels; rounding the zero adds half a step."""
    x = np.float32(row)
    y = fewbit.quantize(x[None], f"{kind}{bits}-g{group}").dequantize()[0]
    for start in range(0, x.size, group):
        values, back = x[start : start + group], y[start : start + group]
        if kind == "sym":
            step = np.abs(values).max() / max(2 ** (bits - 1) - 1, 1)
        else:
            step = (max(values.max(), 0) - min(values.min(), 0)) / (2**bits - 1)
        limit = step * (0.5 if kind == "sym" and bits > 1 else 1.0) + 4e-6 * np.abs(values).max()
        within_bound(back, values, float(limit) + 1e-30, f"{kind}{bits}")


@pytest.mark.parametrize("kind", ["sym", "asym"])
def test_more_bits_lose_less(kind: str) -> None:
    x = rng.normal(size=(16, 256)).astype(np.float32)
    widths = WIDTHS[1:] if kind == "sym" else WIDTHS  # symmetric of one bit has no 0
    errors = [fewbit.quantize(x, f"{kind}{bits}-g32").error.rmse for bits in widths]
    assert errors == sorted(errors, reverse=True)
    by_size = ["Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q8_0", "BF16", "F16", "F32"]
    errors = [fewbit.quantize(x, name).error.rmse for name in by_size]
    assert errors == sorted(errors, reverse=True)


def test_importance_takes_error_from_where_it_counts() -> None:
    x = rng.normal(size=(64, 256)).astype(np.float32)
    weights = np.where(np.arange(256) % 8 == 0, 100.0, 0.01)
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"):
        plain, weighted = (
            (np.square(fewbit.quantize(x, name, imatrix=w).dequantize() - x) * weights).sum()
            for w in (None, weights)
        )
        assert weighted < 0.9 * plain, name


@pytest.mark.parametrize("name", [n for n, f in fewbit.FORMATS.items() if not f.is_float])
def test_weights_in_memory_are_as_large_as_in_the_file(name: str) -> None:
    """Weights at file size take at most 5 % more memory: 6-bit scales become bytes."""
    x = rng.normal(size=(32, 1024)).astype(np.float32)
    ones = np.ones(1024, np.float32)
    data = _core.encode(x.view(np.uint8), "F32", 1024, name, ones, 1)
    weights = _core.Weights(keep_file_size=True)
    weights.add("w", name, 32, 1024, data)
    assert data.nbytes <= weights.nbytes <= 1.05 * data.nbytes

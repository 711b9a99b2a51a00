"""`QuantizedTensor`: what it compares, its codes and scales, and tensors made from bytes."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.errors import FewbitError, FormatError, InputError, ShapeError, UnsupportedError
from fewbit.formats.layouts import E2M1, IQ4
from fewbit.formats.tensors import QuantizedTensor
from tests.compare import same_bits, within_bound

MINIMUM = ("Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K")
STORED_ZERO = ("asym1-g8", "asym3-g40", "asym4-g32", "asym8-g64")
CODEBOOK = {"IQ4_NL": IQ4, "IQ4_XS": IQ4, "MXFP4": E2M1, "NVFP4": E2M1}
RANGES = {
    "Q1_0": (-1, 1), "Q2_0": (-1, 2), "Q4_0": (-8, 7), "Q4_1": (0, 15), "Q5_0": (-16, 15),
    "Q5_1": (0, 31), "Q8_0": (-128, 127), "Q2_K": (0, 3), "Q3_K": (-4, 3), "Q4_K": (0, 15),
    "Q5_K": (0, 31), "Q6_K": (-32, 31), "TQ1_0": (-1, 1), "TQ2_0": (-1, 2), "IQ4_NL": (0, 15),
    "IQ4_XS": (0, 15), "MXFP4": (0, 15), "NVFP4": (0, 15), "sym1-g8": (-1, 1), "sym3-g5": (-3, 4),
    "sym4-g32": (-7, 8), "asym1-g8": (0, 1), "asym3-g40": (0, 7), "asym4-g32": (0, 15),
    "asym8-g64": (0, 255),
}  # fmt: skip
GROUPS = {
    "Q1_0": 128, "Q2_0": 64, "Q2_K": 16, "Q3_K": 16, "Q6_K": 16, "NVFP4": 16, "TQ1_0": 256,
    "TQ2_0": 256, "sym1-g8": 8, "sym3-g5": 5, "asym1-g8": 8, "asym3-g40": 40, "asym8-g64": 64,
}  # fmt: skip
WITHOUT_CODES = [n for n, f in fewbit.FORMATS.items() if f.is_float or f.family == "grid"]


def random_tensor(name: str, rows: int = 16, columns: int = 512) -> QuantizedTensor:
    """Random bytes whose values are all finite: codes that no encoder chooses are among them."""
    random, format_ = np.random.default_rng(11), fewbit.find_format(name)
    blocks: list[np.ndarray] = []
    while len(blocks) < rows * -(-columns // format_.block):
        block = random.integers(0, 256, format_.bytes, np.uint8)
        values = _core.decode(block[None], name, format_.block)
        if np.isfinite(values).all() and np.abs(values).max() < 1e30:
            blocks.append(block)
    return QuantizedTensor.from_bytes(np.concatenate(blocks), name, (rows, columns))


def quantized(name: str, *shape: int) -> QuantizedTensor:
    x = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    return fewbit.quantize(x, name, np.ones(shape[-1], np.float32))


def spread(groups: np.ndarray, q: QuantizedTensor) -> np.ndarray:
    """A number for each group as a number for each element."""
    return np.repeat(groups, q.group_size, axis=-1)[..., : q.shape[-1]]


def test_all_formats_with_codes_are_tested() -> None:
    assert {name for name in RANGES if name in fewbit.FORMATS} == {
        name for name in fewbit.FORMATS if name not in WITHOUT_CODES
    }


@pytest.mark.parametrize("name", RANGES)
def test_codes_scales_and_minima_give_the_values(name: str) -> None:
    q = random_tensor(name)
    codes, scales = q.codes, q.scales
    groups = -(-512 // q.group_size)
    assert (codes.shape, codes.dtype) == (q.shape, np.int16)
    assert (scales.shape, scales.dtype) == ((16, groups), np.float32)
    low, high = RANGES[name]
    extremes = (codes.min(), codes.max())
    assert extremes == (low, 1 if name == "TQ1_0" else high), name
    assert q.group_size == GROUPS.get(name, 32)
    levels = codes.astype(np.float32)
    if name in CODEBOOK:
        assert q.codebook is not None
        assert q.codebook.tolist() == list(CODEBOOK[name])
        levels = q.codebook[codes]
    else:
        assert q.codebook is None
    values = spread(scales, q) * levels
    if name in (*MINIMUM, *STORED_ZERO):
        assert q.minima is not None
        assert (q.minima.shape, q.minima.dtype) == (scales.shape, np.float32)
        values = values + spread(q.minima, q)
    else:
        assert q.minima is None
        assert q.zeros is None
    same_bits(values, q.dequantize(), name)


@pytest.mark.parametrize("name", MINIMUM)
@pytest.mark.parametrize("make", [random_tensor, lambda name: quantized(name, 16, 512)])
def test_zeros_of_formats_with_a_minimum(name: str, make: Any) -> None:
    q = make(name)
    zeros, scales = q.zeros, q.scales
    assert zeros is not None
    assert (zeros.shape, zeros.dtype) == (scales.shape, np.float64)
    values = (spread(scales, q) * (q.codes - spread(zeros, q))).astype(np.float32)
    has_scale = spread(scales != 0, q)
    expected = q.dequantize()[has_scale]
    off = np.abs(values[has_scale].astype(np.float64) - expected)
    assert (off <= np.spacing(np.abs(expected))).all()
    assert has_scale.mean() > 0.9


@pytest.mark.parametrize("name", STORED_ZERO)
@pytest.mark.parametrize("make", [random_tensor, lambda name: quantized(name, 16, 512)])
def test_zeros_that_are_stored_are_integers(name: str, make: Any) -> None:
    q = make(name)
    zeros, scales = q.zeros, q.scales
    assert zeros is not None
    assert zeros.dtype == np.int16
    stored = q.data.reshape(-1, fewbit.find_format(name).bytes)[:, 4]
    assert zeros.ravel().tolist() == stored.tolist()
    values = spread(scales, q) * (q.codes - spread(zeros, q))
    largest = np.abs(spread(scales, q)) * np.maximum(q.codes, spread(zeros, q))
    assert (np.abs(np.float64(values) - q.dequantize()) <= 2 * np.spacing(largest)).all()


def test_a_group_of_one_value_has_zero_0_and_its_minimum() -> None:
    q = fewbit.quantize(np.full((1, 32), -2.5, np.float32), "Q4_1")
    assert q.zeros is not None
    assert q.minima is not None
    assert (q.scales.tolist(), q.zeros.tolist(), q.minima.tolist()) == ([[0]], [[0]], [[-2.5]])


def test_known_codes() -> None:
    x = np.zeros((1, 32), np.float32)
    x[0, :4] = [-8, 7, 1, -1]
    q = fewbit.quantize(x, "Q4_0")
    assert q.codes[0, :5].tolist() == [-8, 7, 1, -1, 0]
    assert q.scales.tolist() == [[1.0]]
    assert q.zeros is None


def test_leading_axes_and_short_groups() -> None:
    q = quantized("asym4-g32", 2, 3, 40)
    assert q.zeros is not None
    assert (q.codes.shape, q.scales.shape, q.zeros.shape) == ((2, 3, 40), (2, 3, 2), (2, 3, 2))
    vector = quantized("Q4_1", 64)
    assert vector.minima is not None
    assert (vector.codes.shape, vector.scales.shape, vector.minima.shape) == ((64,), (2,), (2,))


def test_large_tensors_are_read_in_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    q = quantized("Q5_1", 64, 512)
    expected = q.codes, q.scales, q.minima
    monkeypatch.setattr("fewbit.formats.blocks._SLAB", 100)
    for got, wanted in zip((q.codes, q.scales, q.minima), expected, strict=True):
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("name", WITHOUT_CODES)
def test_formats_without_codes_refuse_them(name: str) -> None:
    q = quantized(name, 2, 256)
    why = "as a float" if fewbit.FORMATS[name].is_float else "a grid of vectors"
    for number in ("codes", "scales", "zeros", "minima", "group_size"):
        with pytest.raises(UnsupportedError, match=f"^{name} stores .*{why}"):
            getattr(q, number)
    assert q.codebook is None


def test_equality_is_of_format_shape_and_bytes() -> None:
    q = quantized("Q4_0", 4, 64)
    assert q == QuantizedTensor(q.data.copy(), "q4_0", [4, 64])  # type: ignore[arg-type]
    assert q != QuantizedTensor.from_bytes(q.data, "Q4_0", (2, 128))
    assert q != QuantizedTensor.from_bytes(q.data, "IQ4_NL", (4, 64))
    assert q != QuantizedTensor.from_bytes(q.data, "Q4_0", (2, 2, 64))
    other = q.data.copy()
    other[3, 35] ^= 1
    assert q != QuantizedTensor.from_bytes(other, "Q4_0", (4, 64))
    assert q != "Q4_0"
    with pytest.raises(TypeError, match="unhashable"):
        hash(q)


def test_numpy_sees_the_values() -> None:
    q = quantized("Q5_K", 2, 256)
    same_bits(np.asarray(q), q.dequantize())
    for half in (np.asarray(q, np.float16), q.__array__(np.float16)):
        assert half.dtype == np.float16
        assert np.array_equal(half, q.dequantize().astype(np.float16))
    assert np.abs(q).max() == np.abs(q.dequantize()).max()  # type: ignore[call-overload]
    with pytest.raises(InputError, match="cannot be viewed without a copy"):
        np.array(q, copy=False)


@pytest.mark.parametrize("name", ["F16", "Q4_0", "Q6_K", "IQ3_S", "asym3-g40"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.asarray])
def test_tensors_from_bytes(name: str, kind: Any) -> None:
    q = quantized(name, 3, 2, 256)
    data = q.data if kind is np.asarray else kind(q.data.tobytes())
    back = QuantizedTensor.from_bytes(data, name, (3, 2, 256))
    assert back == q
    assert not np.shares_memory(back.data, q.data)
    same_bits(fewbit.dequantize(data, name.lower(), [3, 2, 256], threads=1), q.dequantize())
    with pytest.raises(InputError, match="the error was not measured"):
        back.error  # noqa: B018


def test_strided_bytes() -> None:
    q = quantized("Q8_0", 4, 32)
    wide = np.repeat(q.data, 2, axis=1)
    same_bits(fewbit.dequantize(wide[:, ::2], "Q8_0", (4, 32)), q.dequantize())


DATA = bytes(36)
REFUSED: list[tuple[Any, str, Any, type[FewbitError], str]] = [
    (DATA, "Q4_9", (2, 32), FormatError, "unknown format `Q4_9`"),
    (DATA, "Q4_0", (32,), ShapeError, "a Q4_0 tensor of shape (32,) takes 18 bytes, got 36"),
    (DATA, "Q4_0", (64, 2), ShapeError, "cannot store rows of 2 elements as Q4_0"),
    (DATA, "Q4_0", (), ShapeError, "a tensor cannot have shape ()"),
    (DATA, "Q4_0", (0, 32), ShapeError, "a tensor cannot have shape (0, 32)"),
    (DATA, "Q4_0", (-2, -32), ShapeError, "a tensor cannot have shape (-2, -32)"),
    (DATA, "Q4_0", 64, InputError, "a shape must be integers, as (4096, 4096), got 64"),
    (DATA, "Q4_0", (2, 32.0), InputError, "a shape must be integers, as (4096, 4096), got"),
    ([0] * 36, "Q4_0", (2, 32), InputError, "the data must be bytes or an array of uint8, got lis"),
    (np.zeros(36, np.int8), "Q4_0", (2, 32), InputError, "the data must be bytes or an array of "),
]


@pytest.mark.parametrize(("data", "name", "shape", "kind", "message"), REFUSED)
def test_bytes_that_are_refused(
    data: Any, name: str, shape: Any, kind: type[FewbitError], message: str
) -> None:
    for call in (QuantizedTensor.from_bytes, fewbit.dequantize):
        with pytest.raises(kind) as caught:
            call(data, name, shape)
        assert type(caught.value) is kind
        assert caught.value.message.startswith(message)


def test_data_must_be_rows() -> None:
    q = quantized("Q4_0", 4, 64)
    with pytest.raises(ShapeError, match=r"`data` has shape \(144,\), expected \(4, 36\)"):
        QuantizedTensor(q.data.ravel(), "Q4_0", (4, 64))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_the_source_is_let_go(dtype: type) -> None:
    x = np.random.default_rng(1).normal(size=(4, 64)).astype(dtype)
    expected = np.abs(x.astype(np.float32) - fewbit.quantize(x, "Q4_0").dequantize()).max()
    q, alive = fewbit.quantize(x, "Q4_0"), weakref.ref(x)
    del x
    gc.collect()
    assert alive() is None
    within_bound(q.error.max_abs, float(expected), 1e-6, "largest error")


def test_the_error_can_be_left_out_and_asked_for_later() -> None:
    x = np.random.default_rng(2).normal(size=(40, 4096)).astype(np.float32)
    x[0, :7], x[1, 3] = 0, 100.0  # the largest errors are in the first rows compared
    measured, plain = fewbit.quantize(x, "Q4_0"), fewbit.quantize(x, "Q4_0", measure_error=False)
    assert measured == plain
    with pytest.raises(InputError, match="the error was not measured"):
        plain.error  # noqa: B018
    assert plain.error_against(x) == measured.error
    off = np.abs(np.float64(x) - measured.dequantize())
    assert measured.error.max_abs == off.max()
    within_bound(measured.error.rmse, float(np.sqrt((off**2).mean())), 1e-12, "rmse")
    relative = (off[x != 0] / np.abs(x[x != 0])).mean()
    within_bound(measured.error.mean_relative, float(relative), 1e-9, "mean relative error")
    snr = 10 * np.log10((np.float64(x) ** 2).sum() / (off**2).sum())
    within_bound(measured.error.snr, float(snr), 1e-9, "snr")
    with pytest.raises(ShapeError, match="cannot compare a tensor of shape"):
        plain.error_against(x[:39])


def test_no_error_at_all() -> None:
    error = fewbit.quantize(np.zeros((2, 32), np.float32), "Q4_0").error
    assert error == fewbit.ErrorStatistics(0.0, 0.0, 0.0, float("inf"))


def test_copies_and_pickles() -> None:
    q = quantized("Q4_K", 2, 256)
    for other in (copy.copy(q), copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert other == q
        assert other.error == q.error
        same_bits(other.dequantize(), q.dequantize())
    deep = copy.deepcopy(q)
    deep.data[0, 20] ^= 255
    assert deep != q


def test_a_tensor_is_not_changed_by_accident() -> None:
    q = quantized("Q4_K", 2, 256)
    with pytest.raises(AttributeError):
        q.format = "Q8_0"  # type: ignore[misc]


def test_the_text_of_a_tensor() -> None:
    q = quantized("Q4_0", 4, 64)
    assert repr(q) == "QuantizedTensor(Q4_0, shape=(4, 64), 4.5 bits per weight)"
    assert (q.nbytes, q.bits_per_weight) == (144, 4.5)

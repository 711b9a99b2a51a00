"""Values that no encoder writes: found where they are put, and in nothing that an encoder wrote."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import fewbit
from fewbit import _core
from fewbit.formats.impossible import checks_of
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import FORMATS, find_format

GOLDEN = Path(__file__).parent / "golden" / "quant"
NEED_IMPORTANCE = ("IQ1_S", "IQ2_XXS", "IQ2_XS")
COLUMNS = 512
AFFINE = ("sym1-g8", "sym4-g32", "asym4-g32", "asym3-g7")

Bytes = NDArray[np.uint8]


def found_in(rows: Bytes, name: str) -> list[str]:
    """The reasons of all checks that mark anything."""
    format_ = find_format(name)
    blocks = rows.reshape(-1, format_.bytes)
    return [check.reason for check in checks_of(format_) if check.find(blocks).any()]


def weights(seed: int, size: float) -> list[NDArray[np.float32]]:
    """Rows of both signs, of one sign, and with zeros, some rows nothing but zero."""
    x = (np.random.default_rng(seed).normal(size=(8, COLUMNS)) * size).astype(np.float32)
    sparse = np.where(np.arange(COLUMNS) % 3 == 0, 0, x).astype(np.float32)
    sparse[3] = 0
    return [x, np.abs(x), -np.abs(x), sparse]


def encoded(name: str) -> Bytes:
    """Rows as the core encodes them, of many sizes, with and without importance."""
    rng = np.random.default_rng(3)
    sparse = (rng.random(COLUMNS) < 0.1).astype(np.float32)
    importance = [None, rng.random(COLUMNS).astype(np.float32), sparse]
    if name in NEED_IMPORTANCE:
        importance = importance[1:]
    rows = [
        fewbit.quantize(x, name, weights_of).data
        for size in (1.0, 1e-6, 1e-30, 1e-42, 6e3)
        for x in weights(1, size)
        for weights_of in importance
    ]
    return np.concatenate(rows)


@pytest.mark.parametrize("name", [*FORMATS, *AFFINE])
def test_nothing_that_an_encoder_wrote_is_impossible(name: str) -> None:
    assert found_in(encoded(name), name) == []


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.c*.bytes.npy")), ids=lambda path: path.stem)
def test_nothing_that_llama_cpp_wrote_is_impossible(path: Path) -> None:
    assert found_in(np.load(path), path.name.split(".")[0]) == []


@pytest.mark.parametrize("name", FORMATS)
def test_all_that_is_not_finite_is_found(name: str) -> None:
    """Random bytes: a block that decodes to NaN or infinity is marked."""
    format_ = find_format(name)
    blocks = np.random.default_rng(5).integers(0, 256, (4000, format_.bytes), np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        values = _core.decode(blocks, name, format_.block)
    marks = [check.find(blocks).any(axis=1) for check in checks_of(format_)]
    bad = ~np.isfinite(values).all(axis=1)
    assert (bad <= np.any(marks, axis=0)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_bits_that_no_value_needs_are_marked(name: str) -> None:
    """A bit that can be set without a change of any value is none that an encoder sets."""
    format_ = find_format(name)
    if format_.is_float:
        return
    x = np.random.default_rng(6).normal(size=(64, COLUMNS)).astype(np.float32)
    blocks = fewbit.quantize(x, name, np.ones(COLUMNS)).data.reshape(-1, format_.bytes)
    values = _core.decode(blocks, name, format_.block)
    unused = []
    for bit in range(8 * format_.bytes):
        changed = blocks.copy()
        changed[:, bit // 8] ^= 1 << bit % 8
        with np.errstate(over="ignore", invalid="ignore"):
            after = _core.decode(changed, name, format_.block)
        if (after == values).all():
            unused.append(bit)
            assert found_in(changed, name), f"bit {bit}"
    assert unused == ([7, 15, 23, 31] if name == "NVFP4" else [])


def put(name: str, values: dict[int, int]) -> Bytes:
    """A block of ones in format `name`, with other bytes at some places."""
    format_ = find_format(name)
    ones = np.tile(np.float32([1, -1]), format_.block // 2 or 1)[: format_.block]
    block = fewbit.quantize(ones[None], name, np.ones(format_.block, np.float32)).data[0].copy()
    for place, byte in values.items():
        block[place] = byte
    return block[None]


NAN, MINUS_ONE = (0x00, 0x7E), (0x00, 0xBC)


def halves(name: str, field: str) -> int:
    """Where the f16 `field` begins in a block."""
    return next(f.start for f in layout_of(find_format(name)).fields if f.name == field)


SCALES = [
    (name, field)
    for name in FORMATS
    for field, kind in layout_of(find_format(name)).kinds.items()
    if kind == "f16" and field != "values"
]
SIGNED = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q3_K", "Q6_K", "IQ4_NL", "IQ4_XS"}


@pytest.mark.parametrize(("name", "field"), SCALES)
def test_scales(name: str, field: str) -> None:
    at = halves(name, field)
    for low, high in (NAN, (0x00, 0x7C), (0x00, 0xFC)):
        assert found_in(put(name, {at: low, at + 1: high}), name) == [f"`{field}` is not finite"]
    negative = found_in(put(name, dict(zip((at, at + 1), MINUS_ONE, strict=True))), name)
    assert negative == ([] if name in SIGNED else [f"`{field}` is negative"])
    assert found_in(put(name, {at: 0x00, at + 1: 0x80}), name) == [], "-0.0 is zero"


OTHERS = [
    ("IQ1_M", {53: 0xE0, 55: 0x70}, "`d` is not finite"),
    ("IQ1_M", {53: 0xC0, 55: 0xB0}, "`d` is negative"),
    ("MXFP4", {0: 253}, "`d` is 2^125 or more, values overflow"),
    ("NVFP4", {2: 0x7F}, "`d` is NaN"),
    ("NVFP4", {3: 0xB8}, "`d` has its unused highest bit set"),
    ("TQ1_0", {47: 1}, "a byte of `codes` stands for no five trits"),
    ("TQ1_0", {48: 2}, "a byte of `codes` stands for no four trits"),
    ("TQ2_0", {63: 0b00_11_01_10}, "`codes` are 0 to 2, found 3"),
]


@pytest.mark.parametrize(("name", "values", "reason"), OTHERS)
def test_other_values(name: str, values: dict[int, int], reason: str) -> None:
    assert found_in(put(name, values), name) == [reason]


def test_an_exponent_of_255_over_nothing_but_zeros_is_what_tiny_weights_become() -> None:
    tiny = fewbit.quantize(np.full((1, 32), 2.0**-126, np.float32), "MXFP4").data
    assert tiny[0, 0] == 255
    assert found_in(tiny, "MXFP4") == []


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("F32", np.float32), ("F16", np.float16), ("BF16", ml_dtypes.bfloat16)],
)
def test_floats(name: str, dtype: type) -> None:
    for value in (np.nan, np.inf, -np.inf):
        row = np.array([0.0, -1.0, value, 3.0], np.float32).astype(dtype)
        assert found_in(row.view(np.uint8), name) == ["the value is not finite"]
    assert (
        found_in(np.array([0.0, -0.0, -1.0], np.float32).astype(dtype).view(np.uint8), name) == []
    )

"""Every format with rows of any magnitude, with random blocks, and with products over them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import fewbit
from fewbit import _core
from fewbit.files.gguf import read_gguf
from fewbit.formats.blocks import read_block
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import FORMATS, find_format
from tests.golden.loading import MODELS

NAMES = [*FORMATS, "asym4-g32", "sym2-g64", "asym8-g7", "sym3-g128"]
ROUNDS = 60
PLACED = re.compile(r"cannot store \S+ as \S+: row \d+, (block \d+ \(columns|column \d+)")


def columns_of(name: str) -> int:
    return 2 * find_format(name).block if find_format(name).block > 1 else 64


def extreme(rng: np.random.Generator, columns: int) -> NDArray[np.float32]:
    """Four finite rows: any bits, one magnitude, a large number among small ones, or all alike."""
    match rng.integers(5):
        case 0:
            bits = rng.integers(0, 1 << 32, (4, columns), dtype=np.uint32)
            values = bits.view(np.float32)
        case 1:
            values = rng.standard_normal((4, columns)) * 2.0 ** rng.integers(-149, 128)
        case 2:
            values = rng.standard_normal((4, columns)) * 2.0 ** rng.integers(-149, 0)
            values[:, rng.integers(columns)] = rng.choice([3.4e38, -3.4e38, 65504, 65520, 1e-45])
        case 3:
            values = np.full((4, columns), rng.choice([3.4028235e38, 1e-45, -1.5e-42, 6.6e4, -0.0]))
            values[:, :: rng.integers(1, 8)] *= -1
        case _:
            values = np.where(rng.random((4, columns)) < 0.5, 1e-40, 1e38)
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32(0))


@pytest.mark.parametrize("name", NAMES)
def test_finite_rows_are_read_back_finite_or_refused_by_place(name: str) -> None:
    rng = np.random.default_rng(len(name))
    columns, stored = columns_of(name), 0
    for _ in range(ROUNDS):
        rows = extreme(rng, columns)
        weights = np.abs(extreme(rng, columns)[0])
        needs = _core.find_format(name).needs_importance
        for importance in (weights, np.ones(columns, np.float32) if needs else None):
            data, refusal = encoded(rows, name, importance)
            if data is None:
                assert PLACED.match(refusal), refusal
            else:
                stored += 1
                assert np.isfinite(_core.decode(data, name, columns, 1)).all()
    assert stored


def encoded(
    rows: NDArray[np.float32], name: str, importance: NDArray[np.float32] | None
) -> tuple[NDArray[np.uint8] | None, str]:
    """The bytes of the rows, or None and why there are none."""
    try:
        data = _core.encode(rows.view(np.uint8), "F32", rows.shape[1], name, importance, 1)
    except fewbit.FormatError as error:
        return None, error.message
    return data, ""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_by_place(name: str, value: float) -> None:
    columns = columns_of(name)
    rows = np.ones((3, columns), np.float32)
    rows[2, columns - 1] = value
    weights = np.ones(columns, np.float32)
    with pytest.raises(fewbit.FormatError, match=f"row 2, column {columns - 1} is not finite"):
        _core.encode(rows.view(np.uint8), "F32", columns, name, weights, 1)


def noise(rng: np.random.Generator, name: str, rows: int) -> NDArray[np.uint8]:
    row_bytes = find_format(name).row_bytes(columns_of(name))
    data = rng.integers(0, 256, (rows, row_bytes), dtype=np.uint8)
    if rng.random() < 0.3:
        data[:] = rng.choice([0, 255, 0x7C, 0x80, 0x7F])
    return data


@pytest.mark.parametrize("name", NAMES)
def test_random_blocks_are_decoded_and_listed(name: str) -> None:
    rng = np.random.default_rng(len(name))
    format_, columns = find_format(name), columns_of(name)
    for _ in range(ROUNDS):
        data = noise(rng, name, 3)
        values = _core.decode(data, name, columns, 1)
        assert values.shape == (3, columns)
        one = _core.decode(data[1:2], name, columns, 1)
        np.testing.assert_array_equal(one.view(np.uint32), values[1:2].view(np.uint32))
        assert layout_of(format_).fields
        if not format_.is_float:
            assert read_block(data[0, : format_.bytes], name)
        tensor = fewbit.QuantizedTensor.from_bytes(data, name, (3, columns))
        for attribute in ("codes", "scales", "zeros"):
            try:
                getattr(tensor, attribute)
            except fewbit.UnsupportedError:
                continue


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("acts", ["int8", "f32"])
def test_products_over_random_blocks(name: str, acts: str) -> None:
    """Any codes and scales: nothing ends the process, and all instruction sets compute alike."""
    rng = np.random.default_rng(len(name))
    columns, rows = columns_of(name), 48
    plan = json.dumps(
        [
            {"op": "embed", "inputs": [], "weights": ["e"], "width": columns},
            {"op": "linear", "inputs": [0], "weights": ["w"], "width": rows},
        ]
    )
    for keep in (False, True):
        weights = _core.Weights(keep_file_size=keep)
        weights.add("e", "F32", 4, columns, extreme(rng, columns).view(np.uint8))
        data = np.concatenate([noise(rng, name, 400) for _ in range(8)])
        finite = np.isfinite(_core.decode(data, name, columns, 1)).all(axis=1)
        if not finite.all():  # a scale that is finite may still overflow with its code
            with suppress(fewbit.FormatError):
                weights.add("w", name, rows, columns, data[~finite][:1].repeat(rows, axis=0))
                compute(plan, weights, acts)
        weights.add("w", name, rows, columns, data[finite][:rows])
        found = compute(plan, weights, acts)
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])


def compute(plan: str, weights: _core.Weights, acts: str) -> list[NDArray[np.uint32]]:
    """The bits of the logits with each instruction set, all NaN alike."""
    ids, none, each = (np.array(x, np.uint32) for x in ([0, 1, 2, 3, 0], [0] * 5, range(5)))
    found = []
    for isa in _core.isas():
        executor = _core.Executor(plan, weights, 1, isa)
        logits = executor.forward(executor.cache(1, 8), ids, none, each, acts)
        found.append(np.nan_to_num(logits, nan=1.25).view(np.uint32))
    return found


def test_the_tensor_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    fewbit.load(MODELS / "llama", "cpu", threads=1).save(path)
    info = read_gguf(path).tensors["blk.0.attn_q.weight"]
    data = bytearray(path.read_bytes())
    row = info.data.shape[1]
    data[info.offset + row : info.offset + 2 * row] = b"\xff\xff\x61\x7f" * (row // 4)  # 3e38
    path.write_bytes(data)
    model = fewbit.load(path, "cpu", threads=1)
    expected = r"tensor `blk\.0\.attn_q\.weight`: cannot store 3.\d+e38 as Q4_0: row 1, block 0"
    for use in (lambda m: m.data("blk.0.attn_q.weight"), lambda m: m.save(tmp_path / "q.gguf")):
        with pytest.raises(fewbit.FormatError, match=expected):
            use(model.quantize("Q4_0"))

"""The safetensors reader: files of the library are mapped, broken files raise an error."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fewbit.errors import FileFormatError
from fewbit.files.safetensors import read_safetensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4).astype(ml_dtypes.bfloat16),
    "c": np.ones((1, 2, 2), np.float16),
}


def file(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BROKEN = {
    "empty": b"",
    "short": b"\1\2",
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "a header longer than the file": struct.pack("<Q", 2**40) + b"{}",
    "data missing": file({"a": entry([2], [0, 8])}, bytes(4)),
    "a shape that does not fit": file({"a": entry([3], [0, 8])}, bytes(8)),
    "an overlap": file({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)),
    "a hole": file({"a": entry([2], [0, 8]), "b": entry([1], [12, 16])}, bytes(16)),
    "a shape that overflows": file({"a": entry([2**40, 2**40], [0, 8])}, bytes(8)),
    "an unknown type": file({"a": entry([2], [0, 8], "F31")}, bytes(8)),
}


def test_arrays_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(ARRAYS, {"format": "np"}))
    found = read_safetensors(path)
    assert {name: (e.dtype, e.shape) for name, e in found.items()} == {
        "a": ("F32", (2, 3)), "b": ("BF16", (4,)), "c": ("F16", (1, 2, 2))
    }  # fmt: skip
    for name, array in ARRAYS.items():
        assert found[name].data.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(BROKEN[name])
    with pytest.raises(FileFormatError, match="is not a valid safetensors file: ") as caught:
        read_safetensors(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    damaged = bytearray(save(ARRAYS))
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        found = read_safetensors(path)
    except FileFormatError as error:
        sound = str(path) in error.message
    else:
        sound = sum(e.data.size for e in found.values()) <= path.stat().st_size
    assert sound

"""The GGUF reader: valid files are read back, broken ones raise an error that names the fault."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewbit.errors import FewbitError, FileFormatError, UnsupportedError
from fewbit.files.gguf import read_gguf
from fewbit.recipes.order import sort_key

FAST = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def tensor(
    name: str = "t.weight", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0
) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def gguf(
    infos: list[bytes] | None = None,
    fields: list[bytes] | None = None,
    data: int = 64,
    **header: Any,
) -> bytes:
    infos, fields = infos or [], fields or []
    head = struct.pack(
        "<4sIQQ",
        header.get("magic", b"GGUF"),
        header.get("version", 3),
        header.get("tensors", len(infos)),
        header.get("field_count", len(fields)),
    )
    body = head + b"".join(fields) + b"".join(infos)
    return body + bytes(-len(body) % 32) + bytes(data)


U32, STRING, ARRAY = 4, 8, 9


def field(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


BROKEN = {
    "empty": (b"", "it is empty"),
    "short": (b"GGUF\3", "the version needs 4 bytes at 4, 1 are left"),
    "magic": (gguf(magic=b"GGML"), "starts with b'GGML'"),
    "counts": (gguf(tensors=2**60), "tensors and 0 metadata keys do not fit"),
    "fields": (gguf(field_count=2**60), "metadata keys do not fit"),
    "string": (
        gguf(fields=[struct.pack("<Q", 2**40) + b"abcdefgh"]),
        "a metadata key needs 1099511627776 bytes",
    ),
    "type": (gguf(fields=[field("k", 77, b"")]), "`k` has the unknown type 77"),
    "array": (
        gguf(fields=[field("k", ARRAY, struct.pack("<IQ", U32, 2**61))]),
        "the array `k` needs",
    ),
    "strings": (
        gguf(fields=[field("k", ARRAY, struct.pack("<IQ", STRING, 2**50))]),
        "strings does not fit",
    ),
    "twice": (gguf(fields=[field("k", U32, bytes(4))] * 2), "metadata key `k` appears twice"),
    "alignment": (
        gguf(fields=[field("general.alignment", U32, struct.pack("<I", 24))]),
        "is 24, expected a power of two",
    ),
    "dimensions": (gguf([tensor(shape=(1,) * 5)]), "has 5 dimensions, expected 1 to 4"),
    "zero": (gguf([tensor(shape=(0, 8))]), "has the invalid shape (0, 8)"),
    "huge": (gguf([tensor(shape=(2**31, 2**32))]), "has the invalid shape"),
    "row": (gguf([tensor(shape=(2, 33), kind=8)]), "not a multiple of 32"),
    "same": (gguf([tensor(), tensor(offset=32)]), "tensor `t.weight` appears twice"),
    "unaligned": (gguf([tensor(offset=4)]), "starts at 4, not a multiple of 32"),
    "overlap": (gguf([tensor("a", (16,)), tensor("b", offset=32)]), "tensors `a` and `b` overlap"),
    "end": (gguf([tensor(shape=(64,))]), "`t.weight` ends at byte"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, tmp_path: Path) -> None:
    data, message = BROKEN[name]
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        read_gguf(path)
    assert caught.value.message.startswith(f"`{path}` is not a valid GGUF file: ")
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gguf(version=1), "GGUF version 1"),
        (gguf(version=3 << 24), r"GGUF version 50331648 \(big-endian\?\)"),
        (gguf([tensor(shape=(256,), kind=24)], data=512), "has the unsupported format I8"),
        (gguf([tensor(kind=99)]), "has the unsupported format type 99"),
        (gguf([tensor(kind=31)]), "has the unsupported format Q4_0_4_4"),
        (gguf([tensor(kind=139)]), "has the unsupported format IQ4_K"),
    ],
)
def test_unsupported_files_are_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(UnsupportedError, match=message):
        read_gguf(path)


def written(path: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A file that gguf-py wrote, with a metadata value of every type, and its tensors."""
    writer = GGUFWriter(path, "llama")
    for number, add in enumerate(
        (
            writer.add_uint8, writer.add_int8, writer.add_uint16, writer.add_int16,
            writer.add_uint32, writer.add_int32, writer.add_uint64, writer.add_int64,
            writer.add_float32, writer.add_float64,
        )
    ):  # fmt: skip
        add(f"n{number}", 7)
    writer.add_bool("flag", True)
    writer.add_string("text", "héllo")
    writer.add_array("strings", ["a", "", "é"])
    writer.add_array("numbers", [1, -2, 3])
    tensors = {
        "f": rng.normal(size=(3, 5)).astype(np.float32),
        "h": rng.normal(size=(2, 3, 4)).astype(np.float16),
        "q": rng.integers(0, 256, (4, 34), dtype=np.uint8),
    }
    for name, array in tensors.items():
        raw = GGMLQuantizationType.Q8_0 if name == "q" else None
        writer.add_tensor(name, array, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_files_written_by_gguf_py_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    tensors = written(path, np.random.default_rng(0))
    file = read_gguf(path)
    assert {name: e.shape for name, e in file.tensors.items()} == {
        "f": (3, 5), "h": (2, 3, 4), "q": (4, 32)
    }  # fmt: skip
    assert {name: e.format for name, e in file.tensors.items()} == {
        "f": "F32",
        "h": "F16",
        "q": "Q8_0",
    }
    for name, array in tensors.items():
        assert file.tensors[name].data.tobytes() == array.tobytes()
    expected = GGUFReader(path).fields
    for key, found in file.metadata.items():
        assert found.value == expected[key].contents(), key


@FAST
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    if not whole.exists():
        written(whole, np.random.default_rng(0))
    damaged = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, min(700, len(damaged) - 1)))] = data.draw(
            st.integers(0, 255)
        )
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        file = read_gguf(path)
    except FewbitError as error:
        refused = error.message
    else:
        refused = "tensor" if all(entry.data.size for entry in file.tensors.values()) else ""
    assert str(path) in refused or "tensor" in refused


@FAST
@given(junk=st.binary(max_size=300))
def test_junk_behind_the_magic_number_never_crashes(junk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + junk)
    with contextlib.suppress(FewbitError):
        read_gguf(path)


def test_tensors_are_ordered_as_llama_quantize_does() -> None:
    names = ["blk.10.a", "output.weight", "blk.2.b", "blk.2.a", "blkx", "token_embd.weight"]
    assert sorted(names, key=sort_key) == [
        "blkx", "output.weight", "token_embd.weight", "blk.2.a", "blk.2.b", "blk.10.a"
    ]  # fmt: skip

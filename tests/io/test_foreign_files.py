"""Files of other writers: shapes filled with ones, odd bytes, empty arrays; files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFValueType
from numpy.typing import NDArray

import fewbit
from fewbit.errors import FileFormatError, InputError
from fewbit.files.gguf import Field, GgufFile, read_gguf
from fewbit.files.safetensors import read_safetensors
from tests.golden.loading import MODELS
from tests.io.test_gguf import ARRAY, STRING, U32, field, gguf, tensor

IDS = [1, 5, 9, 70, 40, 3]
ODD = b"\xff\xfe Mod\xe8le"


def logits(path: Path) -> NDArray[np.float32]:
    return fewbit.load(path, device="cpu", threads=1).logits(IDS, acts="f32")


def saved(source: Path, target: Path) -> GgufFile:
    model = fewbit.load(source, device="cpu", threads=1)
    model.quantize("Q8_0", requantize=True).save(target)
    return read_gguf(target)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "llama.gguf"
    saved(MODELS / "llama", path)
    return path


def with_field(path: Path, target: Path, added: bytes) -> Path:
    """A copy of `path` with one more metadata value, whose size must keep the alignment."""
    data = path.read_bytes()
    assert len(added) % 32 == 0
    count = int.from_bytes(data[16:24], "little") + 1
    target.write_bytes(data[:16] + count.to_bytes(8, "little") + added + data[24:])
    return target


def padded_key(start: str, size: int) -> str:
    """A key that begins with `start` and makes the field a multiple of 32 bytes long."""
    return start + "x" * (-(8 + len(start) + 4 + size) % 32)


@pytest.mark.parametrize(
    ("name", "written", "expected"),
    [
        ("a.weight", (1, 1, 4, 8), (4, 8)),
        ("a.weight", (1, 1, 1, 8), (8,)),
        ("a.weight", (1, 8), (1, 8)),
        ("a.weight", (2, 1, 8), (2, 1, 8)),
        ("blk.0.ffn_up_exps.weight", (1, 1, 4, 8), (1, 4, 8)),
    ],
)
def test_outer_ones_are_no_dimensions(
    name: str, written: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf([tensor(name, written)], data=256))
    assert read_gguf(path).tensors[name].shape == expected


@pytest.mark.parametrize("items", [[], [ODD, b"plain"]])
def test_arrays_of_strings_come_through_a_save(
    items: list[bytes], llama: Path, tmp_path: Path
) -> None:
    body = b"".join(len(text).to_bytes(8, "little") + text for text in items)
    value = STRING.to_bytes(4, "little") + len(items).to_bytes(8, "little") + body
    key = padded_key("general.tags", len(value))
    source = with_field(llama, tmp_path / "in.gguf", field(key, ARRAY, value))
    texts = [text.decode(errors="surrogateescape") for text in items]
    expected = Field(texts, GGUFValueType.ARRAY, GGUFValueType.STRING)
    assert read_gguf(source).metadata[key] == expected
    assert saved(source, tmp_path / "out.gguf").metadata[key] == expected
    assert value in (tmp_path / "out.gguf").read_bytes()


def test_text_that_is_not_utf8_keeps_its_bytes(llama: Path, tmp_path: Path) -> None:
    value = len(ODD).to_bytes(8, "little") + ODD
    key = padded_key("general.author", len(value))
    source = with_field(llama, tmp_path / "in.gguf", field(key, STRING, value))
    saved(source, tmp_path / "out.gguf")
    assert value in (tmp_path / "out.gguf").read_bytes()
    np.testing.assert_array_equal(logits(source), logits(llama))


def test_an_empty_array_of_numbers_is_written(llama: Path, tmp_path: Path) -> None:
    value = U32.to_bytes(4, "little") + bytes(8)
    key = padded_key("general.numbers", len(value))
    source = with_field(llama, tmp_path / "in.gguf", field(key, ARRAY, value))
    found = saved(source, tmp_path / "out.gguf").metadata[key]
    assert found == Field([], GGUFValueType.ARRAY, GGUFValueType.UINT32)


@pytest.mark.parametrize("read", [read_gguf, read_safetensors])
def test_pointers_of_git_lfs_are_named(read: object, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n")
    assert callable(read)
    with pytest.raises(FileFormatError, match="is a Git LFS pointer"):
        read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    with pytest.raises(InputError, match="is a pipe or a device"):
        read_gguf(path)

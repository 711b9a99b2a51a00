"""Numbers of a header that size loops are held against the file before anything runs to them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

import fewbit
from fewbit.files.gguf import read_gguf
from tests.golden.loading import asset

HUGE = (1 << 31) - 1
UINT32 = 4


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The demo as a GGUF file."""
    path = tmp_path_factory.mktemp("header") / "m.gguf"
    fewbit.load("demo", "cpu").save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("llama.block_count", "layers"),
        ("llama.rope.dimension_count", "elements a head"),
    ],
)
def test_a_huge_number_in_gguf(key: str, what: str, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(saved)
    value = read_gguf(path).metadata[key].value
    place = key.encode() + struct.pack("<II", UINT32, value)
    assert saved.count(place) == 1
    path.write_bytes(saved.replace(place, key.encode() + struct.pack("<II", UINT32, HUGE)))
    with pytest.raises(fewbit.FileFormatError) as caught:
        fewbit.load(path, "cpu")
    assert f"cannot have 2,147,483,647 {what}" in caught.value.message


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"num_hidden_layers": HUGE}, "2,147,483,647 layers"),
        ({"num_hidden_layers": 1 << 70}, "layers"),
        ({"head_dim": HUGE}, "2,147,483,647 elements a head"),
        ({"head_dim": None, "hidden_size": HUGE}, "elements a head"),
        ({"sliding_window": 8, "num_hidden_layers": HUGE, "model_type": "mistral"}, "layers"),
    ],
)
def test_a_huge_number_in_config_json(values: dict[str, object], what: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(asset("llama", "config.json").parent, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(fewbit.FileFormatError, match=what):
        fewbit.load(folder, "cpu")

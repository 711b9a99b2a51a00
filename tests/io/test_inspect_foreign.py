"""`inspect` lists GGUF files that fewbit cannot run, and says what is the matter."""

from __future__ import annotations

from pathlib import Path

import pytest

import fewbit
from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.reports.contents import metadata
from tests.io.test_gguf import STRING, field, gguf, tensor, text


def named(architecture: str) -> bytes:
    return field("general.architecture", STRING, text(architecture))


FILES = {
    "an unknown architecture": (gguf([tensor()], [named("olmo9")]), "olmo9", ["t.weight"]),
    "a vocabulary alone": (gguf([], [named("llama")]), "attention.head_count", []),
    "an adapter": (
        gguf([tensor("a.lora_a", (2, 4)), tensor("a.lora_b", (4, 2), offset=32)], [named("llama")]),
        "attention.head_count",
        ["a.lora_a", "a.lora_b"],
    ),
    "no metadata": (gguf([tensor()]), "architecture", ["t.weight"]),
}


@pytest.mark.parametrize("name", FILES)
def test_any_gguf_is_listed(name: str, tmp_path: Path) -> None:
    data, problem, tensors = FILES[name]
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    found = fewbit.inspect(path)
    assert [t.name for t in found.tensors] == tensors
    assert (found.config, found.tokenizer) == (None, {})
    assert len(found.problems) == 1
    assert problem in found.problems[0]
    assert found.problems[0] in str(found)
    with pytest.raises((FileFormatError, UnsupportedError)):
        fewbit.load(path)


def test_a_damaged_file_is_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf([tensor(shape=(64,))]))
    with pytest.raises(FileFormatError, match="ends at byte"):
        fewbit.inspect(path)


def test_every_metadata_key_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    numbers = (4).to_bytes(4, "little") + (6).to_bytes(8, "little") + bytes(24)
    odd = field("general.author", STRING, (1).to_bytes(8, "little") + b"\xe8")
    path.write_bytes(gguf([], [named("olmo9"), field("x.numbers", 9, numbers), odd]))
    found = metadata(path)
    assert found.types == {
        "general.architecture": "STRING", "x.numbers": "UINT32 list", "general.author": "STRING"
    }  # fmt: skip
    assert found.values == {
        "general.architecture": "olmo9", "x.numbers": [0] * 6, "general.author": r"\xe8"
    }  # fmt: skip
    assert "[0, 0, 0, 0] and 2 more" in str(found)
    assert all(key in str(found) for key in found.types)

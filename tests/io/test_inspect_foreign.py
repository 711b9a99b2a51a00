"""`inspect` lists GGUF files that fewbit cannot run, and says what is the matter."""

from __future__ import annotations

from pathlib import Path

import pytest

import fewbit
from fewbit.errors import FileFormatError, UnsupportedError
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

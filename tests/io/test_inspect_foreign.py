"""`inspect` lists GGUF files that fewbit cannot run, and says what is the matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import fewbit
from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.gguf import read_gguf
from fewbit.files.tensor_file import open_tensors
from fewbit.reports.contents import metadata
from fewbit.reports.distributions import distributions
from tests import foreign_files
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


@pytest.mark.parametrize(
    ("write", "problem", "first"),
    [
        (foreign_files.vocabulary, "attention.head_count", None),
        (foreign_files.adapter, "attention.head_count", "blk.0.attn_q.weight.lora_a"),
        (foreign_files.projector, "unknown architecture `clip`", "v.blk.0.attn_q.weight"),
        (foreign_files.importance, "architecture", "blk.0.attn_q.weight.in_sum2"),
    ],
)
def test_files_that_are_no_models_are_listed(
    write: Callable[[Path], Path], problem: str, first: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.gguf")
    found = fewbit.inspect(path)
    assert problem in found.problems[0]
    assert [t.name for t in found.tensors][:1] == ([first] if first else [])
    assert metadata(path).values
    if first:
        (one,) = distributions(open_tensors(path, damaged=True), f"^{first}$")
        assert one.name == first
        values = read_gguf(path).tensors[first].data.view("<f4")
        assert (one.min, one.max) == (values.min(), values.max())

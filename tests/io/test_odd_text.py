"""Keys, strings and names that are not UTF-8, and arrays of arrays: read, shown, written again."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.cli import main as cli
from fewbit.errors import FileFormatError
from fewbit.files.gguf import MAX_NESTING, Field, read_gguf
from fewbit.files.gguf_types import GGUFValueType
from fewbit.reports.contents import metadata
from tests import foreign_files
from tests.io.test_gguf import ARRAY, U32, field, gguf

T = GGUFValueType
LATIN = b"Mod\xe8le".decode(errors="surrogateescape")
NESTED = Field(
    [
        Field([1, 2], T.ARRAY, T.UINT8),
        Field([], T.ARRAY, T.INT32),
        Field([LATIN, ""], T.ARRAY, T.STRING),
        Field([Field([0.5], T.ARRAY, T.FLOAT64)], T.ARRAY, T.ARRAY),
    ],
    T.ARRAY,
    T.ARRAY,
)
ODD = {
    f"x.{LATIN}": Field(7, T.UINT16), "x.nested": NESTED, "x.text": Field(LATIN, T.STRING),
    "x.list": Field([LATIN, "b"], T.ARRAY, T.STRING), "x.flags": Field([True], T.ARRAY, T.BOOL),
    "x.empty": Field([], T.ARRAY, T.FLOAT32),
}  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(4, 64))
    return foreign_files.write(tmp_path / "odd.gguf", ODD, {f"{LATIN}.weight": values})


def test_odd_text_is_copied_byte_for_byte(odd: Path, tmp_path: Path) -> None:
    assert read_gguf(odd).metadata == ODD
    fewbit.quantize_file(odd, tmp_path / "out.gguf", "Q8_0")
    found = read_gguf(tmp_path / "out.gguf")
    assert {key: found.metadata[key] for key in ODD} == ODD
    assert list(found.tensors) == [f"{LATIN}.weight"]
    fields = odd.read_bytes()
    start, stop = fields.index(b"x.Mod\xe8le"), fields.index(b"Mod\xe8le.weight") - 8
    assert fields[start:stop] in (tmp_path / "out.gguf").read_bytes()


def test_odd_text_is_shown_escaped(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = metadata(odd)
    assert found.types[r"x.Mod\xe8le"] == "UINT16"
    assert found.types["x.nested"] == "ARRAY list"
    assert found.values["x.nested"] == [[1, 2], [], [r"Mod\xe8le", ""], [[0.5]]]
    for options in ([], ["--metadata"], ["--tensor", "weight"], ["--json"]):
        assert cli.run(["inspect", str(odd), *options]) == 0
        capsys.readouterr().out.encode()
    out = odd.with_name("o.gguf")
    assert cli.run(["quantize", str(odd), str(out), "-f", "Q8_0", "--dry-run"]) == 0
    assert cli.run(["quantize", str(odd), str(out), "-f", "Q8_0"]) == 0
    assert cli.run(["verify", str(out), "--source", str(odd)]) == 0
    assert r"Mod\xe8le.weight" in capsys.readouterr().out


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """By its depth, before recursion ends in Python."""
    level = struct.pack("<IQ", ARRAY, 1)
    whole = tmp_path / "deep.gguf"
    end = struct.pack("<IQ", U32, 1) + bytes(4)
    whole.write_bytes(gguf(fields=[field("k", ARRAY, level * (MAX_NESTING - 1) + end)]))
    assert read_gguf(whole).metadata["k"].item == T.ARRAY
    whole.write_bytes(gguf(fields=[field("k", ARRAY, level * 100_000 + end)]))
    with pytest.raises(FileFormatError, match=f"more than {MAX_NESTING} levels"):
        read_gguf(whole)
    whole.write_bytes(gguf(fields=[field("k", ARRAY, struct.pack("<IQ", ARRAY, 2**50))]))
    with pytest.raises(FileFormatError, match="arrays does not fit"):
        read_gguf(whole)

"""Models written in pieces: names, keys, sizes, all of the files or none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.cli import main as cli
from fewbit.convert.split import Split, piece_paths, split_of
from fewbit.errors import FormatError, InputError
from fewbit.files import replace
from fewbit.files.gguf import read_gguf
from fewbit.files.gguf_pieces import read_pieces
from fewbit.files.gguf_types import GGUFValueType
from fewbit.files.replace import replacing_all
from tests.golden.loading import MODELS
from tests.saved_llama import changed

Captured = pytest.CaptureFixture[str]
LLAMA = MODELS / "llama"


def save(path: Path, **options: object) -> list[Path]:
    model = fewbit.load(LLAMA, device="cpu").quantize("Q4_0")
    return model.save(path, **options)  # type: ignore[arg-type]


def test_pieces_have_the_keys_of_gguf_split(tmp_path: Path) -> None:
    (whole,) = save(tmp_path / "whole.gguf")
    paths = save(tmp_path / "m.gguf", split_max_tensors=8)
    count = len(paths)
    assert [p.name for p in paths] == [
        f"m-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)
    ]
    expected = read_gguf(whole)
    for number, path in enumerate(paths):
        found = read_gguf(path)
        keys = ["split.no", "split.count", "split.tensors.count"]
        own = list(expected.metadata) if number == 0 else []
        assert list(found.metadata) == own + keys
        fields = [found.metadata[key] for key in keys]
        assert [f.value for f in fields] == [number, count, len(expected.tensors)]
        types = [GGUFValueType.UINT16, GGUFValueType.UINT16, GGUFValueType.INT32]
        assert [f.type for f in fields] == types
        assert len(found.tensors) == 8 or number == count - 1
    joined = read_pieces(paths[0])
    assert list(joined.tensors) == list(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert joined.tensors[name].data.tobytes() == tensor.data.tobytes()


def test_a_model_in_pieces_is_the_model(tmp_path: Path) -> None:
    (whole,) = save(tmp_path / "whole.gguf")
    paths = save(tmp_path / "m.gguf", split_max_size="64K")
    assert len(paths) > 2
    models = (fewbit.load(path, device="cpu") for path in (whole, paths[1]))
    expected, found = (model.logits([1, 2, 3]) for model in models)
    np.testing.assert_array_equal(found, expected)
    checked = fewbit.verify(paths[0], LLAMA, rows="all")
    assert checked.ok
    assert {t.piece for t in checked.tensors} == {path.name for path in paths}


def test_the_size_of_a_piece_is_that_of_its_tensors(tmp_path: Path) -> None:
    paths = save(tmp_path / "m.gguf", split_max_size="64K")
    sizes = []
    for path in paths:
        tensors = read_gguf(path).tensors.values()
        sizes.append(sum(-(-t.data.size // 32) * 32 for t in tensors))
        assert sizes[-1] <= 64_000 or len(tensors) == 1
    first_of_next = [next(iter(read_gguf(p).tensors.values())).data.size for p in paths[1:]]
    assert all(a + b > 64_000 for a, b in zip(sizes, first_of_next, strict=False))


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    paths = save(tmp_path / "m.gguf", split_max_tensors=8)
    tensor = next(t for t in read_gguf(paths[1]).tensors.values() if t.format == "Q4_0")
    changed(paths[1], paths[1], {tensor.offset: paths[1].read_bytes()[tensor.offset] ^ 1})
    found = fewbit.verify(paths[0], LLAMA, rows="all")
    assert not found.ok
    assert f"of `{paths[1].name}`" in str(found)


def test_one_piece_is_numbered_too(tmp_path: Path) -> None:
    (path,) = save(tmp_path / "m.gguf", split_max_tensors=1000)
    assert path.name == "m-00001-of-00001.gguf"
    assert fewbit.load(path).config.architecture == "llama"


@pytest.mark.parametrize(
    ("size", "found"), [("2G", 2 * 10**9), ("500m", 5 * 10**8), ("1.5K", 1500), ("4 GB", 4 * 10**9)]
)
def test_sizes(size: str, found: int) -> None:
    assert split_of(size, 3) == Split(found, 3)


@pytest.mark.parametrize("size", ["2", "G", "-1G", "2Q", "", "0G"])
def test_sizes_that_are_refused(size: str) -> None:
    with pytest.raises(InputError, match=r"split-max-size|cannot have 0 bytes"):
        split_of(size, None)
    with pytest.raises(InputError, match="cannot have 0 tensors"):
        split_of(None, 0)


def test_names_of_pieces() -> None:
    assert piece_paths(Path("a/m-00002-of-00009.gguf"), 1) == [Path("a/m-00001-of-00001.gguf")]
    assert piece_paths(Path("m.x"), 1) == [Path("m.x-00001-of-00001.gguf")]


def test_the_command(tmp_path: Path, capsys: Captured) -> None:
    words = ["quantize", "demo", str(tmp_path / "d.gguf"), "-f", "Q4_0", "--split-max-size", "1M"]
    assert cli.run([*words, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    assert cli.run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    files = sorted(map(str, tmp_path.iterdir()))
    assert planned["pieces"] == found["pieces"] == files
    assert found["bytes"] == sum(Path(f).stat().st_size for f in files)
    assert cli.run(["verify", files[0]]) == 0
    capsys.readouterr()
    again = ["quantize", files[0], str(tmp_path / "d.gguf"), "-f", "Q4_0", "--split-max-size", "1M"]
    before = [Path(f).read_bytes() for f in files]
    assert cli.run(again) == 1
    assert "is an input of this command" in capsys.readouterr().err
    assert cli.run([*again, "--force"]) == 0
    assert [Path(f).read_bytes() for f in files] == before


def test_a_failure_leaves_the_old_pieces(tmp_path: Path) -> None:
    paths = save(tmp_path / "m.gguf", split_max_tensors=8)
    before = [path.read_bytes() for path in paths]
    model = fewbit.load(LLAMA, device="cpu")
    values = {n: model.tensor(n) for n in model.formats}
    broken = model.checkpoint.tensors["blk.1.ffn_up.weight"]
    rows = np.full_like(values["blk.1.ffn_up.weight"], np.nan).view(np.uint8)
    object.__setattr__(broken, "read", lambda: rows)
    object.__setattr__(broken, "format", "F32")
    object.__setattr__(broken, "read_rows", None)
    with pytest.raises(FormatError, match="not finite"):
        model.quantize("Q8_0").save(tmp_path / "m.gguf", split_max_tensors=8)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5, 6])
def test_a_failing_rename_brings_the_old_files_back(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(f"old {path.name}")
    calls, rename = [], Path.replace

    def refuse(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == failing:
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(replace.Path, "replace", refuse)
    with pytest.raises(OSError, match="no"), replacing_all(paths):
        pass
    assert [path.read_text() for path in paths] == ["old a", "old b", "old c"]
    assert sorted(tmp_path.iterdir()) == paths

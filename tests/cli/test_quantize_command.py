"""`fewbit quantize`: names of its files, inputs it must not replace, its summary, dry runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from fewbit.cli import main as cli
from fewbit.cli.outputs import output_paths
from fewbit.demo import DEMO, demo_text
from fewbit.errors import FormatError, InputError
from fewbit.files.gguf import read_gguf

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("demo", "demo-Q4_K_M.gguf"),
        ("models/tiny-F16.gguf", "tiny-Q4_K_M.gguf"),
        ("models/tiny.bf16.gguf", "tiny-Q4_K_M.gguf"),
        ("big-00001-of-00003.gguf", "big-Q4_K_M.gguf"),
        ("owner/Some-Model", "Some-Model-Q4_K_M.gguf"),
        (".", "{here}-Q4_K_M.gguf"),
    ],
)
def test_default_names(model: str, name: str, tmp_path: Path) -> None:
    assert output_paths(None, model, ["q4_k_m"]) == [Path(name.format(here=tmp_path.name))]


def test_names_of_several_formats() -> None:
    pattern = Path("out/x-{format}.gguf")
    assert output_paths(pattern, "demo", ["q8_0", "Q4_K"]) == [
        Path("out/x-Q8_0.gguf"),
        Path("out/x-Q4_K_M.gguf"),
    ]
    with pytest.raises(InputError, match=r"2 formats, but one file to write: `out\.gguf`"):
        output_paths(Path("out.gguf"), "demo", ["Q8_0", "Q4_0"])
    with pytest.raises(InputError, match="a format is named twice: Q4_K_M, Q4_K_M"):
        output_paths(None, "demo", ["Q4_K", "Q4_K_M"])
    with pytest.raises(FormatError, match="did you mean `Q4_K_M`"):
        output_paths(None, "demo", ["Q4KM"])


def test_several_formats_in_one_call(capsys: Captured) -> None:
    assert cli.run(["quantize", "demo", "-f", "Q8_0", "-f", "q4_0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert files() == ["demo-Q4_0.gguf", "demo-Q8_0.gguf"]
    assert [(one["path"], one["format"]) for one in found] == [
        ("demo-Q8_0.gguf", "Q8_0"),
        ("demo-Q4_0.gguf", "Q4_0"),
    ]
    assert [one["bytes"] for one in found] == [Path(one["path"]).stat().st_size for one in found]
    assert {one["source"]["bytes"] for one in found} == {8_393_216}
    assert all(one["seconds"] > 0 for one in found)


def test_all_formats_are_checked_before_the_first_is_written(capsys: Captured) -> None:
    assert cli.run(["quantize", "demo", "-f", "Q8_0", "-f", "IQ2_XXS"]) == 1
    assert "without an importance matrix" in capsys.readouterr().err
    assert files() == []


def test_tensors_that_leave_their_recipe_are_named(capsys: Captured) -> None:
    line = "quantize demo -f Q4_K_M --tensor-type attn_q=Q8_0 --tensor-type blk.0.ffn_up=Q6_K"
    assert cli.run(line.split()) == 0
    note = capsys.readouterr().err.splitlines()[1]
    assert note.startswith("not as Q4_K_M has it, 5 tensors: ")
    assert "blk.0.attn_q.weight is Q8_0, not Q4_K; " in note
    assert note.endswith("; 2 more (`--json` lists all)")
    assert cli.run([*line.split(), "--json", "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)["deviations"]
    assert len(found) == 5
    assert found["blk.0.ffn_up.weight"] == {"recipe": "Q4_K", "format": "Q6_K"}


def test_a_dry_run_lists_what_would_be_written(capsys: Captured) -> None:
    assert cli.run(["quantize", "demo", "-f", "Q4_K_M", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert files() == []
    listed = {line.split()[0]: line.split() for line in captured.out.splitlines() if line}
    assert cli.run(["quantize", "demo", "-f", "Q4_K_M"]) == 0
    written = read_gguf(Path("demo-Q4_K_M.gguf")).tensors
    for name, tensor in written.items():
        assert listed[name][2] == tensor.format
        assert int(listed[name][-1].replace(",", "")) == tensor.data.nbytes
    last = captured.out.splitlines()[-1]
    assert re.match(r"demo-Q4_K_M\.gguf: about 2,757,120 bytes, 4,196,608 weights, 5\.26", last)


def test_an_input_is_replaced_only_with_force(capsys: Captured) -> None:
    assert cli.run(["quantize", "demo", "model.gguf", "-f", "F16"]) == 0
    before = Path("model.gguf").read_bytes()
    in_place = ["quantize", "model.gguf", "model.gguf", "-f"]
    Path("link.gguf").symlink_to("model.gguf")
    for output in ("model.gguf", "link.gguf", "./model.gguf"):
        capsys.readouterr()
        assert cli.run(["quantize", "model.gguf", output, "-f", "Q8_0"]) == 1
        assert "is an input of this command and would be replaced" in capsys.readouterr().err
    assert Path("model.gguf").read_bytes() == before
    assert cli.run([*in_place, "Q8_0", "--allow-requantize"]) == 1
    assert cli.run([*in_place, "Q8_0", "--force"]) == 0
    assert read_gguf(Path("model.gguf")).tensors["blk.0.attn_q.weight"].format == "Q8_0"
    # who allows a quantized model to lose more has said it of this file
    assert cli.run([*in_place, "Q4_0", "--allow-requantize"]) == 0


def test_a_file_that_is_no_input_is_replaced() -> None:
    Path("out.gguf").write_text("old")
    assert cli.run(["quantize", "demo", "out.gguf", "-f", "Q8_0"]) == 0
    assert Path("out.gguf").stat().st_size > 1_000_000


def test_files_of_a_model_s_folder_and_matrices_are_inputs(capsys: Captured) -> None:
    shutil.copytree(DEMO, "folder")
    name = next(path.name for path in Path("folder").iterdir() if path.suffix == ".safetensors")
    Path("text.txt").write_text(demo_text())
    matrix = ["imatrix", "--ctx", "64", "--chunks", "1", "--text", "text.txt", "-o"]
    assert cli.run([*matrix, "m.gguf"]) == 0
    for line in (
        ["quantize", "folder", f"folder/{name}", "-f", "Q8_0"],
        ["quantize", "folder", "m.gguf", "-f", "Q8_0", "--imatrix", "m.gguf"],
        [*matrix, "text.txt"],
        [*matrix, f"folder/{name}", "folder"],
    ):
        capsys.readouterr()
        assert cli.run(line) == 1
        assert "is an input of this command" in capsys.readouterr().err

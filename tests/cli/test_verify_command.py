"""`fewbit verify`: its tables, its JSON, its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fewbit.cli import main as cli
from tests.saved_llama import IMATRIX, LLAMA, TENSOR, changed, entry


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(["verify", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, imatrix = saved("Q4_K"), ("--imatrix", str(IMATRIX))
    code, out, err = run(capsys, str(path), "--source", str(LLAMA), *imatrix)
    assert (code, err) == (0, "")
    assert out.rstrip().endswith(f": equal to {LLAMA} encoded again, no impossible values")
    whole = entry(path)
    row, column = divmod(whole.data.size // 2 + 1, whole.data.shape[1])
    place = whole.offset + row * whole.data.shape[1] + 1
    bad = changed(path, tmp_path / "bad.gguf", {place: 0x7C})
    was = path.read_bytes()[place]
    options = (str(bad), "--source", str(LLAMA), *imatrix, "--tensor", "ffn", "--rows", "all")
    code, out, err = run(capsys, *options)
    assert (code, err, column) == (1, "", 1)
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0].split() == ["format", "tensors", "rows", "checked", "differing", "impossible"]
    assert lines[2].split() == ["Q4_K", "6", "1,536", "1,536", "1", "1"]
    assert lines[3].split() == ["F32", "2", "2", "2", "0", "0"]
    head = f"{TENSOR}  Q4_K  256 x 256: "
    at = lines.index(f"{head}1 of 256 rows and 1 of 256 blocks differ; the first:")
    assert lines[at + 1] == (
        f"  row {row}, block 0 (columns 0 to 255), d: "
        f"byte 1 of the block, byte {place:,} of the file"
    )
    assert lines[at + 2].startswith(f"  found 0x7c, expected 0x{was:02x}: d is nan, expected ")
    assert lines[at + 3].startswith("  256 of its 256 values differ, the first in column 0: nan, ")
    at = lines.index(f"{head}`d` is not finite, in 1 block:")
    low = path.read_bytes()[place - 1]
    assert lines[at + 2] == f"  found bytes {low:02x} 7c"
    assert lines[-1] == (
        f"{bad}: 1,538 of 1,538 rows of 8 tensors: "
        f"1 tensor differs from {LLAMA}, 1 tensor with impossible values"
    )


PLACE = {"row", "block", "column", "field", "byte", "offset"}


def test_the_commands_json(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved("Q4_K")
    place = entry(path).offset + 1
    bad = changed(path, tmp_path / "bad.gguf", {place: 0x7C})
    options = ("--source", str(LLAMA), "--imatrix", str(IMATRIX), "--json")
    code, out, err = run(capsys, str(bad), *options)
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert set(found) == {"file", "source", "tensors", "padding", "notes", "ok"}
    assert (found["file"], found["source"], found["ok"]) == (str(bad), str(LLAMA), False)
    (tensor,) = (t for t in found["tensors"] if not t["ok"])
    assert set(tensor) == {
        "name", "format", "shape", "rows", "checked", "blocks", "differing_rows",
        "differing_blocks", "difference", "impossible", "zero", "ok", "piece",
    }  # fmt: skip
    assert set(tensor["difference"]) == PLACE | {
        "found", "expected", "number", "found_number", "expected_number", "found_values",
        "expected_values",
    }  # fmt: skip
    assert tensor["difference"]["offset"] == place
    assert tensor["difference"]["found_number"] is None, "NaN"
    assert len(tensor["difference"]["expected_values"]) == 256
    assert set(tensor["impossible"][0]) == PLACE | {"reason", "found", "blocks"}
    code, out, _ = run(capsys, str(path), "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["source"]) == (0, True, None)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--rows", "few"], "`--rows` takes a number or `all`, got `few`", "as in `--rows 64`"),
        (["--imatrix", "x"], "`--imatrix` is for encoding again", "name the `--source` too"),
    ],
)
def test_wrong_options(
    arguments: list[str],
    message: str,
    hint: str,
    saved: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(capsys, str(saved("Q8_0")), *arguments)
    assert (code, out, err) == (1, "", f"error: {message}\n\nhint: {hint}\n")


def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for word in ("--source", "--imatrix", "--tensor", "--rows", "--threads", "--json"):
        assert word in out
    assert "exit code 1 if anything is wrong" in out

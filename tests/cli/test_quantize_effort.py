"""`fewbit quantize` with more effort, `fewbit calibrate`, and sizes instead of formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewbit.cli import main as cli
from fewbit.cli.sizing import bytes_of
from fewbit.errors import InputError


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_covariances_are_saved_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, out = tmp_path / "c.safetensors", tmp_path / "x.gguf"
    code, text, note = run(
        capsys, "calibrate", "demo", "-o", str(saved), "-t", "demo", "--windows", "4"
    )
    assert code == 0
    assert "covariances of 4 windows of 512 tokens of demo" in text
    assert "windows of 512 tokens are few" in note
    arguments = ("quantize", "demo", str(out), "-f", "Q4_0", "--effort", "good")
    work = ("--work", str(tmp_path / "work"))
    code, text, note = run(capsys, *arguments, "--statistics", str(saved), *work, "--verbose")
    assert code == 0
    assert "blk.0.attn_q.weight" in text
    assert "tensors improved on 4 windows" in note
    first = out.read_bytes()
    code, text, _ = run(capsys, *arguments, "--statistics", str(saved), *work, "--json")
    assert code == 0
    facts = json.loads(text)
    assert facts["improvement"]["effort"] == "good"
    assert facts["improvement"]["gains"][0]["improved"] is True
    assert facts["predicted_kld"] is None
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no format and no size"),
        (("-f", "Q4_0", "--bpw", "4"), "`--format` and `--bpw` both say how large"),
        (("--size", "4GB", "--bpw", "4"), "`--size` and `--bpw` both say how large"),
        (("--size", "4GB", "--pure"), "`--size` chooses all formats by itself"),
        (("-f", "Q4_0", "--effort", "great"), "unknown effort `great`"),
        (("-f", "Q4_0", "--work", "w"), "`--work` is for `--effort good` or `best`"),
        (("-f", "Q4_0", "--windows", "8"), "`--windows` is for `--effort good` or `best`"),
        (
            ("-f", "Q4_0", "--best", "--statistics", "a", "--calibration", "b"),
            "`--statistics` and `--calibration` both say what to calibrate on",
        ),
        (("-f", "Q4_0", "--effort", "good", "--statistics", "none"), "no such file"),
        (("-f", "Q4_0", "--effort", "good", "--calibration", "none"), "no such file"),
    ],
)
def test_contradictions_are_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, text, note = run(capsys, "quantize", "demo", str(tmp_path / "x.gguf"), *arguments)
    assert code == 1
    assert text == ""
    assert message in note
    assert "hint: " in note
    assert not list(tmp_path.iterdir())


def test_an_importance_matrix_and_a_calibration_are_two_things(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    matrix = tmp_path / "i.gguf"
    assert run(capsys, "imatrix", "-o", str(matrix), "--ctx", "64", "--chunks", "2")[0] == 0
    code, _, note = run(
        capsys, "quantize", "demo", str(tmp_path / "x.gguf"), "-f", "Q4_0", "--best", "--imatrix",
        str(matrix),
    )  # fmt: skip
    assert code == 1
    assert "`--effort best` takes no `--imatrix`" in note


@pytest.mark.parametrize(
    ("text", "size"),
    [("4.5GB", 4_500_000_000), ("700 MiB", 700 << 20), ("1k", 1000), ("12", 12), ("2TiB", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-4GB", "4 elephants", "1e9"])
def test_other_texts_are_no_sizes(text: str) -> None:
    with pytest.raises(InputError, match="is not a size in bytes"):
        bytes_of(text)


def test_a_file_of_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.gguf"
    options = ("--size", "2.6MB", "--windows", "8", "--calibration", "demo")
    code, text, note = run(capsys, "quantize", "demo", str(out), *options, "--verbose")
    assert code == 0
    assert "predicted KLD" in note
    assert "attn_output" in text
    assert 0.98 * 2_600_000 < out.stat().st_size <= 2_600_000

"""`fewbit divergence` with base files, and positions of a window."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Fewbit

SHORT = ("--ctx", "64", "--chunks", "2")
Q4 = ("divergence", "demo", "-f", "Q4_0", "--acts", "f32")


@pytest.fixture
def saved(fewbit: Fewbit, tmp_path: Path) -> Path:
    """A folder with base files of both kinds."""
    for name in ("base.kld", "base.fbkld"):
        assert fewbit(*Q4, *SHORT, "--save-base", str(tmp_path / name), "--json").code == 0
    return tmp_path


@pytest.mark.parametrize("name", ["base.kld", "base.fbkld"])
def test_a_file_stands_for_the_base(name: str, saved: Path, fewbit: Fewbit) -> None:
    (expected,) = fewbit(*Q4, *SHORT, "--json").json
    (found,) = fewbit(*Q4, "--base", str(saved / name), "--json").json
    assert found["ppl"] == expected["ppl"]
    near = 1e-3 if name == "base.kld" else 0.05  # 62 rows: a tenth of the file costs more of few
    assert abs(found["kld"]["value"] / expected["kld"]["value"] - 1) < near
    assert found["base_file"]["path"] == str(saved / name)
    assert expected["base_file"] is None
    text = fewbit(*Q4, "--base", str(saved / name)).out
    assert f"base: `{saved / name}`" in text


@pytest.mark.parametrize("name", ["base.kld", "base.fbkld"])
def test_saving_changes_no_number(name: str, fewbit: Fewbit, tmp_path: Path) -> None:
    (expected,) = fewbit(*Q4, *SHORT, "--json").json
    (found,) = fewbit(*Q4, *SHORT, "--save-base", str(tmp_path / name), "--json").json
    del found["sample"], expected["sample"]  # seconds
    assert found == expected


def test_positions(fewbit: Fewbit) -> None:
    ended = fewbit(*Q4, *SHORT, "--by-position")
    assert "33 to 36" in ended.out
    assert "tokens before" in ended.out
    (found,) = fewbit(*Q4, *SHORT, "--json").json
    positions = found["positions"]
    assert [p["start"] for p in positions] == [32, 36, 40, 44, 48, 51, 55, 59]
    assert sum(p["tokens"] for p in positions) == found["sample"]["tokens"]
    mean = sum(p["kld"] * p["tokens"] for p in positions) / 62
    assert abs(mean - found["kld"]["value"]) < 1e-12


def test_inspect_shows_a_base_file(saved: Path, fewbit: Fewbit) -> None:
    found = fewbit("inspect", str(saved / "base.kld"), "--json").json
    assert (found["kind"], found["ctx"], found["windows"]) == ("llama.cpp", 64, 2)
    assert "kept of a row" in fewbit("inspect", str(saved / "base.fbkld")).out


def test_another_text_is_refused(saved: Path, fewbit: Fewbit, tmp_path: Path) -> None:
    same = fewbit(*Q4, "--base", str(saved / "base.kld"), "--text", "demo")
    assert (same.code, same.err) == (0, "")
    (tmp_path / "other.txt").write_text("Once upon a time there was another girl. " * 40, "utf-8")
    command = (*Q4, "--base", str(saved / "base.kld"), "--text", str(tmp_path / "other.txt"))
    ended = fewbit(*command)
    assert ended.code == 1
    assert "error: the text is not that of" in ended.err
    assert "of window 0 is" in ended.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--like", "llama.cpp"), "needs a base file"),
        (("--like", "lama.cpp"), "did you mean `llama.cpp`?"),
        (("--top", "5"), "`--top` needs a file to write"),
        (("--save-base", "{folder}/x.fbkld", "--top", "9999"), "of a vocabulary of 4096"),
        (("--base", "{folder}/base.kld", "--save-base", "x.kld"), "leave one of them out"),
        (("--base", "{folder}/base.fbkld", "--like", "llama.cpp"), "needs all log-prob"),
        (("--base", "{folder}/none.kld"), "none.kld"),
    ],
)
def test_contradictions_are_named(
    options: tuple[str, ...], message: str, saved: Path, fewbit: Fewbit
) -> None:
    ended = fewbit(*Q4, *SHORT, *(option.replace("{folder}", str(saved)) for option in options))
    assert ended.code == 1
    assert message in ended.err
    assert not (saved / "x.fbkld").exists()

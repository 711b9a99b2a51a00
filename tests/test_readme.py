"""The README's lines run as they stand, and its tables say what the program prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fewbit.cli import main as cli
from fewbit.recipes import mixtures

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_the_six_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "Estimate(value=0.0" in printed
    assert (tmp_path / "small.gguf").stat().st_size > 2_000_000


def test_every_command_is_listed() -> None:
    names = {
        command.callback.__name__ for command in cli.app.registered_commands if command.callback
    }
    assert set(re.findall(r"`fewbit (\w+)", README)) >= names


def test_every_mixture_is_listed() -> None:
    (listed,) = re.findall(r"^Mixtures: (.*?), tensor for tensor", README, re.MULTILINE | re.DOTALL)
    assert {*listed.split(), "F32"} == set(mixtures.FILE_TYPES)

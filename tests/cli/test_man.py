"""Manual pages: one per command, with every option, that groff shows without a complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from fewbit.cli import main as cli
from tests.cli.running import Fewbit

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


@pytest.fixture
def pages(fewbit: Fewbit, tmp_path: Path) -> dict[str, str]:
    ended = fewbit("--man", str(tmp_path / "new" / "man1"))
    assert (ended.code, ended.err) == (0, "")
    paths = [Path(line) for line in ended.out.splitlines()]
    return {path.name: path.read_text("utf-8") for path in paths}


def shown(page: str) -> str:
    """The text of a page without fonts and escapes."""
    return (
        re.sub(r"\\f[BIR]", "", page)
        .replace(r"\-", "-")
        .replace(r"\(ga", "`")
        .replace(r"\[u0394]", "Δ")
        .replace(r"\e", "\\")
    )


def test_each_command_has_a_page(pages: dict[str, str]) -> None:
    assert list(pages) == ["fewbit.1", *(f"fewbit-{name}.1" for name in COMMANDS)]
    for name, command in COMMANDS.items():
        assert f"fewbit-{name}(1)" in shown(pages["fewbit.1"])
        page = shown(pages[f"fewbit-{name}.1"])
        for parameter in command.params:
            texts = parameter.opts if parameter.param_type_name == "option" else []
            assert all(text in page for text in texts)
            assert " ".join((parameter.help or "").split()).replace("'", r"\(aq") in page


def test_defaults_and_values(pages: dict[str, str]) -> None:
    page = shown(pages["fewbit-bench.1"])
    assert "--prompt, -p N\nTokens in the prompt. Default: 512." in page
    assert ".B fewbit bench\n[OPTIONS] [MODEL]..." in page


def test_groff_has_no_complaint(pages: dict[str, str], tmp_path: Path) -> None:
    """Where groff is missing, the requests and the escapes are checked alone."""
    for name, page in pages.items():
        for line in page.splitlines():
            if line.startswith((".", "'")):
                assert re.match(r"\.(TH|SH|TP|PP|B|BR)\b", line), (name, line)
        assert not re.search(r"\\(?![f\-([e&])", page), name
        if groff := shutil.which("groff"):
            done = subprocess.run(
                [groff, "-man", "-ww", "-Tutf8"], input=page, capture_output=True, text=True
            )
            assert (done.returncode, done.stderr) == (0, ""), name
            assert "SYNOPSIS" in re.sub(".\b", "", done.stdout)

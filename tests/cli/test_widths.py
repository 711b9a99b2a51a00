"""Pages on terminals of 60, 80 and 120 columns: no line is longer, no number or name is cut."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from fewbit.cli import main as cli

COMMANDS = [
    *("inspect", "formats", "quantize", "verify", "perplexity", "divergence", "compare"),
    *("imatrix", "generate", "chat", "bench", "devices"),
]
SHORT = "--ctx 64 --chunks 2"
PAGES = [
    "-h",
    *(f"{command} -h" for command in COMMANDS),
    "inspect",
    "inspect --plan",
    "inspect {file} --metadata",
    "inspect --tensor blk.0.attn_q",
    "inspect --tensor blk.0.attn_q --block 0 -f Q4_0",
    "inspect --tensor blk.0.attn_q --block 0 -f Q3_K",
    "formats",
    *(f"formats {name}" for name in ("Q4_K", "IQ1_M", "asym3-g64")),
    "quantize demo small.gguf -f Q4_K_M --dry-run",
    "verify {file}",
    f"perplexity --acts both {SHORT}",
    f"divergence -f Q4_0 {SHORT}",
    f"compare -f Q8_0,Q4_K_M {SHORT}",
    f"compare -f Q8_0,asym3-g128 --details {SHORT}",
    "bench demo {file} -p 4 -n 1 -r 1",
    "devices",
]


class Terminal(io.StringIO):
    """A terminal, as far as a program asks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("m") / "m.gguf"
    assert cli.run(["quantize", "demo", str(path), "-f", "Q4_0"]) == 0
    return path


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("line", PAGES)
def test_a_page_fits(
    line: str, columns: int, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert cli.run(shlex.split(line.format(file=file))) == 0
    text = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue())
    assert len(text.splitlines()) > 3
    assert "…" not in text
    assert max(cell_len(shown.rstrip()) for shown in text.splitlines()) <= columns


def test_the_help_of_quantize_lists_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["quantize", "-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith("Q4_K_M")] == [
        ["Q4_K_M", "Q4_K", "4.50", "4.89"]
    ]
    assert sum(line.startswith(("IQ", "Q", "TQ")) for line in lines) > 25

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
    *("inspect", "formats", "explain", "float", "round", "quantize", "verify", "perplexity"),
    *(
        "divergence",
        "compare",
        "sweep",
        "imatrix",
        "outliers",
        "sensitivity",
        "benchmark",
        "evaluate",
        "next",
        "generate",
        "chat",
    ),
    *("plot", "bench", "report", "devices"),
]
QUESTIONS = Path(__file__).parents[1] / "multiple_choice" / "questions.csv"
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
    f"outliers -f Q4_0 --single 1 {SHORT}",
    f"sensitivity -f Q4_0 --by layer --all-but-one {SHORT}",
    "explain",
    *(f"explain {name}" for name in ("block", "super-block", "KLD", "Q4_K", "Q4_K_M", "f32")),
    "float 0.1 -2.5 --as f32,f64,bf16,e2m1,u4 --between -0.5,0.5",
    "round -0.89 0.16 0.08 10 --as asym4,Q4_0,bf16 --network 2,1,2 --outliers 1",
    "quantize demo small.gguf -f Q4_K_M --dry-run",
    "verify {file}",
    f"perplexity --acts both {SHORT}",
    f"divergence -f Q4_0 {SHORT}",
    f"compare -f Q8_0,Q4_K_M {SHORT}",
    f"compare -f Q8_0,asym3-g128 --details {SHORT}",
    f"sweep -f Q4_0 --out cells --dry-run {SHORT}",
    "next House -n 3 -f Q8_0,Q4_0,Q2_K",
    "benchmark {questions} --answer-by likelihood -f original,Q4_0,Q2_K",
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
    assert cli.run(shlex.split(line.format(file=file, questions=QUESTIONS))) == 0
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

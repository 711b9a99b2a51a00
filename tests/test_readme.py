"""The README's lines run as they stand, and its tables say what the program prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.cli import main as cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
RUN = ROOT / "benches" / "runs" / "2026-11-25-zen4-avx512.json"
"""The saved run that the table of speeds shows."""

QUALITY = ROOT / "benches" / "runs" / "2026-12-01-quality.json"
"""The saved run that the table of qualities shows."""


def test_it_stays_short() -> None:
    assert len(README.encode()) <= 9000


def test_the_six_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "Estimate(value=0.0" in printed
    assert (tmp_path / "small.gguf").stat().st_size > 2_000_000


def test_the_parts_of_a_quantized_array() -> None:
    (line,) = re.findall(r"^For an array alone,.*?(?=;)", README, re.MULTILINE | re.DOTALL)
    stored = fewbit.quantize(np.ones((2, 32), np.float32), "Q4_0")
    for name in re.findall(r"`\.(\w+)", line):
        assert hasattr(stored, name), name
    for name in re.findall(r"`fewbit\.(\w+)\(", README):
        assert hasattr(fewbit, name), name


def test_every_command_is_listed() -> None:
    names = {
        command.name or command.callback.__name__
        for command in cli.app.registered_commands
        if command.callback
    }
    assert set(re.findall(r"`fewbit (\w+)", README)) >= names


def test_the_table_of_speeds_is_a_saved_run() -> None:
    programs = ("fewbit", "llama.cpp", "ik_llama.cpp")
    saved: dict[str, list[float]] = {}
    for result in json.loads(RUN.read_text("utf-8"))["results"]:
        saved.setdefault(result["format"], []).extend(result[name] for name in programs)
    rows = re.findall(r"^\| (\w+) \|((?: [\d.]+ \|){6})$", README, re.MULTILINE)
    assert {name: [float(x) for x in cells.split(" |")[:-1]] for name, cells in rows} == saved


def test_the_table_of_quality_is_a_saved_run() -> None:
    saved = [
        [
            result["name"],
            result["format"],
            *(result[kind] for kind in ("plain", "imatrix", "fewbit")),
        ]
        for result in json.loads(QUALITY.read_text("utf-8"))["results"]
        if result["metric"] == "nats" and result["name"] in ("demo", "SmolLM2 135M")
    ]
    rows = re.findall(r"^\| ([^|]+) \| (\w+) \|((?: [\d.]+ \|){3})$", README, re.MULTILINE)
    found = [[name, format_, *map(float, x.split(" |")[:-1])] for name, format_, x in rows]
    assert found == saved


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (ROOT / target).exists(), target

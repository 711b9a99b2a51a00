"""Saved bench runs: every file in benches/runs is well formed, and `table.py` prints Markdown."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches import saved_runs, table

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "benches" / "runs").glob("*.json"))
RUN: dict[str, Any] = {
    "machine": {"cpu": "Test CPU", "isa": "avx2", "cores": 2},
    "date": "2026-12-01",
    "tool versions": {"llama.cpp": "1.0"},
    "threads": 2,
    "results": [
        {"name": "m", "format": "Q8_0", "metric": "tokens/s", "phase": "prompt 512",
         "fewbit": 30.0, "llama.cpp": 10, "ik_llama.cpp": 20},
        {"name": "m", "format": "Q8_0", "metric": "tokens/s", "phase": "generation",
         "fewbit": 9, "llama.cpp": 6, "fraction of read rate": 0.871, "note": "busy"},
        {"name": "m", "format": "Q4_0", "metric": "tokens/s", "phase": "generation", "fewbit": 12},
        {"name": "m", "format": "Q4_0", "metric": "s", "phase": "load",
         "fewbit": [1.5, 2.5], "llama.cpp": 6.0},
    ],
}  # fmt: skip
MARKDOWN = """\
2 cores of Test CPU, avx2; 2 threads; 2026-12-01; llama.cpp 1.0

m, tokens/s:

| format | prompt 512: fewbit | llama.cpp | ik_llama.cpp | ratio | generation: fewbit | llama.cpp \
| fraction of read rate | ratio |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| Q8_0 (busy) | 30.0 | 10 | 20 | 1.50 | 9 | 6 | 87% | 1.50 |
| Q4_0 |  |  |  |  | 12 |  |  |  |

m, s:

| format | load: fewbit | llama.cpp | ratio |
| --- | --- | --- | --- |
| Q4_0 | 1.5 to 2.5 | 6.0 | 3.00 |
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_saved_runs_are_well_formed(path: Path) -> None:
    run = table.load(path)
    assert path.stem.startswith(run["date"] + "-")
    assert saved_runs.text(run) == path.read_text("utf-8")
    identities = [tuple(result[key] for key in table.KEYS) for result in run["results"]]
    assert identities
    assert len(set(identities)) == len(identities)


def test_the_runs_of_the_documentation_are_there() -> None:
    stems = {path.stem for path in FILES}
    assert {"2026-11-25-zen4-avx512", "2026-11-25-zen3-avx2", "2026-12-01-emerald-rapids"} <= stems


def test_tables() -> None:
    table.check(RUN, "RUN")
    assert table.tables(RUN) == MARKDOWN


def test_the_script_prints_every_value_of_a_run() -> None:
    path = ROOT / "benches" / "runs" / "2026-11-25-zen4-avx512.json"
    command = [sys.executable, str(ROOT / "benches" / "table.py"), str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| Q8_0 | 289.7 | 97.5 | 211.7 | 1.37 | 25.2 | 23.8 | 30.0 | 28 | 0.84 |" in printed
    for result in table.load(path)["results"]:
        row = next(row for row in printed.split("\n") if row.startswith(f"| {result['format']} "))
        assert all(f" {result[program]} |" in row for program in table.programs([result]))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["threads"], "2", "`threads` must be a int"),
        (["machine", "cpu"], None, "`cpu` must be a str"),
        (["date"], "yesterday", "Invalid isoformat string"),
        (["results", 0, "phase"], None, "must name name, format, metric, phase"),
        (["results", 0, "fewbit"], 0, "must have a value of fewbit"),
        (["results", 0, "llama.cpp"], "fast", "neither a number nor a range"),
        (["results", 3, "fewbit"], [2, 1], "must have a value of fewbit"),
    ],
)
def test_malformed_runs_are_refused(path: list[Any], value: Any, message: str) -> None:
    run = copy.deepcopy(RUN)
    place = run
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        table.check(run, "RUN")


def test_results_are_appended_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "run.json"
    values = {"fewbit": [1.0, 3.00049, 5.0], "llama.cpp": []}
    first = saved_runs.result("m", "Q8_0", "tokens/s", "generation", values)
    second = saved_runs.result("m", "Q4_0", "tokens/s", "generation", {"fewbit": [7.0]})
    saved_runs.append(path, 2, [first, second])
    saved_runs.append(path, 2, [{**first, "fewbit": 4.0}])
    found = table.load(path)
    assert first["fewbit"] == 3.0
    assert [(r["format"], r["fewbit"]) for r in found["results"]] == [("Q8_0", 4.0), ("Q4_0", 7.0)]
    assert found["machine"]["cpu"]
    with pytest.raises(ValueError, match="has threads 2, this run has 3"):
        saved_runs.append(path, 3, [first])


def test_the_target_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWBIT_BENCH_RUN", raising=False)
    assert saved_runs.target(None) is None
    assert saved_runs.target("here.json") == Path("here.json")
    monkeypatch.setenv("FEWBIT_BENCH_RUN", "auto")
    named = saved_runs.target(None)
    assert named is not None
    assert named.parent == saved_runs.RUNS
    assert named.name.startswith(saved_runs.today())

"""Write results of a bench to a saved run, the JSON files that `table.py` prints.

`pytest ... --save-run FILE` or the environment variable FEWBIT_BENCH_RUN=FILE names the file;
`auto` stands for benches/runs/DATE-CPU.json. Without either nothing is written. A run that exists
is extended; a result with the same name, format, metric and phase is replaced.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benches.table import KEYS, Run, check, load
from fewbit import _core

RUNS = Path(__file__).parent / "runs"


def target(option: str | None) -> Path | None:
    """The file that the option or FEWBIT_BENCH_RUN names; None if neither does."""
    name = option or os.environ.get("FEWBIT_BENCH_RUN")
    if name == "auto":
        cpu = re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-")
        return RUNS / f"{today()}-{cpu}.json"
    return Path(name) if name else None


def append(path: Path, threads: int, results: list[dict[str, Any]]) -> None:
    """Add results to the run in `path`, which begins with this machine's facts.

    Raises ValueError if the file holds a run of another machine, day or number of threads.
    """
    facts = header(threads)
    run = load(path) if path.exists() else {**facts, "results": []}
    for key in ("machine", "date", "threads"):
        if run[key] != facts[key]:
            raise ValueError(f"{path} has {key} {run[key]!r}, this run has {facts[key]!r}")
    run["tool versions"] |= facts["tool versions"]
    merged = {tuple(r[key] for key in KEYS): r for r in [*run["results"], *results]}
    run["results"] = list(merged.values())
    check(run, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(run), "utf-8")


def result(
    name: str, format_: str, metric: str, phase: str, values: dict[str, list[float]], **extra: Any
) -> dict[str, Any]:
    """A result of the median of each program's values, rounded to 4 significant digits.

    A program without values is left out.
    """
    found = {program: rounded(median(v)) for program, v in values.items() if v}
    identity = {"name": name, "format": format_, "metric": metric, "phase": phase}
    return {**identity, **found, **extra}


def rounded(value: float) -> float:
    """The value with 4 significant digits."""
    return float(f"{value:.4g}")


def header(threads: int) -> Run:
    """The facts of a run: machine, date, versions of the programs, threads."""
    cores = len(os.sched_getaffinity(0))
    return {
        "machine": {"cpu": cpu_model(), "isa": _core.isa(), "cores": cores},
        "date": today(),
        "tool versions": versions(),
        "threads": threads,
    }


def versions() -> dict[str, str]:
    """The installed versions of fewbit and of the programs beside it."""
    found = {}
    for tool, package in {"fewbit": "fewbit", "llama.cpp": "llama-cpp-python"}.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[tool] = version if tool == package else f"{package} {version}"
    return found | (
        {"ik_llama.cpp": "built from source"} if "FEWBIT_BENCH_IK" in os.environ else {}
    )


def cpu_model() -> str:
    """The processor's name as the operating system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def today() -> str:
    """The date in UTC."""
    return datetime.now(UTC).date().isoformat()


def text(run: Run) -> str:
    """The run as JSON, a result per line."""
    facts = {key: value for key, value in run.items() if key != "results"}
    lines = ",\n  ".join(json.dumps(r, ensure_ascii=False) for r in run["results"])
    return f'{json.dumps(facts, indent=1)[:-2]},\n "results": [\n  {lines}\n ]\n}}\n'

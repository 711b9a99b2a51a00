"""Print saved runs of the benches as Markdown tables.

    python benches/table.py benches/runs/2026-11-25-zen4-avx512.json...

A saved run is a JSON file: the machine, the date, versions, threads, and a list of results. Each
result has a name, a format, a metric (the unit), a phase, and one value per program, a number or a
range [low, high]. Each name and metric of a run gets a table, with a row per format and a column
per program and phase. "ratio" is fewbit's value over the best other column's, inverted if less is
better.

Needs only the standard library, so that documentation can be built without fewbit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

KEYS = ("name", "format", "metric", "phase")
"""What identifies a result; all are strings."""
EXTRA = ("read GB/s", "fraction of read rate", "fraction of peak", "note")
"""Optional facts about fewbit's value: neither programs nor identity."""
LESS_IS_BETTER = ("s", "ms", "nats", "bits")
"""Metrics whose lower values are better."""

Result = dict[str, Any]
Run = dict[str, Any]


def load(path: Path) -> Run:
    """Read and check a saved run; ValueError names what is wrong."""
    run: Run = json.loads(path.read_text("utf-8"))
    check(run, str(path))
    return run


def check(run: Run, where: str) -> None:
    """Raise ValueError unless the run has the form that the module's docstring describes."""
    kinds = {"machine": dict, "date": str, "tool versions": dict, "threads": int, "results": list}
    for key, kind in kinds.items():
        if not isinstance(run.get(key), kind):
            raise ValueError(f"{where}: `{key}` must be a {kind.__name__}")
    date.fromisoformat(run["date"])
    for key, kind in {"cpu": str, "isa": str, "cores": int}.items():
        if not isinstance(run["machine"].get(key), kind):
            raise ValueError(f"{where}: machine: `{key}` must be a {kind.__name__}")
    for result in run["results"]:
        if not all(isinstance(result.get(key), str) for key in KEYS):
            raise ValueError(f"{where}: {result} must name {', '.join(KEYS)}")
        if not is_value(result.get("fewbit")):
            raise ValueError(f"{where}: {result} must have a value of fewbit")
        if bad := [key for key in programs([result]) if not is_value(result[key])]:
            raise ValueError(f"{where}: {result}: {bad[0]} is neither a number nor a range")


def is_value(value: object) -> bool:
    """Whether it is a positive number or a range of two."""
    if isinstance(value, list):
        return len(value) == 2 and all(map(is_value, value)) and value[0] <= value[1]
    return isinstance(value, int | float) and value > 0


def programs(results: Iterable[Result]) -> list[str]:
    """The programs of the results, in the order in which they first appear."""
    return [key for key in dict.fromkeys(k for r in results for k in r) if key not in KEYS + EXTRA]


def ratio(result: Result) -> float | None:
    """How many times better fewbit is than the best other program; None without another."""
    others = [middle(result[name]) for name in programs([result]) if name != "fewbit"]
    if not others:
        return None
    ours = middle(result["fewbit"])
    return min(others) / ours if result["metric"] in LESS_IS_BETTER else ours / max(others)


def middle(value: float | list[float]) -> float:
    """The value, or the middle of a range."""
    return sum(value) / 2 if isinstance(value, list) else value


def tables(run: Run) -> str:
    """The run as Markdown: a line about the machine, then a table per name and metric."""
    blocks = [describe(run)]
    for name, metric in dict.fromkeys((r["name"], r["metric"]) for r in run["results"]):
        chosen = [r for r in run["results"] if (r["name"], r["metric"]) == (name, metric)]
        blocks.append(f"{name}, {metric}:\n\n{table(chosen)}")
    return "\n\n".join(blocks) + "\n"


def describe(run: Run) -> str:
    """The machine, date, threads, versions and method, in one line."""
    machine = run["machine"]
    words = [f"{machine['cores']} cores of {machine['cpu']}, {machine['isa']}"]
    words += [machine["gpu"]] if "gpu" in machine else []
    words += [f"{run['threads']} threads", run["date"]]
    words += [f"{tool} {version}" for tool, version in run["tool versions"].items()]
    return "; ".join(words) + (f" ({run['method']})" if "method" in run else "")


def table(results: Sequence[Result]) -> str:
    """Results of one name and metric: a row per format, programs side by side for each phase."""
    found = {(r["format"], r["phase"]): r for r in results}
    head, columns = ["format"], []
    for phase in dict.fromkeys(r["phase"] for r in results):
        here = [r for r in results if r["phase"] == phase]
        names = programs(here)
        extras = [key for key in EXTRA if key != "note" and any(key in r for r in here)]
        columns += [(phase, key) for key in [*names, *extras]]
        head += [f"{phase}: {key}" if key == "fewbit" else key for key in [*names, *extras]]
        if len(names) > 1:
            columns.append((phase, "ratio"))
            head.append("ratio")
    rows = [
        [label(name, results), *(cell(found.get((name, phase), {}), key) for phase, key in columns)]
        for name in dict.fromkeys(r["format"] for r in results)
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def label(name: str, results: Iterable[Result]) -> str:
    """A row's first cell: the format, with the notes of its results."""
    notes = dict.fromkeys(r["note"] for r in results if r["format"] == name and "note" in r)
    return name + "".join(f" ({note})" for note in notes)


def cell(result: Result, key: str) -> str:
    """The text of a table's cell."""
    value = ratio(result) if key == "ratio" and result else result.get(key)
    if value is None:
        return ""
    if key == "ratio":
        return f"{value:.2f}"
    if isinstance(value, list):
        return f"{value[0]} to {value[1]}"
    return f"{value:.0%}" if key.startswith("fraction") else str(value)


def main(paths: Sequence[str]) -> None:
    """Print the tables of each run."""
    if not paths:
        sys.exit("name one or more saved runs: python benches/table.py benches/runs/RUN.json")
    print("\n".join(tables(load(Path(path))) for path in paths), end="")


if __name__ == "__main__":
    main(sys.argv[1:])

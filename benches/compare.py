"""Saved runs of `bench_kernels.py` and `bench_generate.py` beside each other, and a roofline.

    python benches/compare.py zen3.json zen5.json --plot roofline.png

A run is what `--benchmark-json FILE` wrote. Of products, the first number is the rate (GB/s of the
weights with few tokens, GMAC/s of a prompt), the second its share of what memory gave or of the
most multiply-adds in the same run. Of whole models it is tokens/s, and the ratio to llama.cpp where
that was there.
The plot (`pip install '.[plots]'`) has multiply-adds a byte of weights across and multiply-adds a
second up: a dot under the slope waits for memory, one under the flat line for arithmetic.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def name(run: dict[str, Any]) -> str:
    """Machine, commit and day."""
    cpu = run["machine_info"].get("cpu", {}).get("brand_raw", "unknown CPU")
    commit = (run.get("commit_info") or {}).get("id") or "no commit"
    return f"{cpu}, {commit[:9]}, {run['datetime'][:10]}"


def results(run: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, float]]:
    """What was measured, in words, and the share or ratio that belongs to it."""
    for bench in run["benchmarks"]:
        facts = bench["extra_info"]
        if "ceiling" in facts:
            share = facts["rate"] / facts["ceiling"]
            key = (facts["format"], facts["isa"], facts["shape"])
            yield key, f"{facts['rate']:.1f} {facts['unit']} ({share:.0%})", share
        elif "tokens_per_second" in facts:
            ours = median(facts["tokens_per_second"][1:])
            theirs = facts.get("llama_cpp", [])[1:]
            ratio = ours / median(theirs) if theirs else float("nan")
            text = f"{ours:.1f} tokens/s" + (f" ({ratio:.2f}x)" if theirs else "")
            yield (bench["params"]["loaded"], "whole model", bench["params"]["name"]), text, ratio


def table(runs: list[dict[str, Any]]) -> Table:
    """A row a measurement, a column a run."""
    found = [{key: text for key, text, _ in results(run)} for run in runs]
    shown = Table("format", "instructions", "what", *map(name, runs))
    for key in dict.fromkeys(key for run in found for key in run):
        shown.add_row(*key, *(run.get(key, "") for run in found))
    return shown


def ceilings(run: dict[str, Any]) -> str:
    """The machine's two limits."""
    facts = run["machine_info"]["fewbit"]
    peaks = ", ".join(f"{isa} {rate:.0f}" for isa, rate in facts["peak_rate"].items())
    return (
        f"{name(run)}: {facts['threads']} threads read {facts['read_rate']:.1f} GB/s and make "
        f"{peaks} GMAC/s"
    )


def plot(runs: list[dict[str, Any]], target: Path) -> None:
    """A panel a run: the roof of its best instruction set, and a dot a product."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(runs), figsize=(7 * len(runs), 5), squeeze=False)
    for run, panel in zip(runs, panels[0], strict=True):
        facts = run["machine_info"]["fewbit"]
        peak, read = facts["peak_rate"][facts["isa"]], facts["read_rate"]
        across = [0.25, peak / read, 2.0**14]  # where memory ends and arithmetic begins
        panel.plot(across, [min(peak, read * x) for x in across], color="0.4")
        for bench in run["benchmarks"]:
            found = bench["extra_info"]
            if found.get("isa") != facts["isa"]:
                continue
            x = 8 / found["bits_per_weight"] * found["tokens"]
            few = found["unit"] == "GB/s"
            y = found["rate"] * x if few else found["rate"]
            panel.plot([x], [y], "o", color="C0" if few else "C1")
            panel.annotate(found["format"], (x, y), fontsize=6, rotation=30)
        panel.set(xscale="log", yscale="log", title=name(run))
        panel.set(xlabel="multiply-adds a byte of weights", ylabel="10^9 multiply-adds a second")
    figure.tight_layout()
    figure.savefig(target, dpi=150)


def main(
    runs: list[Path],
    image: Annotated[Path | None, typer.Option("--plot", help="Draw the roofline there.")] = None,
) -> None:
    """Compare saved runs."""
    loaded = [json.loads(path.read_text("utf-8")) for path in runs]
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(loaded))
    for run in loaded:
        console.print(ceilings(run))
    if image is not None:
        plot(loaded, image)


if __name__ == "__main__":
    typer.run(main)

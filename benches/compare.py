"""Compare saved pytest-benchmark files side by side, and draw a roofline.

    python benches/compare.py zen3.json zen5.json --plot roofline.png

The files come from `--benchmark-json FILE` with bench_kernels.py or bench_generate.py. Of a
product, the first number is the rate (GB/s of weights with few tokens, GMAC/s with a prompt), the
second its fraction of the memory's read rate or the peak rate in the same run. Of a model it is
tokens/s, and the ratio to llama.cpp if that was measured too.

The plot (`pip install '.[plots]'`) shows multiply-adds per second over multiply-adds per byte of
weights. A point below the slope is limited by memory, one below the flat line by arithmetic.
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
    """The processor, commit and date of a file."""
    cpu = run["machine_info"].get("cpu", {}).get("brand_raw", "unknown CPU")
    commit = (run.get("commit_info") or {}).get("id") or "no commit"
    return f"{cpu}, {commit[:9]}, {run['datetime'][:10]}"


def results(run: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, float]]:
    """Yield the key, the text and the fraction or ratio of each result."""
    for bench in run["benchmarks"]:
        facts = bench["extra_info"]
        if "ceiling" in facts:
            fraction = facts["rate"] / facts["ceiling"]
            key = (facts["format"], facts["isa"], facts["shape"])
            yield key, f"{facts['rate']:.1f} {facts['unit']} ({fraction:.0%})", fraction
        elif "tokens_per_second" in facts:
            ours = median(facts["tokens_per_second"][1:])
            theirs = facts.get("llama_cpp", [])[1:]
            ratio = ours / median(theirs) if theirs else float("nan")
            text = f"{ours:.1f} tokens/s" + (f" ({ratio:.2f}x)" if theirs else "")
            yield (bench["params"]["loaded"], "whole model", bench["params"]["name"]), text, ratio


def table(runs: list[dict[str, Any]]) -> Table:
    """A table with a row per result and a column per file."""
    found = [{key: text for key, text, _ in results(run)} for run in runs]
    shown = Table("format", "instructions", "what", *map(name, runs))
    for key in dict.fromkeys(key for run in found for key in run):
        shown.add_row(*key, *(run.get(key, "") for run in found))
    return shown


def ceilings(run: dict[str, Any]) -> str:
    """The machine's read rate and peak rates."""
    facts = run["machine_info"]["fewbit"]
    peaks = ", ".join(f"{isa} {rate:.0f}" for isa, rate in facts["peak_rate"].items())
    return (
        f"{name(run)}: {facts['threads']} threads; read rate {facts['read_rate']:.1f} GB/s; "
        f"peak in GMAC/s: {peaks}"
    )


def plot(runs: list[dict[str, Any]], target: Path) -> None:
    """Draw a panel per file: the roofline of its best instruction set, and a point per product."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(runs), figsize=(7 * len(runs), 5), squeeze=False)
    for run, panel in zip(runs, panels[0], strict=True):
        facts = run["machine_info"]["fewbit"]
        peak, read = facts["peak_rate"][facts["isa"]], facts["read_rate"]
        across = [
            0.25,
            peak / read,
            2.0**14,
        ]  # memory limits left of the middle, arithmetic right of it
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
    image: Annotated[
        Path | None,
        typer.Option("--plot", help="Write the roofline to this image file (default: none)."),
    ] = None,
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

"""Pictures of saved results with matplotlib: the charts of a report as PNG and SVG files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fewbit.plots.figure import color, new_figure, save
from fewbit.reports.charts import SHOWN_PERCENTS
from fewbit.reports.result_files import Results, pareto

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")


def save_pictures(found: Results, folder: Path) -> list[Path]:
    """Write each picture that has data into `folder`, as PNG and as SVG.

    Raises:
        UnsupportedError: matplotlib is not installed.
        OSError: the folder or a file cannot be written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, figure in _figures(found):
        for suffix in SUFFIXES:
            made.append(folder / f"{name}{suffix}")
            save(figure, made[-1])
    return made


def _figures(found: Results) -> Iterator[tuple[str, Figure]]:
    if any(e.bits > 0 and e.kld.value > 0 for e in found.losses):
        yield "size-loss", _sizes(found)
    if any(v > 0 for e in found.losses for _, v in e.percentiles):
        yield "percentiles", _percentiles(found)
    if any(e.positions for e in found.losses):
        yield "positions", _positions(found)
    if found.scores:
        yield "answers", _scores(found)
    if found.speeds:
        yield "speed", _speeds(found)


def _sizes(found: Results) -> Figure:
    figure, (axes,) = new_figure()
    front = pareto(found.losses)
    axes.plot([e.bits for e in front], [e.kld.value for e in front], "--", color=color(0), lw=1)
    for e in found.losses:
        if not (e.bits > 0 and e.kld.value > 0):
            continue
        reach = max(e.kld.high - e.kld.value, 0.0)
        axes.errorbar(
            e.bits, e.kld.value, yerr=[[min(reach, 0.9 * e.kld.value)], [reach]], fmt="o",
            capsize=3, color=color(0 if e in front else 7),
        )  # fmt: skip
        axes.annotate(
            _plain(e.name), (e.bits, e.kld.value), xytext=(6, 5), textcoords="offset points"
        )
    axes.margins(x=0.12)
    axes.set(
        xlabel="bits per weight", ylabel="mean KL divergence (nats per token)", yscale="log",
        title="Loss against size, with the Pareto front",
    )  # fmt: skip
    return figure


def _percentiles(found: Results) -> Figure:
    figure, (axes,) = new_figure()
    for index, e in enumerate(found.losses):
        known = {p: v for p, v in e.percentiles if v > 0}
        shown = [i for i, p in enumerate(SHOWN_PERCENTS) if p in known]
        if shown:
            values = [known[SHOWN_PERCENTS[i]] for i in shown]
            axes.plot(shown, values, "o-", color=color(index), label=_plain(e.title))
    axes.set_xticks(range(len(SHOWN_PERCENTS)), [f"{p:g} %" for p in SHOWN_PERCENTS])
    axes.set(yscale="log", ylabel="KL divergence (nats)", title="Percentiles of tokens")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _positions(found: Results) -> Figure:
    figure, (axes,) = new_figure()
    for index, e in enumerate(found.losses):
        if e.positions:
            middle = [(first + last) / 2 for first, last, _ in e.positions]
            values = [v for *_, v in e.positions]
            axes.plot(middle, values, "o-", color=color(index), label=_plain(e.title))
    axes.set(xlabel="tokens before", ylabel="mean KL divergence (nats)", ylim=(0, None))
    axes.set_title("Divergence by the position in the window")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _scores(found: Results) -> Figure:
    figure, (axes,) = new_figure(height=1.2 + 0.4 * len(found.scores))
    for row, s in enumerate(found.scores):
        f = s.fraction
        if math.isnan(f.value):
            continue
        axes.barh(row, f.value, color=color(0))
        reach = [[max(f.value - f.low, 0.0)], [max(f.high - f.value, 0.0)]]
        axes.errorbar(f.value, row, xerr=reach, color="black", capsize=3)
    axes.set_yticks(range(len(found.scores)), [_plain(s.name) for s in found.scores])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), title="Fraction of correct answers, 95 % Wilson intervals")
    return figure


def _speeds(found: Results) -> Figure:
    tests = list(dict.fromkeys(s.test for s in found.speeds))
    most = max(sum(s.test == test for s in found.speeds) for test in tests)
    figure, panels = new_figure(len(tests), height=1.2 + 0.4 * most)
    for axes, test in zip(panels, tests, strict=True):
        shown = [s for s in found.speeds if s.test == test and s.mean > 0]
        for row, s in enumerate(shown):
            deviation = s.deviation if s.deviation > 0 else 0.0
            axes.barh(row, s.mean, xerr=deviation, color=color(0), capsize=3)
            axes.annotate(
                f"limit: {_plain(s.limit)}", (s.mean + deviation, row), xytext=(6, -3),
                textcoords="offset points",
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [_plain(s.name) for s in shown])
        axes.invert_yaxis()
        axes.margins(x=0.25)
        axes.set(xlim=(0, None), title=f"Tokens per second, {_plain(test)}")
    return figure


def _plain(name: str) -> str:
    """A name in which matplotlib reads no formula, cut to 40 letters."""
    return (name if len(name) <= 40 else name[:39] + "…").replace("$", r"\$")

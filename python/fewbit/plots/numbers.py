"""Pictures of number formats: where their values lie, and what they make of a curve or a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fewbit.errors import FormatError, InputError
from fewbit.floats import number_format
from fewbit.plots.figure import color, new_figure
from fewbit.reports.rounding import RoundedList, round_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 256
"""Intervals of a count: a power of two, so that their edges are values of float formats."""
FINEST_LINE = 12
"""Bits of the widest format whose values are drawn one by one."""


def representable(
    formats: Sequence[str], interval: tuple[float, float] | None = None, log: bool = False
) -> Figure:
    """How many values of each float format lie in each of 256 intervals of [low, high].

    The count is exact. With `log` both axes are logarithmic, low is above zero, and the step of a
    format's density from one power of two to the next is seen.

    Raises:
        FormatError: a format is unknown.
        InputError: there is no format, or the interval is empty or not above zero with `log`.

    """
    low, high = interval or ((1e-6, 1e6) if log else (-2.0, 2.0))
    if not low < high or (log and low <= 0):
        raise InputError(
            f"cannot draw the interval {low:g} to {high:g}",
            hint="the lower bound first, above 0 on a logarithmic axis",
        )
    edges = np.geomspace(low, high, BINS + 1) if log else np.linspace(low, high, BINS + 1)
    kinds = [number_format(name) for name in _some(formats)]
    figure, (panel,) = new_figure()
    for index, kind in enumerate(kinds):
        counts = np.array(kind.histogram(edges), np.float64)
        label = f"{kind.name}: {kind.count_between(low, high):,}"
        panel.stairs(np.where(counts > 0, counts, np.nan), edges, color=color(index), label=label)
    panel.set_yscale("log")
    if log:
        panel.set_xscale("log")
    panel.set(xlabel="value", ylabel=f"values in one of {BINS} intervals")
    panel.set_title(f"Representable values from {low:g} to {high:g}")
    panel.legend(title="values in all", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def number_lines(formats: Sequence[str], interval: tuple[float, float] | None = None) -> Figure:
    """Every value of small formats as a tick on a line, one line per format.

    Raises:
        FormatError: a format is unknown or has more than 12 bits.
        InputError: there is no format.

    """
    kinds = [number_format(name) for name in _some(formats)]
    low, high = interval or (-4.0, 4.0)
    figure, (panel,) = new_figure(height=0.9 + 0.55 * len(kinds))
    for index, kind in enumerate(kinds):
        if kind.bits > FINEST_LINE:
            raise FormatError(
                f"{kind.name} has too many values for a number line",
                hint=f"formats of up to {FINEST_LINE} bits have lines",
            )
        values = kind.values()
        values = values[(values >= low) & (values <= high)]
        panel.axhline(-index, color="#d0d0d0", linewidth=1, zorder=1)
        panel.vlines(values, -index - 0.28, -index + 0.28, color=color(index), linewidth=1.2)
        panel.annotate(
            f"{values.size} of {kind.values().size}", (1.01, -index), va="center", fontsize=8,
            xycoords=("axes fraction", "data"),
        )  # fmt: skip
    panel.set_yticks([-index for index in range(len(kinds))], [kind.name for kind in kinds])
    panel.grid(visible=False)
    panel.set(xlim=(low, high), ylim=(-len(kinds) + 0.4, 0.6), xlabel="value")
    panel.set_title("Each tick is a value of the format")
    return figure


def sine(formats: Sequence[str], factor: float = 1.0) -> Figure:
    """The curve factor * sin(x) in each float format, one panel each.

    A larger factor shows that a float's steps grow with its values, and where a format ends.

    Raises:
        FormatError: a format is unknown.
        InputError: there is no format, or the factor is not above zero.

    """
    if not factor > 0 or not np.isfinite(factor):
        raise InputError(f"a factor is above zero, got {factor:g}", hint="for example 30")
    kinds = [number_format(name) for name in _some(formats)]
    x = np.linspace(0, 2 * np.pi, 2000)
    exact = factor * np.sin(x)
    figure, panels = new_figure(len(kinds), height=2.0, share=True)
    for index, (kind, panel) in enumerate(zip(kinds, panels, strict=True)):
        y = kind.round(exact)
        shown = np.where(np.isfinite(y), y, np.nan)
        levels = np.unique(shown[np.isfinite(shown)]).size
        panel.plot(x, exact, color="#bbbbbb", linewidth=1)
        panel.plot(x, shown, color=color(index), linewidth=1.4, drawstyle="steps-mid")
        past = "" if np.isfinite(y).all() else f", beyond ±{kind.largest:g} infinite"
        panel.set_title(f"{factor:g} sin(x) in {kind.name}: {levels} values{past}")
        panel.margins(x=0)
    panels[-1].set_xlabel("x")
    return figure


def mapping(numbers: Sequence[float], formats: Sequence[str]) -> Figure:
    """Lines from each number to its code's value, one panel for each of `formats`.

    The upper ticks are all values that the codes of the first block stand for.

    Raises:
        FormatError: a format is unknown, or its codes do not stand for evenly spaced values.
        InputError: there are no numbers or no formats.

    """
    found = round_numbers(numbers, formats).lists
    figure, panels = new_figure(len(found), height=2.3)
    for index, (each, panel) in enumerate(zip(found, panels, strict=True)):
        levels = _levels(each)
        panel.vlines(levels, 0.9, 1.0, color=color(index), linewidth=1.2)
        panel.vlines(each.numbers, 0.0, 0.1, color="black", linewidth=1.2)
        for x, y in zip(each.numbers, each.values, strict=True):
            panel.annotate(
                "", (y, 0.88), (x, 0.12),
                arrowprops={"arrowstyle": "->", "color": color(index), "alpha": 0.8},
            )  # fmt: skip
        panel.axvline(0, color="#c8c8c8", linewidth=0.8, zorder=0)
        used = len(set(each.values))
        panel.set_yticks([0.05, 0.95], ["numbers", "codes"])
        panel.grid(visible=False)
        panel.set(ylim=(-0.08, 1.08))
        panel.set_title(
            f"{each.format}: average error {100 * each.mean_relative:.1f} %, "
            f"{used} of {len(levels)} values used"
        )
    return figure


def _levels(found: RoundedList) -> list[float]:
    """All values that codes of the first block stand for."""
    name = found.format.partition("-")[0]
    if not found.blocks or name[:-1] not in ("sym", "asym") or name == "sym1":
        raise FormatError(
            f"the codes of {found.format} are not evenly spaced", hint="`sym4` or `asym4`"
        )
    bits, block = int(name[-1]), found.blocks[0]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if block.zero is None:
        low = -high
    elif "-g" in found.format:
        low, high = 0, 2**bits - 1
    return [(block.scale or 0.0) * (code - (block.zero or 0)) for code in range(low, high + 1)]


def block_sizes(weights: Sequence[float], bits: int = 4) -> Figure:
    """The error of a row of weights by the size of blocks, beside the bits that scales add.

    Raises:
        InputError: there are no weights.
        FormatError: `bits` is not 2 to 8.

    """
    sizes = [n for n in (8, 16, 32, 64, 128, 256, 512, 1024) if n <= len(weights)] or [len(weights)]
    figure, (panel,) = new_figure()
    for index, kind in enumerate(("sym", "asym")):
        found = [round_numbers(weights, [f"{kind}{bits}"], size).lists[0] for size in sizes]
        errors = [float(np.sqrt(np.mean(np.square(each.deltas)))) for each in found]
        costs = [each.bits_per_weight for each in found]
        panel.plot(costs, errors, "o-", color=color(index), label=f"{kind}{bits}")
        for size, cost, error in zip(sizes, costs, errors, strict=True):
            panel.annotate(f"{size}", (cost, error), (4, 4), textcoords="offset points", fontsize=8)
    panel.set_xscale("log", base=2)
    panel.set_xticks([4, 5, 6, 8, 12] if bits == 4 else [bits, bits + 1, bits + 2, bits + 4],
                     [str(v) for v in ([4, 5, 6, 8, 12] if bits == 4 else
                                       [bits, bits + 1, bits + 2, bits + 4])])  # fmt: skip
    panel.minorticks_off()
    panel.set(xlabel="bits per weight, scales included", ylabel="RMS error", ylim=(0, None))
    panel.set_title("Smaller blocks: smaller errors, more bits (labels: weights in a block)")
    panel.legend()
    return figure


def normals(shift: float = 1.0, width: float = 1.0) -> Figure:
    """Two normal curves p and q, the integrand p ln(p/q), and their KL divergence.

    p has mean 0 and deviation 1, q mean `shift` and deviation `width`. The divergence is
    ln(width) + (1 + shift^2) / (2 width^2) - 1/2.

    Raises:
        InputError: `width` is not above zero.

    """
    if not width > 0:
        raise InputError(f"a deviation is above zero, got {width:g}", hint="for example 1.5")
    end = 4 + abs(shift) + 2 * width
    x = np.linspace(-end, end, 1200)
    p = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    q = np.exp(-(((x - shift) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    log = -(x**2) / 2 + ((x - shift) / width) ** 2 / 2 + np.log(width)
    part = p * log
    total = np.log(width) + (1 + shift**2) / (2 * width**2) - 0.5
    figure, (upper, lower) = new_figure(2, height=2.4, share=True)
    upper.plot(x, p, color=color(0), label="p: the original")
    upper.plot(x, q, color=color(1), label=f"q: mean {shift:g}, deviation {width:g}")
    upper.set_title("Two distributions")
    upper.legend()
    lower.fill_between(x, part, where=(part >= 0).tolist(), color=color(2), alpha=0.5)
    lower.fill_between(x, part, where=(part < 0).tolist(), color=color(1), alpha=0.5)
    lower.set_title(f"p ln(p/q): its area is the KL divergence, {total:.3f}")
    return figure


def _some(formats: Sequence[str]) -> Sequence[str]:
    if not formats:
        raise InputError("no format named", hint="for example `f16`, `bf16` or `e4m3fn`")
    return formats

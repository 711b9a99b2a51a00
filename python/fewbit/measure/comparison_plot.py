"""Draw a comparison with matplotlib: KL divergence against bits per weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fewbit.errors import UnsupportedError
from fewbit.measure.comparison_rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot(rows: Sequence[Row]) -> Figure:
    """A point with a 95 % interval for each row whose KL divergence is above 0, int8 activations.

    A line joins the rows than which no other has both fewer bits and less divergence.

    Raises:
        UnsupportedError: matplotlib is not installed.

    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UnsupportedError(
            "plots need matplotlib, which is not installed", hint="pip install 'fewbit[plots]'"
        ) from None
    shown = [row for row in rows if row.fast.kld.value > 0]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    front = pareto(shown)
    for row in shown:
        bits, kld = row.sizes.bits_per_weight, row.fast.kld
        reach = max(kld.interval[1] - kld.value, 0.0)
        axes.errorbar(bits, kld.value, yerr=min(reach, 0.9 * kld.value), fmt="o", capsize=3)
        place, side = ((-6, -12), "right") if row in front else ((6, 4), "left")
        axes.annotate(
            row.format, (bits, kld.value), xytext=place, textcoords="offset points", ha=side
        )
    axes.plot(
        [row.sizes.bits_per_weight for row in front], [row.fast.kld.value for row in front],
        color="0.6", linewidth=1, zorder=0,
    )  # fmt: skip
    axes.margins(x=0.12)
    axes.set(xlabel="bits per weight", ylabel="mean KL divergence (nats per token)")
    if shown:
        axes.set_yscale("log")
    return figure


def pareto(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats in both bits and divergence, by bits."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.sizes.bits_per_weight, row.fast.kld.value)):
        if not front or row.fast.kld.value < front[-1].fast.kld.value:
            front.append(row)
    return front

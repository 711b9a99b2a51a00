"""Empty figures in one style, and files of them. matplotlib is loaded when a figure is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewbit.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS_OF_FILES = (".png", ".svg", ".pdf")
COLORS = ("#1f6feb", "#d1495b", "#2e8b57", "#e09f3e", "#7b5ea7", "#8c564b", "#3a9fa0", "#555555")
_STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e3e3e3", "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False,
    "axes.titlesize": 11, "svg.hashsalt": "fewbit", "svg.fonttype": "none",
}  # fmt: skip


def new_figure(
    rows: int = 1, width: float = 8.0, height: float = 4.2, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` panels below each other, sizes in inches; `share` shares the x axis.

    Raises:
        UnsupportedError: matplotlib is not installed.

    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UnsupportedError(
            "pictures need matplotlib, which is not installed",
            hint="`pip install 'fewbit[plots]'` installs it",
        ) from None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        panels = figure.subplots(rows, 1, squeeze=False, sharex=share)
    return figure, [panels[row, 0] for row in range(rows)]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the suffix of `path`.

    Raises:
        InputError: the suffix is none of these.
        OSError: the file cannot be written.

    """
    if path.suffix.lower() not in KINDS_OF_FILES:
        raise InputError(
            f"`{path}` is not the name of a picture",
            hint=f"names of pictures end with {', '.join(KINDS_OF_FILES)}",
            path=str(path),
        )
    import matplotlib

    facts: dict[str, Any] = {".png": {"Software": None}, ".svg": {"Date": None}}.get(
        path.suffix.lower(), {"CreationDate": None}
    )  # the same picture gives the same bytes
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path, dpi=150, metadata=facts)


def color(index: int) -> str:
    """The color of the series `index`, counted from 0; they repeat."""
    return COLORS[index % len(COLORS)]

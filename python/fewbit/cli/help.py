"""The layout of help: in frames, plainly on narrow terminals; that of quantize lists formats."""

from __future__ import annotations

import shutil
from typing import Any

from typer.core import TyperCommand

from fewbit.reports.format_list import list_formats
from fewbit.reports.write import show

NARROW = 80
"""Columns of text below which frames would cut the names of options."""


class Command(TyperCommand):
    """A command whose help has no frames on a narrow terminal."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        if _is_narrow():
            self.rich_markup_mode = None
        super().format_help(ctx, formatter)


class ListsFormats(Command):
    """A command whose help ends with the formats and mixtures."""

    def get_help(self, ctx: Any) -> str:
        """The help, which the list follows on stdout."""
        text = super().get_help(ctx)
        if text:  # the help of a narrow terminal is not printed yet
            show(text, "")
        show("Formats and mixtures:\n", *list_formats().page())
        return ""


def _is_narrow() -> bool:
    return shutil.get_terminal_size().columns < NARROW

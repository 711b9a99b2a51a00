"""Tables as data, which print in a terminal, show in a notebook, or become Markdown or CSV."""

from __future__ import annotations

import csv
import html
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable

PIPE_WIDTH = 200
"""Columns of text where there is no terminal: nothing may be cut."""


@dataclass
class Table:
    """Rows of text under headings; the first `text` columns are words, the others numbers.

    `gap` is the space between columns. Column `folds`, counted from 1, continues on further lines
    if a terminal is too narrow. If the table is still too wide, each row becomes a block of lines,
    so that no number is ever cut.
    """

    columns: Sequence[str]
    text: int = 1
    gap: int = 1
    folds: int = 0
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add_row(self, *cells: str) -> None:
        """Append a row with one text for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"a row of {len(cells)} cells, the table has {len(self.columns)}")
        self.rows.append(cells)

    @property
    def headings(self) -> list[str]:
        """The headings, each on one line."""
        return [" ".join(column.split("\n")) for column in self.columns]

    def rich(self) -> RichTable:
        """The table as the `rich` library prints it."""
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, self.gap, 0, 0)
        )
        for index, column in enumerate(self.columns):
            words = index < self.text
            table.add_column(
                column, justify="left" if words else "right", no_wrap=index + 1 != self.folds
            )
        for row in self.rows:
            table.add_row(*row)
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table if it fits into the columns of the console, else its rows as blocks."""
        from rich.text import Text

        if self._width() <= options.max_width:
            yield self.rich()
        else:
            yield Text("\n".join(self._blocks(options.max_width)), overflow="fold")

    def _width(self) -> int:
        """The fewest columns of text in which no cell is cut."""
        from rich.cells import cell_len

        widths = [
            max(
                cell_len(piece)
                for cell in cells
                for piece in (cell.split() if index == self.folds else cell.split("\n")) or [""]
            )
            for index, cells in enumerate(zip(self.columns, *self.rows, strict=True), start=1)
        ]
        return sum(widths) + (len(widths) - 1) * (self.gap + 1)

    def _blocks(self, width: int) -> Iterator[str]:
        """Lines that show each row below its first cell, one or two lines for each other cell."""
        first, *others = self.headings
        indent = max(map(len, others), default=0)
        for index, (name, *cells) in enumerate(self.rows):
            if index:
                yield ""
            yield name or first
            for heading, cell in zip(others, cells, strict=True):
                line = f"  {heading:{indent}}  {cell}"
                if cell:
                    yield line if len(line) <= width else f"  {heading}\n    {cell}"

    def to_markdown(self) -> str:
        """The table in Markdown, numbers aligned to the right."""
        rule = ["---" if index < self.text else "---:" for index in range(len(self.columns))]
        lines = [self.headings, rule, *([c.replace("|", "\\|") for c in row] for row in self.rows)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"

    def to_csv(self) -> str:
        """The table as comma-separated values with a line of headings."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.headings, *self.rows])
        return out.getvalue()

    def to_html(self) -> str:
        """The table as HTML; all texts are escaped."""
        head = "".join(f"<th>{html.escape(text)}</th>" for text in self.headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


Page: TypeAlias = list["str | Table"]
"""Lines of text and tables, in the order in which they are shown."""


def markdown(page: Page) -> str:
    """A page in Markdown: its tables, and its lines as paragraphs."""
    return "\n".join(
        item.to_markdown() if isinstance(item, Table) else f"{item}\n" for item in page if item
    )


def page_text(page: Page, width: int = PIPE_WIDTH) -> str:
    """A page as plain text; tables that are wider than `width` columns become blocks of lines."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, highlight=False, width=width, color_system=None)
    for item in page:
        console.print(item, markup=False, soft_wrap=isinstance(item, str))
    return out.getvalue().rstrip("\n")


class Shown(ABC):
    """A result that prints as the command line's table and shows as HTML in a notebook."""

    @abstractmethod
    def page(self) -> Page:
        """Its tables and notes."""

    def tables(self) -> list[Table]:
        """Its tables alone."""
        return [item for item in self.page() if isinstance(item, Table)]

    def to_markdown(self) -> str:
        """Its tables in Markdown."""
        return "\n".join(table.to_markdown() for table in self.tables())

    def to_csv(self) -> str:
        """Its tables as comma-separated values, a blank line between two."""
        return "\n".join(table.to_csv() for table in self.tables())

    def __str__(self) -> str:
        return page_text(self.page())

    def _repr_html_(self) -> str:
        items = self.page()
        return "".join(
            item.to_html() if isinstance(item, Table) else f"<pre>{html.escape(item)}</pre>"
            for item in items
            if item
        )

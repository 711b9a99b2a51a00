"""Tables as data, which print in a terminal, show in a notebook, or become Markdown or CSV."""

from __future__ import annotations

import csv
import html
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
    if a terminal is too narrow. A table that is still too wide becomes several tables of some
    columns each, which all begin with the first `keys` columns, or a block of lines for each row,
    whichever takes fewer lines: no number is ever cut.
    """

    columns: Sequence[str]
    text: int = 1
    gap: int = 1
    folds: int = 0
    keys: int = 1
    rows: list[tuple[str, ...]] = field(default_factory=list)
    origin: tuple[int, ...] = ()
    """Which columns of a wider table these are, counted from 0."""

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
        """The table if it fits into the columns of the console, else in several pieces."""
        from rich.text import Text

        width = options.max_width
        if self._width() <= width:
            yield self.rich()
            return
        groups, blocks = self._groups(width), list(self._blocks(width))
        if not groups or len(blocks) <= sum(len(group.rows) + 3 for group in groups):
            yield Text("\n".join(blocks), overflow="fold")
            return
        for index, group in enumerate(groups):
            yield from ([""] if index else [])
            yield group.rich()

    def _groups(self, width: int) -> list[Table]:
        """Tables of the key columns beside as many others as fit; none if one does not fit."""
        found: list[Table] = []
        keys = range(self.keys)
        for index in range(self.keys, len(self.columns)):
            longer = self._only([*(found[-1].origin if found else keys), index])
            if found and longer._width() <= width:
                found[-1] = longer
                continue
            found.append(self._only([*keys, index]))
            if found[-1]._width() > width:
                return []
        return found

    def _only(self, chosen: Sequence[int]) -> Table:
        """The columns `chosen`, counted from 0."""
        rows = [tuple(row[i] for i in chosen) for row in self.rows]
        text = sum(i < self.text for i in chosen)
        folds = chosen.index(self.folds - 1) + 1 if self.folds - 1 in chosen else 0
        heads = [self.columns[i] for i in chosen]
        return Table(heads, text, self.gap, folds, self.keys, rows, tuple(chosen))

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
        for row, (name, *cells) in enumerate(self.rows):
            if row:
                yield ""
            yield name or first
            for column, (heading, cell) in enumerate(zip(others, cells, strict=True), start=1):
                words = cell.split(" ") if column < self.text else [cell]
                if cell:
                    yield from hanging(f"  {heading:{indent}}", words, width)

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


@dataclass(frozen=True)
class Fitted:
    """Lines that depend on the columns of text there are: `lines` makes them for a width."""

    lines: Callable[[int], str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines for the columns of the console."""
        from rich.text import Text

        yield Text(self.lines(options.max_width), overflow="fold")

    def __str__(self) -> str:
        return self.lines(PIPE_WIDTH)


def hanging(name: str, items: Sequence[str], width: int) -> list[str]:
    """Lines of a name and items after it, each item whole; further lines begin below the first.

    Where a name leaves too little room, the items begin on a line of their own.
    """
    start = len(name) + 2
    if items and start + max(map(len, items)) > width:
        below = hanging("  ", items, width) if start > 4 else [f"    {item}" for item in items]
        return [name.rstrip(), *below]
    lines = [name.ljust(start)]
    for item in items:
        joined = lines[-1] + item if len(lines[-1]) == start else f"{lines[-1]} {item}"
        if len(joined) > width:
            lines.append(" " * start + item)
        else:
            lines[-1] = joined
    return [line.rstrip() for line in lines]


Page: TypeAlias = list["str | Table | Fitted"]
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
            item.to_html() if isinstance(item, Table) else f"<pre>{html.escape(str(item))}</pre>"
            for item in items
            if item
        )

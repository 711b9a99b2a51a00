"""Tables of a report: for the terminal, for a page of HTML, and in Markdown for a model card."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fewbit.reports.result_files import Range, Results, pareto
from fewbit.tables import Page, Shown, Table

_SPECIAL = re.compile(r"([\\`*\[\]])")


@dataclass(frozen=True)
class Report(Shown):
    """Results of several files as tables."""

    results: Results

    def page(self) -> Page:
        """Every table below its heading."""
        return [item for title, table in tables(self.results) for item in (title, table, "")]

    def to_markdown(self) -> str:
        """Tables for a model card; names are escaped, so none is markup."""
        return "\n".join(
            f"### {title}\n\n{_escaped(table).to_markdown()}"
            for title, table in tables(self.results)
        )


def tables(found: Results) -> list[tuple[str, Table]]:
    """The tables of the kinds of results that are there, each with its heading."""
    made = [
        ("Size and loss", _losses(found)), ("Perplexity", _texts(found)),
        ("Multiple choice", _scores(found)), ("Multiple choice, in pairs", _pairs(found)),
        ("Speed", _speeds(found)),
    ]  # fmt: skip
    return [(title, table) for title, table in made if table.rows]


def _losses(found: Results) -> Table:
    front = pareto(found.losses)
    columns = (
        "model", "acts", "bits per\nweight", "size\nMB", "PPL/base", "mean KLD",
        "95 % interval\nof mean KLD", "99 % KLD", "same top", "tokens/s", "windows",
        "on the\nfront",
    )  # fmt: skip
    table = Table(columns, text=2)
    for e in found.losses:
        table.add_row(
            e.name, e.acts, number(e.bits, 2), number(e.bytes / 1e6, 2), number(e.ratio.value, 4),
            number(e.kld.value, 5), interval(e.kld, 5), number(dict(e.percentiles).get(99.0), 4),
            number(100 * e.same_top, 2, " %"), number(e.tokens_per_second, 0),
            f"{e.windows:,} of {e.ctx:,}", "yes" if e in front else "",
        )  # fmt: skip
    return _without_empty(table)


def _texts(found: Results) -> Table:
    table = Table(("model", "acts", "PPL", "95 % interval", "windows"), text=2)
    for e in found.texts:
        windows = f"{e.windows:,} of {e.ctx:,}"
        table.add_row(e.name, e.acts, number(e.ppl.value, 4), interval(e.ppl, 4), windows)
    return table


def _scores(found: Results) -> Table:
    columns = ("model", "correct", "incorrect", "no answer", "correct,\npercent", "95 % interval")
    table = Table(columns)
    for e in found.scores:
        percent = Range(100 * e.fraction.value, 100 * e.fraction.low, 100 * e.fraction.high)
        counts = (f"{n:,}" for n in (e.correct, e.incorrect, e.no_answer))
        table.add_row(e.name, *counts, number(percent.value, 1), interval(percent, 1))
    return table


def _pairs(found: Results) -> Table:
    columns = ("model", "beside", "only the\nfirst right", "only the\nsecond right", "p")
    table = Table(columns, text=2)
    for e in found.pairs:
        only = f"{e.only_first:,}", f"{e.only_second:,}"
        table.add_row(e.name, e.second, *only, "<0.0001" if e.p < 1e-4 else number(e.p, 4))
    return table


def _speeds(found: Results) -> Table:
    columns = ("model", "test", "limit", "tokens/s", "±", "of read\nrate", "of\npeak")
    table = Table(columns, text=3, keys=2)
    for e in found.speeds:
        table.add_row(
            e.name, e.test, e.limit, number(e.mean, 1), number(e.deviation, 1),
            number(100 * e.of_read_rate, 0, " %"), number(100 * e.of_peak, 0, " %"),
        )  # fmt: skip
    return table


def number(value: float | None, digits: int, unit: str = "") -> str:
    """A number with `digits` decimals; nothing if it is not known."""
    return "" if value is None or math.isnan(value) else f"{value:,.{digits}f}{unit}"


def interval(value: Range, digits: int) -> str:
    """The 95 % interval; nothing if it is not known."""
    if math.isnan(value.low) or math.isnan(value.high):
        return ""
    return f"{value.low:.{digits}f} to {value.high:.{digits}f}"


def _without_empty(table: Table) -> Table:
    """The table without columns that have no cell with text."""
    shown = [i for i in range(len(table.columns)) if any(row[i] for row in table.rows)]
    return _taken(table, shown) if table.rows else table


def _taken(table: Table, shown: Sequence[int]) -> Table:
    rows = [tuple(row[i] for i in shown) for row in table.rows]
    return Table([table.columns[i] for i in shown], table.text, rows=rows)


def _escaped(table: Table) -> Table:
    rows = [
        tuple(_SPECIAL.sub(r"\\\1", html.escape(cell, quote=False)) for cell in row)
        for row in table.rows
    ]
    return Table(table.columns, table.text, rows=rows)

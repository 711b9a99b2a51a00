"""Tables as data: one content in text, Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io

import pytest

from fewbit.tables import Page, Shown, Table, page_text


@pytest.fixture
def table() -> Table:
    table = Table(("format", "bits per\nweight"))
    table.add_row("Q4_0 | x", "4.50")
    table.add_row("<script>", "16.00")
    return table


def test_text_aligns_words_left_and_numbers_right(table: Table) -> None:
    lines = page_text([table, "", "a note"]).splitlines()
    assert [line.rstrip() for line in lines[:2]] == ["          bits per", "format      weight"]
    assert lines[3:5] == ["Q4_0 | x      4.50", "<script>     16.00"]
    assert lines[-1] == "a note"


def test_markdown(table: Table) -> None:
    assert table.to_markdown().splitlines() == [
        "| format | bits per weight |",
        "| --- | ---: |",
        "| Q4_0 \\| x | 4.50 |",
        "| <script> | 16.00 |",
    ]


def test_csv_reads_back(table: Table) -> None:
    table.add_row('a, "b"', "1")
    read = list(csv.reader(io.StringIO(table.to_csv())))
    assert read == [["format", "bits per weight"], *map(list, table.rows)]


def test_html_escapes_every_text(table: Table) -> None:
    class Result(Shown):
        def page(self) -> Page:
            return [table, "", "<img onerror=x>"]

    html = Result()._repr_html_()
    assert html.count("<td>") == 4
    assert "<script>" not in html
    assert "<img" not in html
    assert "<td>&lt;script&gt;</td>" in html
    assert Result().to_csv() == table.to_csv()


def test_a_row_of_another_length_is_refused(table: Table) -> None:
    with pytest.raises(ValueError, match="a row of 1 cells, the table has 2"):
        table.add_row("Q8_0")

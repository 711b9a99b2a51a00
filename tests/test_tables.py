"""Tables as data: one content in text, Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io

import pytest

from fewbit.tables import Fitted, Page, Shown, Table, hanging, page_text


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


def wide() -> Table:
    table = Table(
        ("format", "kind", "bits per\nweight", *(f"number {i}" for i in range(4))), text=2
    )
    for name in ("Q4_K_M", "asym4-g128"):
        table.add_row(name, "", "4.50", *(f"{10**i:,}.25 ± 0.125" for i in range(9, 13)))
    return table


def test_a_table_that_does_not_fit_shows_its_rows_as_blocks() -> None:
    lines = page_text([wide()], 60).splitlines()
    assert lines[:2] == ["Q4_K_M", "  bits per weight  4.50"]
    assert lines[2] == "  number 0         1,000,000,000.25 ± 0.125"
    assert lines[6:8] == ["", "asym4-g128"]
    assert len(lines) == 13


@pytest.mark.parametrize("width", range(40, 130))
def test_no_cell_is_cut_at_any_width(width: int) -> None:
    folding = Table(("name", "words", "bytes"), text=2, folds=2)
    folding.add_row("a tensor", "several words that go on and on", "1,234,567,890")
    for table in (wide(), folding):
        text = page_text([table], width)
        assert "…" not in text
        assert all(row[-1] in text for row in table.rows)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    fits = Table(("name", "bytes"))
    fits.add_row("a", "1")
    assert page_text([fits], width).splitlines()[0] == "name  bytes"


def test_a_long_table_that_does_not_fit_becomes_tables_of_some_columns() -> None:
    table = Table(("model", "test", "first", "second", "third"), text=2, keys=2)
    for i in range(9):
        table.add_row(f"m{i}", "t", f"{i}.0000000", f"{i}.1111111", f"{i}.2222222")
    lines = [line.rstrip() for line in page_text([table], 34).splitlines()]
    assert lines[0] == "model  test      first     second"
    assert lines[11] == ""
    assert lines[12] == "model  test      third"
    assert lines[14] == "m0     t     0.2222222"
    assert len(lines) == 23


@pytest.mark.parametrize("width", range(20, 90))
def test_fitted_lines_stay_within_their_width(width: int) -> None:
    items = [f"{percent} %: -0.12345" for percent in (1, 10, 50, 99.9)]
    lines = hanging("  percentiles", items, width)
    assert max(map(len, lines)) <= max(width, 4 + max(map(len, items)))
    assert " ".join(" ".join(lines).split()) == f"percentiles {' '.join(items)}"
    shown = Fitted(lambda found: "\n".join(hanging("  percentiles", items, found)))
    assert page_text([shown], width).splitlines() == lines

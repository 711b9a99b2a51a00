"""`fewbit compare` of several models: rows, files that it writes, going on, refusals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import fewbit as package
from fewbit.cli import main as cli

SHORT = ("--ctx", "64", "--chunks", "3")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Fewbit = Callable[..., Ended]


@pytest.fixture
def fewbit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Fewbit:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Q8_0 and Q4_0 of the demo as files, and its importance matrix."""
    folder, model = tmp_path_factory.mktemp("models"), package.load("demo", "cpu")
    for name in ("Q8_0", "Q4_0"):
        model.quantize(name).save(folder / f"{name}.gguf")
    model.imatrix(package.demo_text(), ctx=64, chunks=2).save(folder / "m.gguf")
    return folder


def rows_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.split("\n\n")[0].splitlines()[3:]]


def test_files_beside_formats_with_and_without_importance(fewbit: Fewbit, files: Path) -> None:
    ended = fewbit(
        "compare", f"{files}/Q8_0.gguf", f"{files}/Q4_0.gguf", "--base", "demo",
        "--formats", "Q4_0,IQ4_XS", "--imatrix", "none", "--imatrix", f"{files}/m.gguf",
        "--sort", "size", "--json", *SHORT,
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    rows = {row["format"]: row for row in json.loads(ended.out)}
    assert set(rows) == {
        "demo", "Q8_0.gguf", "Q4_0.gguf", "Q4_0", "Q4_0 imatrix", "IQ4_XS", "IQ4_XS imatrix",
    }  # fmt: skip
    assert rows["Q4_0.gguf"]["fast"]["kld"] == rows["Q4_0"]["fast"]["kld"]
    sizes = [row["sizes"]["bytes"] for row in json.loads(ended.out)]
    assert sizes == sorted(sizes, reverse=True)
    tie = next(row["versus"] for row in rows.values() if row["versus"] and tied(row))
    assert (tie["kld"]["value"], tie["p"], tie["verdict"]) == (0, 1, "tie")


def tied(row: Any) -> bool:
    return {row["format"], row["versus"]["against"]} == {"Q4_0", "Q4_0.gguf"}


def test_a_format_that_is_named_twice_is_refused(fewbit: Fewbit) -> None:
    ended = fewbit("compare", "--formats", "Q4_0,q4_0", *SHORT)
    assert ended.code == 1
    assert "two rows would be called `Q4_0`" in ended.err


def test_the_first_model_is_the_base(fewbit: Fewbit, files: Path) -> None:
    ended = fewbit("compare", "demo", f"{files}/Q8_0.gguf", f"{files}/Q4_0.gguf", *SHORT)
    assert ended.code == 0, ended.err
    rows = rows_of(ended.out)
    assert [row[0] for row in rows] == ["demo", "Q8_0.gguf", "Q4_0.gguf"], (
        "no formats beside several models"
    )
    alone = rows_of(fewbit("compare", "--formats", "Q8_0,Q4_0", *SHORT).out)
    assert [row[1:-1] for row in rows] == [row[1:-1] for row in alone], "a file has a format's bits"


def test_a_table_in_each_format_of_files(fewbit: Fewbit, tmp_path: Path) -> None:
    first = fewbit("compare", "--formats", "Q8_0,Q4_0", *SHORT, "-o", "t.json", "--json")
    assert first.code == 0, first.err
    assert json.loads((tmp_path / "t.json").read_text()) == json.loads(first.out)
    (tmp_path / "t.results").rename(tmp_path / "all.results")
    for suffix in ("md", "csv", "html"):
        ended = fewbit("compare", "--formats", "Q8_0,Q4_0", *SHORT, "-o", f"all.{suffix}", "--json")
        assert json.loads(ended.out) == without_seconds(json.loads(ended.out), first.out)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text())))
    assert [line["format"] for line in lines] == ["BF16", "BF16", "Q8_0", "Q8_0", "Q4_0", "Q4_0"]
    assert lines[-1]["versus"] == "Q8_0"
    assert "| Q4_0 | worse | Q8_0 |" in (tmp_path / "all.md").read_text()
    assert "<td>worse</td>" in (tmp_path / "all.html").read_text()


def without_seconds(rows: Any, before: str) -> Any:
    """The rows; all numbers but times must be those of `before`: nothing was measured again."""
    for row, old in zip(rows, json.loads(before), strict=True):
        assert row["tokens_per_second"] == old["tokens_per_second"], "the speed comes from the file"
        for kind in ("weights", "fast"):
            for key in ("kld", "ppl", "same_top", "kld_percentiles"):
                assert row[kind][key] == old[kind][key]
    return rows


def test_rows_appear_one_by_one(fewbit: Fewbit) -> None:
    ended = fewbit("compare", "--formats", "Q8_0,Q4_0", "--one-by-one", *SHORT)
    assert ended.code == 0
    assert [line.split(":")[0] for line in ended.err.splitlines()] == ["BF16", "Q8_0", "Q4_0"]
    together = fewbit("compare", "--formats", "Q8_0,Q4_0", "--together", *SHORT)
    assert [row[:-1] for row in rows_of(ended.out)] == [row[:-1] for row in rows_of(together.out)]


def test_it_stops_when_the_order_is_certain(fewbit: Fewbit) -> None:
    ended = fewbit(
        "compare", "--formats", "Q8_0,Q2_K", "--ctx", "32", "--chunks", "40",
        "--until-significant", "--details",
    )  # fmt: skip
    assert ended.out.splitlines()[-1] == "8 windows of 32 tokens, 120 tokens scored"
    assert "corrected for 1 pair and look 1" in ended.out
    assert "The noise of the measurement is 0" in ended.out


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["-o", "t.txt"], "cannot tell the format of `t.txt`", "name a file that ends with"),
        (["--sort", "name"], "unknown order `name`", "`--sort` takes given, size, kld"),
        (["--against", "Q4"], "no row is called `Q4`", "did you mean `Q4_0`?"),
        (["--one-by-one", "--until-significant"], "do not fit into memory", "fewer models"),
        (["--imatrix", "nothing.gguf"], "nothing.gguf", ""),
    ],
)
def test_refusals(fewbit: Fewbit, options: list[str], message: str, hint: str) -> None:
    ended = fewbit("compare", "--formats", "Q8_0,Q4_0", *SHORT, *options)
    assert (ended.code, ended.out) == (1, "")
    assert message in ended.err
    assert hint in ended.err


def test_an_input_is_not_replaced(fewbit: Fewbit, tmp_path: Path) -> None:
    text = tmp_path / "text.md"
    text.write_text(package.demo_text()[:9000])
    ended = fewbit("compare", "--text", "text.md", "-o", "text.md", "--formats", "Q8_0", *SHORT)
    assert ended.code == 1
    assert "is an input of this command and would be replaced" in ended.err
    assert text.read_text().startswith(package.demo_text()[:100])

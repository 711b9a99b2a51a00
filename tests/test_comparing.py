"""Comparisons of several models: the same bits in every order, and nothing is measured twice."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewbit.errors import InputError, UnsupportedError
from fewbit.measure import candidates, comparing, evaluate
from fewbit.measure.base_rows import batch_sizes
from fewbit.measure.comparison import Comparison, compare
from fewbit.measure.results import Estimate
from fewbit.measure.token_values import NAMES, TokenValues
from tests.bigram import ALPHABET, Bigram

TEXT = "".join(np.random.default_rng(6).choice(list(ALPHABET[:14]), 400))
FORMATS = ["Q8_0", "Q4_0"]


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bigram model is no file: its table says which it is."""
    monkeypatch.setattr(comparing, "identity", lambda model: str(model.table.tobytes()))


def run(**options: Any) -> Comparison:
    return compare(Bigram(), FORMATS, TEXT, ctx=20, **options)


def losses(found: Comparison) -> list[Any]:
    """All that does not depend on the clock."""
    return [
        (row.format, row.sizes, row.versus, *(
            dataclasses.replace(d, sample=dataclasses.replace(d.sample, seconds=0.0))
            for d in (row.weights, row.fast)
        ))
        for row in found
    ]  # fmt: skip


def test_one_by_one_has_the_bits_of_side_by_side(tmp_path: Path) -> None:
    seen: list[str] = []
    alone = run(one_by_one=True, on_row=lambda rows: seen.append(rows[-1].format), folder=tmp_path)
    assert losses(alone) == losses(run())
    assert seen == ["F32", "Q8_0", "Q4_0"], "rows appear as they finish"
    assert not list(tmp_path.glob("*.logits")), "the base's logits are gone"


def test_batches_of_long_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = losses(compare(Bigram(context=128), FORMATS, TEXT, ctx=100))
    for module in (evaluate, comparing):
        monkeypatch.setattr(module, "BATCH", 7)
    for alone in (False, True):
        found = compare(Bigram(context=128), FORMATS, TEXT, ctx=100, one_by_one=alone)
        assert losses(found) == expected


@pytest.mark.parametrize(
    ("scored", "first", "batch", "sizes"),
    [(9, 10, 512, [9]), (49, 50, 7, [6, *[7] * 6, 1]), (7, 7, 7, [7]), (8, 6, 7, [1, 7])],
)
def test_batches_as_a_window_gives_them(
    scored: int, first: int, batch: int, sizes: list[int]
) -> None:
    assert batch_sizes(scored, first, batch) == sizes


@pytest.mark.parametrize("alone", [False, True])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, alone: bool) -> None:
    expected = losses(run())

    def interrupt(done: int, total: int, text: str) -> None:
        if text == ("measuring Q8_0" if alone else "measuring") and done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(one_by_one=alone, folder=tmp_path, progress=interrupt)
    base = Bigram()
    again = compare(base, FORMATS, TEXT, ctx=20, one_by_one=alone, folder=tmp_path)
    assert losses(again) == expected
    measured = [call for call in base.calls if call == (19, 9)]
    assert len(measured) == (0 if alone else 8), "windows 13 to 20 of the base"
    base = Bigram()
    assert losses(compare(base, FORMATS, TEXT, ctx=20, folder=tmp_path)) == expected
    assert not base.calls, "all is known, also the speed"


def test_fewer_windows_come_from_more(tmp_path: Path) -> None:
    run(folder=tmp_path)
    base = Bigram()
    found = compare(base, FORMATS, TEXT, ctx=20, chunks=5, folder=tmp_path)
    assert losses(found) == losses(run(chunks=5))
    assert not base.calls
    assert {row.weights.sample.chunks for row in found} == {5}


@pytest.mark.parametrize(
    ("options", "text"),
    [({"ctx": 19}, TEXT), ({"ctx": 20}, TEXT[:60] + TEXT[:59:-1])],
    ids=["ctx", "text"],
)
def test_what_changes_a_row_is_measured_anew(
    tmp_path: Path, options: dict[str, int], text: str
) -> None:
    run(folder=tmp_path)
    found = compare(Bigram(), FORMATS, text, folder=tmp_path, **options)
    assert losses(found) == losses(compare(Bigram(), FORMATS, text, **options))


def values_in(path: Path, windows: int) -> TokenValues:
    rng = np.random.default_rng(0)
    found = TokenValues(3, path)
    for _ in range(windows):
        batch = {name: rng.random(3) for name in NAMES}
        found.append([{**batch, "same_top": rng.random(3) < 0.5}])
    return found


def test_values_survive_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "v"
    written, read = values_in(path, 4), TokenValues(3, path)
    for name in (*NAMES, "same_top"):
        assert (written.tokens(name) == read.tokens(name)).all()


def test_a_torn_window_is_cut_and_a_damaged_one_ends_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v"
    values_in(path, 4)
    size = path.stat().st_size // 4
    path.write_bytes(path.read_bytes()[:-5])
    assert len(TokenValues(3, path)) == 3
    assert path.stat().st_size == 3 * size
    data = bytearray(path.read_bytes())
    data[size + 2] ^= 1
    path.write_bytes(data)
    assert len(TokenValues(3, path)) == 1, "the second window is damaged"
    assert path.stat().st_size == size


def test_torn_logits_of_the_base_are_computed_anew(tmp_path: Path) -> None:
    expected = losses(run())

    def interrupt(done: int, total: int, text: str) -> None:
        if text == "running the base" and done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(one_by_one=True, folder=tmp_path, progress=interrupt)
    (kept,) = tmp_path.glob("*.logits")
    kept.write_bytes(kept.read_bytes()[:-5])
    base = Bigram()
    again = compare(base, FORMATS, TEXT, ctx=20, one_by_one=True, folder=tmp_path)
    assert losses(again) == expected
    assert base.calls.count((19, 9)) == 14, "six of twenty windows were there"


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    def second(done: int, total: int, text: str) -> None:
        with pytest.raises(InputError, match="another process writes results into"):
            run(folder=tmp_path)

    run(folder=tmp_path, progress=second)


def test_stopping_early() -> None:
    found = run(until_significant=True)
    assert [row.weights.sample.chunks for row in found] == [8, 8, 8]
    assert found.look == 1
    plain = run(chunks=8)
    versus, uncorrected = found[2].versus, plain[2].versus
    assert versus is not None
    assert uncorrected is not None
    assert versus.kld == uncorrected.kld
    assert versus.p == min(1, 2 * uncorrected.p), "look 1 may spend half of the level"
    assert "corrected for 1 pair and look 1" in str(found)


def test_rows_that_stay_tied_take_the_entire_text(monkeypatch: pytest.MonkeyPatch) -> None:
    base, other = Bigram(), Bigram().quantize("Q8_0")
    other.table[0, 0] += 1e-6
    found = compare(base, ["Q8_0"], TEXT, ctx=20, models={"other": other}, until_significant=True)
    assert found[0].weights.sample.chunks == 20
    assert found.look == 4, "after 8, 12, 18 and all 20 windows"
    assert found.paired("other", "Q8_0").verdict == "tie"


def test_several_models_and_importance_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    base, other = Bigram(), Bigram(2)
    matrix = {"w": np.ones(1, np.float32)}
    asked: list[Any] = []

    def quantize(self: Bigram, recipe: str, imatrix: Any = None) -> Bigram:
        asked.append(imatrix)
        return plain(self, recipe)

    plain = Bigram.quantize
    monkeypatch.setattr(Bigram, "quantize", quantize)
    found = compare(
        base, ["Q4_0"], TEXT, ctx=20, models={"other": other, "base": base},
        imatrices=[None, matrix],
    )  # fmt: skip
    assert [row.format for row in found] == ["base", "other", "Q4_0", "Q4_0 imatrix"]
    assert asked == [None, matrix]
    assert found[0].weights.kld == Estimate(0, 0)
    assert found[1].weights.kld == evaluate.divergence(other, base, TEXT, 20, acts="f32").kld
    assert [row.versus and row.versus.against for row in found] == [None, None, "other", "Q4_0"]
    assert found.pairs == 3


def test_rows_are_compared_with_the_one_before_or_with_one() -> None:
    found = compare(Bigram(), ["Q8_0", "Q5_0", "Q4_0"], TEXT, ctx=20)
    assert [row.versus and row.versus.against for row in found] == [None, None, "Q8_0", "Q5_0"]
    fixed = compare(Bigram(), ["Q8_0", "Q5_0", "Q4_0"], TEXT, ctx=20, against="Q5_0")
    assert [row.versus and row.versus.against for row in fixed] == [None, "Q5_0", None, "Q5_0"]
    assert (found.pairs, fixed.pairs) == (3, 2)
    turned = compare(Bigram(), ["Q4_0", "Q8_0"], TEXT, ctx=20)
    assert [row.format for row in turned.ordered("size")] == ["F32", "Q8_0", "Q4_0"]
    assert [row.format for row in turned.ordered("kld")] == ["F32", "Q8_0", "Q4_0"]
    verdict = turned.ordered("kld")[2].versus
    assert verdict is not None
    assert verdict.verdict == "worse"


def test_a_comparison_is_pickled_with_its_values() -> None:
    found = run()
    again = pickle.loads(pickle.dumps(found))
    assert losses(again) == losses(found)
    assert again.paired("Q4_0", "Q8_0") == found.paired("Q4_0", "Q8_0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"against": "Q9"}, "no row is called `Q9`, or it is the base"),
        ({"against": "F32"}, "no row is called `F32`, or it is the base"),
        ({"models": {"Q8_0": Bigram(2)}}, "two rows would be called `Q8_0`"),
        ({"one_by_one": True, "until_significant": True}, "do not fit into memory together"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(**options)
    with pytest.raises(InputError, match="unknown order `name`"):
        run(chunks=2).ordered("name")
    with pytest.raises(InputError, match="`Q8_0` is compared with itself"):
        run(chunks=2).paired("Q8_0", "Q8_0")


def test_memory_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = candidates.candidates(Bigram(), FORMATS, {})
    needed = candidates.MARGIN * sum(candidate.sizes.bytes for candidate in found)
    memory = tmp_path / "meminfo"
    monkeypatch.setattr(candidates, "MEMORY", memory)
    assert candidates.fit_together(found), "unknown memory"
    for kib, fits in ((needed // 1024 + 1, True), (needed // 1024 - 1, False)):
        memory.write_text(f"MemTotal: 99 kB\nMemAvailable:   {int(kib)} kB\n")
        assert candidates.fit_together(found) is fits
    seen: list[str] = []
    run(on_row=lambda rows: seen.append(rows[-1].format))
    assert seen, "one after the other"


def test_a_full_disk_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from fewbit.measure import base_rows

    usage = base_rows.shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(base_rows.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="the base's logits take"):
        run(one_by_one=True)


def test_csv_has_all_numbers_and_html_escapes_names() -> None:
    found = compare(Bigram(), ["Q4_0"], TEXT, ctx=20, models={"<b>&": Bigram(2)})
    head, *lines = found.to_csv().splitlines()
    names = head.split(",")
    assert len(lines) == 4, "floats have one kind of activations"
    row = dict(zip(names, lines[-1].split(","), strict=True))
    assert float(row["kld"]) == found[2].fast.kld.value
    assert (float(row["kld_low"]), float(row["kld_high"])) == found[2].fast.kld.interval
    assert row["verdict"] in ("better", "worse", "tie")
    page = found.to_html()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page


def test_a_plot_has_a_point_for_each_row() -> None:
    pytest.importorskip("matplotlib", reason="pip install 'fewbit[plots]'")
    axes = run().plot().axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["Q4_0", "Q8_0"]
    assert axes.get_yscale() == "log"


def test_a_plot_without_matplotlib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'fewbit\[plots\]'"):
        run(chunks=2).plot()

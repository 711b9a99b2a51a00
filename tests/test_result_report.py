"""`fewbit report`: saved results as tables, one safe page of HTML, Markdown and pictures."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import fewbit
from fewbit.cli import main as cli
from fewbit.measure.proportions import wilson
from fewbit.reports import charts, result_files
from fewbit.reports.result_files import Loss, Range, read_results
from fewbit.reports.result_page import report_html
from fewbit.reports.result_tables import Report

QUESTIONS = Path(__file__).parent / "multiple_choice" / "questions.csv"
EVIL = "</script><img src=x onerror=alert(1)>"
SHORT = ["--ctx", "64", "--chunks", "2"]


class Tags(html.parser.HTMLParser):
    """Collects the elements of a page and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


def loss(name: str, bits: float, kld: float) -> Loss:
    percents = tuple((p, kld * (p + 1)) for p in charts.SHOWN_PERCENTS)
    places = ((33, 40, kld), (41, 48, kld / 2))
    interval = Range(kld, 0.9 * kld, 1.1 * kld)
    return Loss(name, "int8", interval, Range(1.1), 0.9, 4, 64, percents, places, bits, 1e6, 9.0)


def bench(model: str) -> dict[str, Any]:
    rate = {"name": "tg8", "mean": 50.0, "deviation": 2.0, "limit": "memory", "of_read_rate": 0.8,
            "of_peak": None}  # fmt: skip
    return {"schema": "fewbit.bench/1", "model": model, "format": "Q4_0", "threads": 0,
            "rates": [rate]}  # fmt: skip


def answered(name: str, correct: int, total: int = 20) -> dict[str, Any]:
    fraction = vars(wilson(correct, total))
    return {"schema": "fewbit.benchmark/1", "name": name, "correct": correct,
            "incorrect": total - correct - 1, "no_answer": 1,
            "fractions": {"correct": fraction}}  # fmt: skip


def saved(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), "utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the commands themselves write."""
    folder = tmp_path_factory.mktemp("results")
    found = []
    commands = {
        "compared": ["compare", "-f", "Q8_0,Q4_0", *SHORT],
        "diverged": ["divergence", "-f", "Q4_0", *SHORT],
        "text": ["perplexity", *SHORT],
        "asked": ["benchmark", str(QUESTIONS), "--answer-by", "likelihood"],
        "timed": ["bench", "-p", "4", "-n", "1", "-r", "1"],
    }
    for name, arguments in commands.items():
        found.append(folder / f"{name}.json")
        with pytest.MonkeyPatch.context() as patch, found[-1].open("w", encoding="utf-8") as file:
            patch.setattr("sys.stdout", file)
            assert cli.run([*arguments, "--json"]) == 0
    return found


def test_every_result_has_a_schema(files: list[Path]) -> None:
    kinds = []
    for file in files:
        value = json.loads(file.read_text("utf-8"))
        kinds.append((value[0] if isinstance(value, list) else value)["schema"])
    names = ("comparison", "divergence", "perplexity", "benchmark", "bench")
    assert kinds == [f"fewbit.{name}/1" for name in names]


def test_all_commands_results_are_shown(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(files[0].read_text("utf-8"))
    page, card = tmp_path / "r.html", tmp_path / "r.md"
    given = [str(file) for file in files]
    assert cli.run(["report", *given, "--html", str(page), "--md", str(card)]) == 0
    assert capsys.readouterr().out == ""
    text = card.read_text("utf-8")
    for row in rows:
        kld = f"{row['fast']['kld']['value']:.5f}"
        assert re.search(rf"^\| {row['format']} \|.* {kld} \|", text, re.MULTILINE), kld
    for title in ("Size and loss", "Perplexity", "Multiple choice", "Speed"):
        assert f"### {title}" in text
    assert page.read_text("utf-8").count("<svg") == 6
    assert cli.run(["report", *given]) == 0
    assert "tokens/s" in capsys.readouterr().out
    assert cli.run(["report", *given, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(result_files.KINDS)


def test_names_are_not_markup(tmp_path: Path) -> None:
    evil = [saved(tmp_path / "b.json", bench(EVIL)), saved(tmp_path / "m.json", answered(EVIL, 7))]
    found = read_results(evil)
    found.losses += [loss(EVIL, 4.5, 0.1), loss(EVIL + '"&', 5.5, 0.01)]
    page = report_html(found, EVIL)
    tags = Tags()
    tags.feed(page)
    names = {tag for tag, _ in tags.found}
    assert names.isdisjoint({"script", "img", "link", "iframe", "object", "a", "base", "form"})
    assert not [a for _, attrs in tags.found for a in attrs if a.startswith("on")]
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not re.search(r"://|url\(|@import", page)
    (policy,) = (a["content"] for _, a in tags.found if "http-equiv" in a)
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'")
    card = Report(found).to_markdown()
    assert "<img" not in card
    assert "</script" not in card


def test_folders_of_the_maker_are_not_shown(tmp_path: Path) -> None:
    names = ["/home/ada/my models/tiny.gguf", "C:\\Users\\ada\\tiny.gguf", "~/ada/tiny.gguf",
             "../ada/tiny.gguf", "ada/tiny.gguf", "ada/models/x/tiny.gguf"]  # fmt: skip
    files = [saved(tmp_path / f"{i}.json", bench(name)) for i, name in enumerate(names)]
    files.append(saved(tmp_path / "m.json", answered(f"{names[0]} Q4_0", 3)))
    found = read_results(files)
    for text in (report_html(found), Report(found).to_markdown()):
        assert "tiny.gguf" in text
        for word in ("ada", "Users", "home", str(tmp_path)):
            assert word not in text
    assert result_files.clean("owner/tiny") == "owner/tiny"
    assert result_files.clean("a\x00b\u202ec\ud800") == "a\ufffdb\ufffdc\ufffd"


def test_a_name_of_two_files_is_told_apart(tmp_path: Path) -> None:
    pair = {"first": "Q8_0", "second": "Q4_0", "only_first": 2, "only_second": 1, "p": 1.0}
    value = {"answers": [answered("Q4_0", 3)], "paired": [pair]}
    found = read_results([saved(tmp_path / f"{name}.json", value) for name in ("old", "new")])
    assert [s.name for s in found.scores] == ["old Q4_0", "new Q4_0"]
    assert [(p.name, p.second) for p in found.pairs][1] == ("Q8_0", "new Q4_0")


def test_cells_of_a_sweep(tmp_path: Path) -> None:
    """The last line of a key counts, and a cell that failed has no row."""
    cell = {
        "key": "a", "model": "m/tiny.gguf", "format": "Q4_0", "text": "t", "acts": "f32",
        "kv": "f32", "ctx": 64, "ok": True, "kld": 0.5, "kld_error": 0.1, "kld_99": 2.0,
        "kld_max": 3.0, "ln_ratio": 0.0, "ln_ratio_error": 0.0, "same_top": 0.9,
        "bits_per_weight": 4.5, "bytes": 100, "chunks": 3, "attempts": 1,
    }  # fmt: skip
    failed = {"key": "b", "ok": False, "error": "no memory", "attempts": 1}
    lines = [cell | {"kld": 9.0}, failed, cell]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = read_results([path]).losses
    assert (found.name, found.bits, found.ratio.value) == ("tiny.gguf Q4_0 t f32", 4.5, 1)
    assert found.kld.value == 0.5
    assert found.kld.high == pytest.approx(0.5 + 0.1 * 4.302653), "Student's t of 2 degrees"


def test_pairs_keep_their_p(tmp_path: Path) -> None:
    pair = {"first": "/home/ada/x.gguf Q8_0", "second": EVIL, "only_first": 9, "only_second": 1,
            "p": 0.021484375}  # fmt: skip
    value = {"answers": [answered("x.gguf Q8_0", 12), answered(EVIL, 4)], "paired": [pair]}
    card = Report(read_results([saved(tmp_path / "m.json", value)])).to_markdown()
    assert "### Multiple choice, in pairs" in card
    assert (
        "| x.gguf Q8_0 | &lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; | 9 | 1 | 0.0215 |"
        in card
    )


def test_the_front_and_the_points() -> None:
    losses = [loss("a", 8, 0.001), loss("worse", 9, 0.002), loss("b", 4, 0.1), loss("base", 16, 0)]
    assert [e.name for e in result_files.pareto(losses)] == ["b", "a"]
    svg = charts.sizes_chart(losses) or ""
    assert len(re.findall(r'<circle[^>]* class="on"', svg)) == 2
    assert len(re.findall(r'<circle[^>]* class="off"', svg)) == 1
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="(.*?)" cy="(.*?)"', svg)]
    assert places[2][0] < places[0][0] < places[1][0]  # fewer bits lie further left
    assert places[2][1] < places[1][1] < places[0][1]  # more loss lies higher
    assert charts.sizes_chart([loss("base", 16, 0)]) is None


def test_bars_and_wilson_intervals(tmp_path: Path) -> None:
    found = read_results([saved(tmp_path / "m.json", answered("Q4_0", 7))])
    svg = charts.scores_chart(found.scores) or ""
    width = re.findall(r'<rect x="[\d.]+" y="28.0" width="([\d.]+)"', svg)
    assert float(width[0]) / sum(map(float, width)) == pytest.approx(7 / 20, abs=0.001)
    (ends,) = re.findall(r'<line x1="([\d.]+)" y1="39.0" x2="([\d.]+)" y2="39.0"', svg)
    low, high = ((float(x) - charts.NAMES) / sum(map(float, width)) for x in ends)
    expected = wilson(7, 20)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.001)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "holds no result"),
        ("3", "not a complete result"),
        ('{"rates": 3, "threads": 0, "model": "a", "format": "b"}', "not a complete result"),
        ('{"schema": "fewbit.bench/2"}', "reads version 1"),
        ('{"schema": 5}', "not a complete result"),
        ('{"hello": 1}', "does not show"),
        ('{"kld": {"value": "1"}, "kld_percentiles": {}}', "not a complete result"),
        (json.dumps(answered("a", 3) | {"correct": 10**400}), "not a complete result"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    with pytest.raises(fewbit.FewbitError, match=message):
        read_results([path])


def test_inputs_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "b.json", bench("tiny"))
    before = path.read_bytes()
    assert cli.run(["report", str(path), "--html", str(path)]) == 1
    assert "would be replaced" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert cli.run(["report", str(path), "--html", "a.x", "--md", "a.x"]) == 1
    assert "named twice" in capsys.readouterr().err


def test_pictures(files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    odd = saved(tmp_path / "odd.json", bench("$x^$ " + EVIL))
    given = [str(file) for file in [*files, odd]]
    assert cli.run(["report", *given, "--png", str(tmp_path / "pictures")]) == 0
    made = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    names = ("answers", "percentiles", "positions", "size-loss", "speed")
    assert made == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert (tmp_path / "pictures" / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_browser_shows_it(files: list[Path], tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed")
    page, shot = tmp_path / "r.html", tmp_path / "r.png"
    page.write_text(report_html(read_results(files), EVIL), "utf-8")
    run = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/u"]
    subprocess.run(
        [*run, "--window-size=900,2400", f"--screenshot={shot}", page.as_uri()], check=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    image = pytest.importorskip("matplotlib.image").imread(shot)
    assert image.shape[:2] == (2400, 900)
    blue = (abs(image[..., :3] - [0x1F / 255, 0x6F / 255, 0xEB / 255]) < 0.02).all(-1)
    assert blue.sum() > 500  # points, lines and bars are drawn in their color

"""`fewbit sweep`: the bits of one process, kill -9 and going on, failed cells, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fewbit as package
from fewbit.errors import FewbitError
from fewbit.files.folder_lock import locked_folder
from fewbit.sweep import run
from fewbit.sweep.cells import Base, Cell, Cells, cells_of
from fewbit.sweep.run import Sweep, missing, run_cells, workers_for
from fewbit.sweep.spec import Spec, read_spec
from fewbit.sweep.store import Results
from tests.cli.running import Fewbit

SHORT = ("--ctx", "64", "--chunks", "2")
FOUR = ("sweep", "-f", "Q8_0,Q4_0,Q2_K,original", "--ctx", "64", "--chunks", "6")
MEASURES = ("kld", "kld_error", "ppl", "ppl_base", "same_top", "bits_per_weight")


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "results.jsonl"
    found = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in found if line.endswith("\n")]


def started(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fewbit", *FOUR, "--workers", "1", "--out", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def demo_cells(*formats: str, **options: Any) -> Cells:
    spec = {"models": (("demo", None),), "texts": ("demo",), "acts": ("int8",), "kv": ("f32",)}
    return cells_of(
        Spec(**{**spec, "formats": formats, "ctx": 64, "chunks": 2, **options}),
        {"demo": package.demo.demo_text()},
    )


def test_cells_have_the_bits_of_a_single_process(fewbit: Fewbit, tmp_path: Path) -> None:
    ended = fewbit(
        "sweep", "-f", "Q4_0,original", "--acts", "both", "--kv", "f32,f16", *SHORT,
        "--workers", "2", "--out", str(tmp_path), "--json",
    )  # fmt: skip
    assert ended.code == 0
    assert len(ended.json) == len(lines(tmp_path)) == 8
    base = package.load("demo", "cpu")
    for line in ended.json:
        model = package.load("demo", "cpu", kv=line["kv"])
        if line["format"] != "original":
            model = model.quantize(line["format"])
        found = model.divergence(base, package.demo.demo_text(), ctx=64, chunks=2,
                                 acts=line["acts"])  # fmt: skip
        assert line["kld"] == found.kld.value
        assert line["ppl"] == found.ppl.value
        assert line["ppl_base"] == found.ppl_base.value
        assert line["same_top"] == found.same_top.value
    assert len({(each["kld"], each["ppl"]) for each in ended.json}) == 8
    assert not (tmp_path / "bases").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_killed_sweep_does_what_is_missing(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert started(whole).wait() == 0
    for count in (1, 2):  # killed twice, with another part done
        process = started(cut)
        while len(lines(cut)) < count and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    before = (cut / "results.jsonl").read_bytes()
    with (cut / "results.jsonl").open("ab") as file:
        file.write(b'{"key": "half a li')
    assert started(cut).wait() == 0
    assert (cut / "results.jsonl").read_bytes().startswith(before)
    first, second = ({each["key"]: each for each in lines(each)} for each in (whole, cut))
    assert len(lines(cut)) == 4
    assert [[first[key][n] for n in MEASURES] for key in sorted(first)] == [
        [second[key][n] for n in MEASURES] for key in sorted(second)
    ]
    assert started(cut).wait() == 0
    assert len(lines(cut)) == 4


@pytest.mark.timeout(120)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_no_process_outlives_a_killed_sweep(tmp_path: Path) -> None:
    """The worker waits for ever at a pipe that stands in the place of its base's logits."""
    (tmp_path / "bases").mkdir()
    base = demo_cells("Q8_0", chunks=6).bases[0]
    os.mkfifo(tmp_path / "bases" / f"{base.key}.logits")
    process = started(tmp_path)
    children: list[int] = []
    while len(children) < 2 and process.poll() is None:  # the worker and Python's own helper
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [int(pid) for task in tasks for pid in task.read_text().split()]
    assert len(children) == 2
    time.sleep(3)
    assert all(map(alive, children))
    process.kill()
    process.wait()
    while any(map(alive, children)):
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_a_failed_cell_is_a_line_and_is_tried_again_when_asked(
    fewbit: Fewbit, tmp_path: Path
) -> None:
    command = ("sweep", "-f", "IQ1_S,Q4_0", *SHORT, "--workers", "1", "--out", str(tmp_path))
    ended = fewbit(*command)
    assert ended.code == 1
    assert "1 of 2 cells failed" in ended.err
    failed, good = lines(tmp_path)
    assert not failed["ok"]
    assert "importance matrix" in failed["error"]
    assert good["ok"]
    assert fewbit(*command).code == 1
    assert len(lines(tmp_path)) == 2
    assert fewbit(*command, "--retry-failed").code == 1
    assert [each["attempts"] for each in lines(tmp_path)] == [1, 1, 2]


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_killed_worker_is_a_failed_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "work", killed)
    cells, results = demo_cells("Q4_0", "Q8_0"), Results(tmp_path)
    run_cells(cells.cells, results, tmp_path, 1)
    assert [each["ok"] for each in lines(tmp_path)] == [False, False]
    assert "signal 9" in lines(tmp_path)[0]["error"]
    assert missing(cells, results, False) == []
    assert missing(cells, results, True) == list(cells.cells)


def test_the_base_runs_once_for_all_cells_of_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Base | Cell] = []
    monkeypatch.setattr(Sweep, "run", lambda self: seen.extend(self.waiting))
    cells = demo_cells("Q4_0", "Q8_0", acts=("f32", "int8"))
    run_cells(cells.cells, Results(tmp_path), tmp_path, 2)
    assert [type(each) for each in seen] == [Base, Cell, Cell, Cell, Cell]


def test_logits_are_deleted_when_the_last_cell_of_their_base_is_measured(tmp_path: Path) -> None:
    text = package.demo.demo_text()
    spec = Spec((("demo", None),), ("Q4_0",), ("a", "b"), ("int8",), ("f32",), 64, 2)
    cells = cells_of(spec, {"a": text, "b": text[9_000:]})
    kept: list[list[str]] = []

    def on_line(line: dict[str, Any]) -> None:
        assert line["ok"]
        kept.append([path.stem for path in (tmp_path / "bases").iterdir()])

    run_cells(cells.cells, Results(tmp_path), tmp_path, 1, on_line)
    assert kept == [[base.key] for base in cells.bases]


def test_a_key_changes_with_all_that_changes_a_result(tmp_path: Path) -> None:
    matrix = tmp_path / "m.gguf"
    keys = []
    for content in (b"a", b"b"):
        matrix.write_bytes(content)
        keys.append(demo_cells("Q4_0", models=(("demo", str(matrix)),)).cells[0].key)
    changes: list[dict[str, Any]] = [
        {},
        {"ctx": 32},
        {"chunks": 3},
        {"acts": ("f32",)},
        {"kv": ("f16",)},
    ]
    keys += [demo_cells("Q4_0", **change).cells[0].key for change in changes]
    keys.append(demo_cells("Q8_0").cells[0].key)
    assert len(set(keys)) == len(keys) == 8
    assert demo_cells("q4_0", "Q4_0").cells == demo_cells("Q4_0").cells


def test_a_dry_run_measures_nothing(fewbit: Fewbit, tmp_path: Path) -> None:
    out = tmp_path / "none"
    ended = fewbit("sweep", "-f", "Q4_0,Q8_0", *SHORT, "--out", str(out), "--dry-run", "--json")
    assert ended.code == 0
    assert not out.exists()
    assert (ended.json["cells"], ended.json["to_measure"]) == (2, 2)
    config = package.load("demo").config
    assert ended.json["largest_base_bytes"] == 2 * 31 * config.vocab * 4
    assert [each["state"] for each in ended.json["list"]] == ["missing", "missing"]


def test_workers_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "free_memory", lambda: 10_000)
    monkeypatch.setattr(run, "_cores", lambda: 8)
    cells = Cells((), 3_000)
    assert workers_for(cells, None, None, 40) == 3
    assert workers_for(cells, None, 1_000, 40) == 8
    assert workers_for(cells, None, 20_000, 40) == 1
    assert workers_for(cells, 5, None, 40) == 5
    assert workers_for(cells, 5, 4_000, 40) == 2
    assert workers_for(cells, 5, None, 2) == 2


def test_a_file_says_what_options_say(fewbit: Fewbit, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "models: [{model: demo}]\nformats:\n  - Q4_0\n  - q8_0\ntexts: demo\nacts: both\n"
        "ctx: 64\nchunks: 2\n"
    )
    plans = [
        fewbit("sweep", *options, "--out", str(tmp_path / "o"), "--dry-run", "--json").json
        for options in ((str(spec),), ("-f", "Q4_0,Q8_0", "--acts", "both", *SHORT))
    ]
    assert plans[0]["list"] == plans[1]["list"]
    assert len(plans[0]["list"]) == 4


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("formats: [Q4_0", "not YAML"),
        ("- Q4_0", "a mapping"),
        ("format: Q4_0", "did you mean `formats`"),
        ("formats: [1]", "names under `formats`"),
        ("ctx: many", "`ctx`"),
        ("models: [{imatrix: m}]", "`model` and `imatrix`"),
    ],
)
def test_a_wrong_file_is_refused(text: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(FewbitError) as error:
        read_spec(path)
    assert word in str(error.value)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("-f", "Q4_9"), "Q4_9"),
        ((), "without formats"),
        (("-f", "Q4_0", "--workers", "0"), "workers"),
        (("-f", "Q4_0", "-m", "demo", "-m", "demo", "--imatrix", "a"), "importance matrices"),
        (("-f", "Q4_0", "--acts", "int9"), "int9"),
        (("-f", "Q4_0", "--memory-per-worker", "much"), "much"),
        (("-f", "Q4_0", "-m", "no-such-model.gguf"), "no-such-model"),
    ],
)
def test_a_wrong_command_is_refused(
    options: tuple[str, ...], word: str, fewbit: Fewbit, tmp_path: Path
) -> None:
    ended = fewbit("sweep", *options, "--out", str(tmp_path / "o"))
    assert ended.code == 1
    assert word in ended.err
    assert not (tmp_path / "o" / "results.jsonl").exists()


def test_two_sweeps_do_not_share_a_folder(fewbit: Fewbit, tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        ended = fewbit("sweep", "-f", "Q4_0", *SHORT, "--out", str(tmp_path))
    assert ended.code == 1
    assert "another process" in ended.err


def test_a_damaged_line_is_named(fewbit: Fewbit, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"key": 1}\n')
    ended = fewbit("sweep", "-f", "Q4_0", *SHORT, "--out", str(tmp_path))
    assert ended.code == 1
    assert "line 1" in ended.err

"""2,000 hostile inputs, none of which ends the process, hangs, or raises what no caller expects."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.hostile.__main__ import run
from tests.hostile.inputs import make, prepare

INPUTS = int(os.environ.get("FEWBIT_HOSTILE_INPUTS", "2000"))
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the limits are those of POSIX")
SEED = int(os.environ.get("FEWBIT_HOSTILE_SEED", "1"))


@pytest.mark.timeout(600)
def test_hostile_inputs(tmp_path: Path) -> None:
    """Slow machines need more than a minute; FEWBIT_HOSTILE_SEED and _INPUTS choose others."""
    kept = Path(os.environ.get("FEWBIT_HOSTILE_KEEP", tmp_path / "kept"))
    found = run(SEED, INPUTS, os.cpu_count() or 1, kept)
    assert found.failures == [], f"python -m tests.hostile --seed {SEED} repeats them; see {kept}"
    assert found.done == INPUTS


def test_an_input_follows_from_its_seed_and_number(tmp_path: Path) -> None:
    seeds = prepare(tmp_path / "models", few=True)
    for number in range(30):
        found = []
        for copy in "abc":
            folder = tmp_path / f"{number}{copy}"
            folder.mkdir()
            path = make(seeds, 1 if copy != "c" else 2, number, folder)
            files = sorted(p for p in (path.rglob("*") if path.is_dir() else [path]))
            found.append([(p.name, p.read_bytes()) for p in files])
        assert found[0] == found[1]
        assert found[0] != found[2]


def test_a_run_notices_crashes_hangs_and_wrong_exceptions(tmp_path: Path) -> None:
    found = run(1, 12, 1, tmp_path, exercise="tests.hostile.broken", seconds=0.5)
    wrong = [f for f in found.failures if f.endswith("ZeroDivisionError in x.py:1: none")]
    crashed = [f for f in found.failures if f" process with {-signal.SIGABRT}" in f]
    slow = [f for f in found.failures if f" process with {-signal.SIGPROF}" in f]
    assert wrong
    assert crashed
    assert slow
    assert "broken.py" in slow[0]
    assert len(found.failures) == len(wrong) + len(crashed) + len(slow) < 12
    assert found.done == 12 - len(crashed) - len(slow)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"1-{failure.split()[0]}" for failure in found.failures
    }

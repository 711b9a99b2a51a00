"""Exercise inputs one after the other, and print a line before and after each for the parent.

An input has 5 seconds of this process's time and 1.5 GiB of memory besides what imports take. The
system ends the process that needs longer, after Python has printed where it was.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from tests.hostile.inputs import Seeds, keep, make

MEMORY = 3 << 29
Exercise = Callable[[Path, Path, Random], Iterator[str]]
"""Use an input, with an empty folder to write to; give what went wrong."""


def main() -> None:
    """Run the inputs FIRST, FIRST + STEP, ... below END."""
    options = argparse.ArgumentParser()
    for name in ("--seed", "--first", "--step", "--end"):
        options.add_argument(name, type=int, required=True)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--exercise", default="tests.hostile.exercise")
    for name in ("--models", "--keep"):
        options.add_argument(name, type=Path, required=True)
    o = options.parse_args()
    lines = (o.models / "seeds.txt").read_text("utf-8").splitlines()
    kinds = [
        [Path(p) for k, p in (line.split(" ", 1) for line in lines) if k == kind] for kind in "dgi"
    ]
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    _limit_memory()
    for number in range(o.first, o.end, o.step):
        _run(Seeds(*kinds), number, o)


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def _run(seeds: Seeds, number: int, o: argparse.Namespace) -> None:
    exercise: Exercise = importlib.import_module(o.exercise).exercise
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        (Path(folder) / "out").mkdir()
        path = make(seeds, o.seed, number, Path(folder) / "in")
        target = o.keep / f"{o.seed}-{number}"
        keep(path, target)
        print(f"start {number}", flush=True)
        signal.setitimer(signal.ITIMER_PROF, o.seconds)
        failures = list(exercise(path, Path(folder) / "out", Random(f"{o.seed}:{number}")))
        signal.setitimer(signal.ITIMER_PROF, 0)
        for failure in failures:
            print(f"failure {number} {failure}".replace("\n", " "), flush=True)
        if not failures:
            shutil.rmtree(target)
    print(f"end {number}", flush=True)


if __name__ == "__main__":
    main()

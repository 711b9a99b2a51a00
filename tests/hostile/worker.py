"""Exercise inputs one after the other, and print a line before and after each for the parent.

An input has 5 seconds of this process's time and 1.5 GiB of memory besides what imports take. The
system ends the process that needs longer, after Python has printed where it was.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.hostile.exercise import exercise
from tests.hostile.inputs import Seeds, keep, make

SECONDS = 5.0
MEMORY = 3 << 29


def main() -> None:
    """Run the inputs FIRST, FIRST + STEP, ... below END."""
    options = argparse.ArgumentParser()
    for name in ("--seed", "--first", "--step", "--end"):
        options.add_argument(name, type=int, required=True)
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
        _run(Seeds(*kinds), o.seed, number, o.keep)


def _limit_memory() -> None:
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def _run(seeds: Seeds, seed: int, number: int, kept: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        (Path(folder) / "out").mkdir()
        path = make(seeds, seed, number, Path(folder) / "in")
        target = kept / f"{seed}-{number}"
        keep(path, target)
        print(f"start {number}", flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        failures = list(exercise(path, Path(folder) / "out", Random(f"{seed}:{number}")))
        signal.setitimer(signal.ITIMER_PROF, 0)
        for failure in failures:
            print(f"failure {number} {failure}".replace("\n", " "), flush=True)
        if not failures:
            shutil.rmtree(target)
    print(f"end {number}", flush=True)


if __name__ == "__main__":
    main()

"""Run hostile inputs through fewbit, several processes at a time: `python -m tests.hostile --help`.

A run is the same for the same seed. Inputs that end a process, take longer than 5 seconds, or raise
something else than an error of fewbit stay in a folder, and the last lines name them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.inputs import prepare

ROOT = Path(__file__).parents[2]
WAIT = 90.0
"""Seconds of an input by the clock, on a machine that does other things too."""


@dataclass
class Run:
    """One run: its inputs, and what went wrong with which."""

    seed: int
    inputs: int
    models: Path
    kept: Path
    exercise: str
    seconds: float
    done: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lane(self, first: int, step: int) -> None:
        """Exercise every `step`th input from `first` on, in as many processes as it takes."""
        while first < self.inputs:
            first = self._process(first, step)

    def _process(self, first: int, step: int) -> int:
        """Run one process to its end; return the number of the next input."""
        options = {
            "seed": self.seed, "first": first, "step": step, "end": self.inputs,
            "exercise": self.exercise, "seconds": self.seconds,
        }  # fmt: skip
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "tests.hostile.worker", *words]
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                [*command, "--models", str(self.models), "--keep", str(self.kept)],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
            ) as process:  # fmt: skip
                current = self._follow(process, first)
            if process.returncode == 0:
                return self.inputs
            errors.seek(0)
            lines = errors.read().decode(errors="replace").splitlines()
        where = [line.strip() for line in lines if "File " in line][:4]
        self._fail(f"{current} ended the process with {process.returncode}: {lines[-1:]} {where}")
        return current + step

    def _follow(self, process: subprocess.Popen[str], current: int) -> int:
        """Read the lines of a process; the number of the last input that it started."""
        assert process.stdout is not None
        timer = threading.Timer(WAIT, process.kill)
        timer.start()
        for line in process.stdout:
            word, number, *rest = line.rstrip("\n").split(" ", 2)
            if word == "start":
                current = int(number)
                timer.cancel()
                timer = threading.Timer(WAIT, process.kill)
                timer.start()
            elif word == "failure":
                self._fail(f"{number} {rest[0]}")
            else:
                with self.lock:
                    self.done += 1
        timer.cancel()
        return current

    def _fail(self, what: str) -> None:
        with self.lock:
            self.failures.append(what)
            print(f"seed {self.seed}, input {what}", flush=True)


def run(
    seed: int,
    inputs: int,
    jobs: int,
    kept: Path,
    first: int = 0,
    *,
    exercise: str = "tests.hostile.exercise",
    seconds: float = 5.0,
) -> Run:
    """Exercise inputs `first` to `inputs` of a seed in `jobs` processes."""
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        seeds = prepare(models)
        kinds = zip("dgi", (seeds.folders, seeds.files, seeds.matrices), strict=True)
        lines = [f"{kind} {path}" for kind, paths in kinds for path in paths]
        (models / "seeds.txt").write_text("\n".join(lines), "utf-8")
        found = Run(seed, inputs, models, kept, exercise, seconds)
        lanes = [
            threading.Thread(target=found.lane, args=(first + lane, jobs)) for lane in range(jobs)
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Run what the command line says; 1 if an input failed."""
    options = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--inputs", type=int, default=2000)
    options.add_argument("--only", type=int, help="this input alone")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options.add_argument("--keep", type=Path, default=Path("hostile-inputs"))
    o = options.parse_args(words)
    first, inputs = (0, o.inputs) if o.only is None else (o.only, o.only + 1)
    found = run(o.seed, inputs, 1 if o.only is not None else o.jobs, o.keep, first)
    print(f"seed {o.seed}: {found.done} inputs, {len(found.failures)} failures", flush=True)
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())

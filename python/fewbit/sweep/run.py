"""Run the cells of a sweep in processes of this machine, and append each result at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fewbit import _core
from fewbit.measure.candidates import free_memory
from fewbit.reports.write import plain
from fewbit.sweep.cells import Base, Cell, Cells
from fewbit.sweep.store import Line, Results
from fewbit.sweep.worker import base_path, work


@dataclass
class Process:
    """A process at work on a task."""

    task: Base | Cell
    process: BaseProcess
    results: Connection

    def outcome(self) -> tuple[str, Any]:
        """What it sent; that it ended without a word if it did."""
        try:
            found: tuple[str, Any] = self.results.recv()
        except (EOFError, OSError):
            self.process.join()
            found = "failed", _ending(self.process.exitcode or 0)
        self.process.join()
        self.results.close()
        self.process.close()
        return found


def _ending(code: int) -> str:
    if code < 0:
        return f"the process was ended by signal {-code}, as a system without free memory does"
    return f"the process ended with exit code {code}"


def workers_for(cells: Cells, most: int | None, memory: int | None, count: int) -> int:
    """How many processes work at once: `most`, or as many as cores, memory and `count` cells allow.

    `memory` is what a process takes, in bytes; by default the estimate of the largest cell.
    """
    free = free_memory()
    fit = count if free is None else free // max(1, memory or cells.memory)
    found = most if most is not None else min(_cores(), fit)
    return max(1, min(found, fit if memory else found, count))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def missing(cells: Cells, results: Results, retry_failed: bool) -> list[Cell]:
    """The cells that no line tells of; with `retry_failed` those that failed too."""

    def lacks(cell: Cell) -> bool:
        line = results.lines.get(cell.key)
        return line is None or (retry_failed and not line["ok"])

    return [cell for cell in cells.cells if lacks(cell)]


@dataclass
class Sweep:
    """A sweep under way: what waits, what runs, which bases are there."""

    folder: Path
    results: Results
    workers: int
    waiting: list[Base | Cell]
    on_line: Callable[[Line], None] | None = None
    running: list[Process] = field(default_factory=list)
    ready: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Do all that waits. However this ends, no process stays."""
        try:
            while self.waiting or self.running:
                self._start()
                ended = wait([each.results for each in self.running])
                for each in [each for each in self.running if each.results in ended]:
                    self.running.remove(each)
                    self._finish(each.task, *each.outcome())
        finally:
            for each in self.running:
                each.process.kill()
                each.process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        while len(self.running) < self.workers and (task := self._next()) is not None:
            self.waiting.remove(task)
            receiver, sender = context.Pipe(duplex=False)
            threads = max(1, _cores() // self.workers)
            process = context.Process(target=work, args=(task, self.folder, threads, sender))
            process.start()
            sender.close()
            self.running.append(Process(task, process, receiver))

    def _next(self) -> Base | Cell | None:
        """The first task that can start: a base, or a cell whose base is there."""
        return next(
            (t for t in self.waiting if isinstance(t, Base) or t.base.key in self.ready), None
        )

    def _finish(self, task: Base | Cell, state: str, found: Any) -> None:
        if isinstance(task, Cell):
            self._write(task, state, found)
            self._drop(task.base)
        elif state == "done":
            self.ready.add(task.key)
        else:
            lost = [t for t in self.waiting if isinstance(t, Cell) and t.base.key == task.key]
            for cell in lost:
                self.waiting.remove(cell)
                self._write(cell, state, f"the model as it is could not be run: {found}")

    def _write(self, cell: Cell, state: str, found: Any) -> None:
        before = self.results.lines.get(cell.key, {}).get("attempts", 0)
        measured = found if state == "done" else {"error": found}
        line = {
            **cell.names, "ok": state == "done", **plain(measured), "attempts": before + 1,
            "fewbit": _core.__version__,
        }  # fmt: skip
        self.results.append(line)
        if self.on_line:
            self.on_line(line)

    def _drop(self, base: Base) -> None:
        """Delete a base's logits when no cell needs them any more."""
        left = [*self.waiting, *(each.task for each in self.running)]
        if not any(isinstance(task, Cell) and task.base.key == base.key for task in left):
            base_path(base, self.folder).unlink(missing_ok=True)


def run_cells(
    wanted: Sequence[Cell],
    results: Results,
    folder: Path,
    workers: int,
    on_line: Callable[[Line], None] | None = None,
) -> None:
    """Measure `wanted` and append a line for each; `on_line` gets each line.

    The caller holds the lock of `folder`. Bits do not depend on `workers`.

    Raises:
        OSError: the results cannot be written.

    """
    kept = folder / "bases"
    kept.mkdir(parents=True, exist_ok=True)
    waiting: list[Base | Cell] = []
    seen: set[str] = set()
    for cell in wanted:
        if cell.base.key not in seen:
            seen.add(cell.base.key)
            waiting.append(cell.base)
        waiting.append(cell)
    Sweep(kept, results, workers, waiting, on_line).run()
    shutil.rmtree(kept)

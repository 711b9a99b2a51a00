"""Measure several models against one base: side by side, or one after the other.

Side by side all models are in memory and walk the text together; the base runs once per window and
no logits are stored. Where the models do not fit, the base runs first and its logits go to a file
(`base_rows`); then one model after the other is loaded, measured and freed. Both ways give the same
bits on the CPU. With a folder for results, each window is kept on disk when it is measured, and an
interrupted comparison goes on behind the last.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fewbit.callbacks import Progress
from fewbit.measure.base_rows import BaseRows, batch_sizes
from fewbit.measure.candidates import Candidate
from fewbit.measure.evaluate import Variant, Windows, scored_rows
from fewbit.measure.identity import digest, identity
from fewbit.measure.paired import is_decided
from fewbit.measure.significance import looks
from fewbit.measure.speed import Case, Filled
from fewbit.measure.token_values import TokenValues
from fewbit.run.limits import BATCH
from fewbit.run.predictions import Ids, Predictions

SPEED_TOKENS = 64

Batches: TypeAlias = Iterator[tuple[Predictions, Ids]]


@dataclass
class Measured:
    """A candidate's values by kind of activations, its speed, and the seconds of measuring."""

    candidate: Candidate
    values: dict[str, TokenValues]
    notes: Path | None = None
    tokens_per_second: float | None = None
    seconds: float = 0.0

    def lacks(self, window: int) -> bool:
        """Whether the window has not been measured with each kind of activations."""
        return any(len(values) <= window for values in self.values.values())

    def finish(self) -> None:
        """Measure the speed, if it is not known, and write down what is not in the values."""
        if self.tokens_per_second is None:
            self.tokens_per_second = _speed(self.candidate)
            if self.notes is not None:
                facts = {"name": self.candidate.name, "tokens_per_second": self.tokens_per_second}
                self.notes.write_text(json.dumps(facts) + "\n", "utf-8")


@dataclass
class Job:
    """A comparison under way: the base, the text's windows, and what is measured so far."""

    base: Variant
    windows: Windows
    rows: list[Measured]
    progress: Progress | None = None
    folder: Path | None = None
    key: str = ""
    """Names the base, the text and the window in file names of `folder`."""
    looks: list[int] = field(default_factory=list)
    """Windows after which the run stops if the order is decided; none if it never does."""
    look: int = 0
    """The look at which it ended."""

    @property
    def count(self) -> int:
        """Windows of the text; after an early stop those that were measured."""
        return self.windows.count if not self.look else self.looks[self.look - 1]

    @property
    def compared(self) -> dict[str, TokenValues]:
        """The values that decide, with int8 activations where these differ; without the base's."""
        return {
            row.candidate.name: list(row.values.values())[-1]
            for row in self.rows
            if row.candidate.model is not self.base.model
        }


def started(
    base: Variant,
    windows: Windows,
    found: Sequence[Candidate],
    text: str,
    progress: Progress | None = None,
    folder: Path | None = None,
    *,
    until_significant: bool = False,
) -> Job:
    """A job with what earlier runs left in `folder`; `text` is what the windows are cut from."""
    stops = looks(windows.count) if until_significant else []
    key = ""
    if folder is not None:
        first = int(windows.inputs[0, 0])
        key = digest([windows.ctx, text, first, identity(base.model), base.acts])
    job = Job(base, windows, [], progress, folder, key, stops)
    job.rows += [_measured(job, candidate) for candidate in found]
    return job


def _measured(job: Job, candidate: Candidate) -> Measured:
    """What `job.folder` has of a candidate."""
    scored, kinds = job.windows.scored.shape[1], [str(v.acts) for v in candidate.variants]
    if job.folder is None:
        return Measured(candidate, {acts: TokenValues(scored) for acts in kinds})
    key = digest([job.key, identity(candidate.model)])
    values = {acts: TokenValues(scored, job.folder / f"{key}-{acts}.values") for acts in kinds}
    notes = job.folder / f"{key}.json"
    facts = json.loads(notes.read_text("utf-8")) if notes.exists() else {}
    return Measured(candidate, values, notes, facts.get("tokens_per_second"))


def run_together(job: Job) -> None:
    """Measure all rows window by window; all models are in memory."""
    runs = {
        (id(row), acts): _run(job, variant) for row in job.rows for acts, variant in _kinds(row)
    }
    base = _run(job, job.base)
    start = time.perf_counter()
    for window in range(job.windows.count):
        lacking = [row for row in job.rows if row.lacks(window)]
        if lacking:
            _measure_window(job, window, lacking, base, runs)
        for row in job.rows:
            row.seconds = time.perf_counter() - start
        if job.progress:
            job.progress(window + 1, job.windows.count, "measuring")
        if window + 1 in job.looks:
            look = job.looks.index(window + 1) + 1
            seen = {name: values.first(window + 1) for name, values in job.compared.items()}
            if is_decided(seen, look) or window + 1 == job.windows.count:
                job.look = look
                break
    for row in job.rows:
        row.finish()


def run_one_by_one(job: Job, on_row: Callable[[Measured], None] | None = None) -> None:
    """Measure one row after the other; only one model is in memory, the base's logits on disk."""
    count = job.windows.count
    with ExitStack() as stack:
        kept = _base_rows(job, stack) if any(row.lacks(count - 1) for row in job.rows) else None
        for done, row in enumerate(job.rows):
            start = time.perf_counter()
            if kept is not None and row.lacks(count - 1):
                _measure_row(job, row, kept)
            row.finish()
            row.seconds = time.perf_counter() - start
            row.candidate.model.close()
            if job.progress:
                job.progress(done + 1, len(job.rows), f"measured {row.candidate.name}")
            if on_row:
                on_row(row)
        if kept is not None:
            kept.delete()


def _kinds(row: Measured) -> Iterable[tuple[str, Variant]]:
    return ((variant.acts, variant) for variant in row.candidate.variants)


_Runner: TypeAlias = Callable[[int], Batches]


def _run(job: Job, variant: Variant) -> _Runner:
    """A function that gives the scored rows of a window; its cache is made at the first call."""
    found, cache = job.windows, list[Any]()

    def rows(window: int) -> Batches:
        if not cache:
            cache.append(variant.model.cache(1, found.ctx))
        yield from scored_rows(
            variant, cache[0], found.inputs[window], found.targets[window], found.first
        )

    return rows


def _measure_window(
    job: Job, window: int, lacking: Sequence[Measured], base: _Runner,
    runs: dict[tuple[int, str], _Runner],
) -> None:  # fmt: skip
    """Run the base and all variants that lack a window, batch by batch; add what is measured."""
    wanted = [
        (values, None if variant == job.base else runs[id(row), acts](window))
        for row in lacking
        for acts, variant in _kinds(row)
        if len(values := row.values[acts]) <= window
    ]
    found: list[list[dict[str, Any]]] = [[] for _ in wanted]
    for base_rows, targets in base(window):
        for batches, (_, stream) in zip(found, wanted, strict=True):
            rows = base_rows if stream is None else next(stream)[0]
            batches.append(rows.divergence(base_rows, targets))
    for _, stream in wanted:
        if stream is not None:
            next(stream, None)  # the generator's end frees its rows
    for batches, (values, _) in zip(found, wanted, strict=True):
        values.append(batches)


def _base_rows(job: Job, stack: ExitStack) -> BaseRows:
    """The base's logits of all windows, as far as they are not there yet, in a file."""
    scored, vocab = job.windows.scored.shape[1], job.base.model.config.vocab
    if job.folder is None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewbit-")))
        path = folder / "base.logits"
    else:
        path = job.folder / f"{job.key}.logits"
    kept = BaseRows(path, scored, vocab, job.windows.count)
    run = _run(job, job.base)
    for window in range(kept.count, job.windows.count):
        kept.append([rows.logits() for rows, _ in run(window)])
        if job.progress:
            job.progress(window + 1, job.windows.count, "running the base")
    if job.rows[0].candidate.model is not job.base.model:
        job.base.model.close()
    return kept


def _measure_row(job: Job, row: Measured, kept: BaseRows) -> None:
    windows = job.windows
    sizes = batch_sizes(windows.scored.shape[1], windows.first, BATCH)
    for acts, variant in _kinds(row):
        run, values = _run(job, variant), row.values[acts]
        for window in range(len(values), windows.count):
            base = kept.batches(window, sizes)
            if variant == job.base:
                targets = np.split(windows.scored[window], np.cumsum(sizes)[:-1])
                values.append([
                    rows.divergence(rows, np.ascontiguousarray(ids))
                    for rows, ids in zip(base, targets, strict=True)
                ])  # fmt: skip
            else:
                values.append([
                    rows.divergence(next(base), ids) for rows, ids in run(window)
                ])  # fmt: skip
            if job.progress:
                job.progress(window + 1, windows.count, f"measuring {row.candidate.name}")


def _speed(candidate: Candidate) -> float:
    """Generated tokens per second, int8 activations."""
    model = candidate.model
    count = min(SPEED_TOKENS, model.config.context)
    Filled(model, Case("tg", min(4, count)), "int8").measure()
    return Filled(model, Case("tg", count), "int8").measure()

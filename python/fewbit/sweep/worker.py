"""Measure one cell, or run one base, in a process of its own."""

from __future__ import annotations

import os
import threading
import time
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fewbit.api import Model, load
from fewbit.errors import FewbitError
from fewbit.files.importance import read_imatrix
from fewbit.measure.base_rows import BaseRows, batch_sizes
from fewbit.measure.candidates import Candidate
from fewbit.measure.evaluate import Tally, Variant, Windows, scored_rows, windows
from fewbit.measure.results import Divergence
from fewbit.run.limits import BATCH
from fewbit.sweep.cells import ORIGINAL, Base, Cell


def work(task: Base | Cell, folder: Path, threads: int, results: Connection) -> None:
    """Do a task and send what came out: ("done", measures) or ("failed", message)."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        if isinstance(task, Base):
            run_base(task, folder, threads)
            found: dict[str, Any] = {}
        else:
            found = measure(task, folder, threads)
        results.send(("done", found))
    except FewbitError as error:
        results.send(("failed", error.message))
    except MemoryError:
        results.send(("failed", "out of memory"))
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:  # one cell must not end the sweep; a panic is no Exception
        results.send(("failed", f"{type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    """End this process when its parent is gone, however that ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def base_path(base: Base, folder: Path) -> Path:
    """The file of a base's logits."""
    return folder / f"{base.key}.logits"


def run_base(base: Base, folder: Path, threads: int) -> None:
    """Write the logits of a base, as far as they are not there."""
    model = load(base.model, "cpu", threads=threads)
    cut = windows(model, base.content, base.ctx, base.chunks)
    kept = _rows(model, cut, base_path(base, folder))
    cache = model.cache(1, cut.ctx)
    for window in range(kept.count, cut.count):
        kept.append([
            rows.logits()
            for rows, _ in scored_rows(
                Variant(model, "f32"), cache, cut.inputs[window], cut.targets[window], cut.first
            )
        ])  # fmt: skip


def measure(cell: Cell, folder: Path, threads: int) -> dict[str, Any]:
    """The measures of a cell against the logits of its base in `folder`."""
    base, start = cell.base, time.perf_counter()
    model = load(base.model, "cpu", threads=threads, kv=cell.kv)
    cut = windows(model, base.content, base.ctx, base.chunks)
    if cell.format != ORIGINAL:
        imatrix = None if cell.imatrix is None else read_imatrix(cell.imatrix)
        model = model.quantize(cell.format, imatrix)
    kept = _rows(model, cut, base_path(base, folder))
    sizes = batch_sizes(cut.scored.shape[1], cut.first, BATCH)
    cache, tally, variant = model.cache(1, cut.ctx), Tally(), Variant(model, cell.acts)
    for window in range(cut.count):
        before = kept.batches(window, sizes)
        inputs, targets = cut.inputs[window], cut.targets[window]
        for rows, ids in scored_rows(variant, cache, inputs, targets, cut.first):
            tally.add(rows.divergence(next(before), ids))
    found = tally.result(cell.acts, "f32", cut, start)
    return _measures(found, Candidate(cell.format, model), time.perf_counter() - start)


def _rows(model: Model, cut: Windows, path: Path) -> BaseRows:
    return BaseRows(path, cut.scored.shape[1], model.config.vocab, cut.count)


def _measures(found: Divergence, candidate: Candidate, seconds: float) -> dict[str, Any]:
    sizes = candidate.sizes
    return {
        "kld": found.kld.value, "kld_error": found.kld.error,
        "kld_99": found.kld_percentiles[99.0], "kld_max": found.kld_percentiles[100.0],
        "ppl": found.ppl.value, "ppl_error": found.ppl.error, "ppl_base": found.ppl_base.value,
        "ln_ratio": found.ln_ratio.value, "ln_ratio_error": found.ln_ratio.error,
        "same_top": found.same_top.value, "bits_per_weight": sizes.bits_per_weight,
        "bytes": sizes.bytes, "chunks": found.sample.chunks, "tokens": found.sample.tokens,
        "seconds": seconds,
    }  # fmt: skip

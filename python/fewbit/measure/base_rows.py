"""Keep a base's logits of all scored tokens in a file, so that the base runs once for many models.

Models that do not fit into memory together run one after the other; each reads the base's rows from
the file. The rows are f32 as the base computed them, so a divergence has the bits that it has when
the models run side by side.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fewbit.errors import InputError
from fewbit.run.predictions import Logits, OnHost


class BaseRows:
    """Rows [scored, vocab] of windows, appended to a file one window after the other."""

    def __init__(self, path: Path, scored: int, vocab: int, windows: int) -> None:
        self._path, self._shape = path, (scored, vocab)
        self._bytes = scored * vocab * 4
        stored = path.stat().st_size if path.exists() else 0
        self.count = min(stored // self._bytes, windows)
        self._check_space(windows)
        with path.open("ab") as file:
            file.truncate(self.count * self._bytes)

    def append(self, rows: list[Logits]) -> None:
        """Add a window, whose rows come in batches.

        Raises:
            OSError: the disk is full.

        """
        with self._path.open("ab") as file:
            for batch in rows:
                file.write(np.ascontiguousarray(batch, np.float32).data)
        self.count += 1

    def batches(self, window: int, sizes: list[int]) -> Iterator[OnHost]:
        """The rows of a window in batches of `sizes`, as they were appended."""
        rows = np.fromfile(
            self._path, np.float32, self._bytes // 4, offset=window * self._bytes
        ).reshape(self._shape)
        start = 0
        for size in sizes:
            yield OnHost(rows[start : start + size])
            start += size

    def delete(self) -> None:
        """Delete the file: all models are measured."""
        self._path.unlink(missing_ok=True)

    def _check_space(self, windows: int) -> None:
        needed = (windows - self.count) * self._bytes
        free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise InputError(
                f"the base's logits take {needed / 1e9:.1f} GB in `{self._path.parent}`, which has "
                f"{free / 1e9:.1f} GB free",
                hint="measure fewer windows (`--chunks`), or name a folder elsewhere (`--out`)",
                needed=needed, free=free,
            )  # fmt: skip


def batch_sizes(scored: int, first: int, batch: int) -> list[int]:
    """How many scored rows each batch of a window gives; row `first` is the first of them."""
    end = first + scored
    starts = [first, *range((first // batch + 1) * batch, end, batch)]
    return [stop - start for start, stop in zip(starts, [*starts[1:], end], strict=True)]

"""Hold the measures of each scored token, window by window, in memory or also in a file.

With a file a measurement survives its process: each window is appended when it is measured, with a
checksum, and the next run goes on behind the last complete one.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.measure.clusters import Values, equal_windows, mean_of_windows
from fewbit.measure.results import Estimate

NAMES = ("nll_base", "nll", "kld", "dp")
"""f64 values of a token; `same_top`, a byte, comes behind them."""

CHECKSUM = 4


class TokenValues:
    """The measures of `scored` tokens in each of the windows measured so far."""

    def __init__(self, scored: int, path: Path | None = None) -> None:
        self.scored = scored
        self._path = path
        self._windows: list[dict[str, NDArray[Any]]] = []
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._windows)

    def append(self, batches: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Add a window, whose tokens come in batches; with a file it is written at once.

        Raises:
            OSError: the file cannot be written.

        """
        window: dict[str, NDArray[Any]] = {
            name: np.concatenate([batch[name] for batch in batches]).astype(np.float64)
            for name in NAMES
        }
        same = np.concatenate([batch["same_top"] for batch in batches])
        window["same_top"] = same.astype(np.bool_)
        self._windows.append(window)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(_record(window))
                file.flush()
                os.fsync(file.fileno())

    def first(self, count: int) -> TokenValues:
        """The first `count` windows."""
        found = TokenValues(self.scored)
        found._windows = self._windows[:count]
        return found

    def tokens(self, name: str) -> NDArray[Any]:
        """All values called `name`, one for each scored token."""
        return np.concatenate([window[name] for window in self._windows])

    def count_nonfinite(self) -> int:
        """How many tokens have a measure that is not finite."""
        values = np.stack([self.tokens(name) for name in NAMES])
        return int(values.shape[1] - np.isfinite(values).all(axis=0).sum())

    def difference(self, other: TokenValues, name: str) -> Estimate:
        """The mean of this value minus `other`'s, token by token; its error is by windows."""
        differences: Values = self.tokens(name).astype(np.float64) - other.tokens(name)
        return mean_of_windows(differences, equal_windows(differences.size, len(self)))

    def _read(self, path: Path) -> None:
        """Take the complete windows of the file; what a killed process left behind them is cut."""
        size, content = len(NAMES) * 8 * self.scored + self.scored + CHECKSUM, path.read_bytes()
        for start in range(0, len(content) - size + 1, size):
            window = _window(content[start : start + size], self.scored)
            if window is None:
                break
            self._windows.append(window)
        if len(content) != size * len(self):
            os.truncate(path, size * len(self))


def _record(window: Mapping[str, NDArray[Any]]) -> bytes:
    values = b"".join(window[name].astype("<f8").tobytes() for name in NAMES)
    data = values + window["same_top"].astype(np.uint8).tobytes()
    return data + zlib.crc32(data).to_bytes(CHECKSUM, "little")


def _window(record: bytes, scored: int) -> dict[str, NDArray[Any]] | None:
    """The values of a record, None if its checksum is wrong."""
    data, checksum = record[:-CHECKSUM], record[-CHECKSUM:]
    if zlib.crc32(data).to_bytes(CHECKSUM, "little") != checksum:
        return None
    values = np.frombuffer(data, "<f8", len(NAMES) * scored).reshape(len(NAMES), scored)
    found: dict[str, NDArray[Any]] = dict(zip(NAMES, values.astype(np.float64), strict=True))
    found["same_top"] = np.frombuffer(data, np.uint8, offset=values.nbytes).astype(np.bool_)
    return found

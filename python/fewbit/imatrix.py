"""Importance matrices as ``llama-imatrix`` writes them: GGUF, or the older .dat."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.io.gguf import Entry, read_gguf

SUMS, COUNTS = ".in_sum2", ".counts"


def read_imatrix(path: Path) -> dict[str, NDArray[np.float32]]:
    """The mean squared input of each column, float32 [columns], by tensor name.

    Raises:
        FileFormatError: the file is truncated, or no importance matrix.
        UnsupportedError: it has one matrix per expert.
        OSError: the file cannot be read.

    """
    with path.open("rb") as file:
        magic = file.read(4)
    found = _from_gguf(path) if magic == b"GGUF" else _from_dat(path)
    if not found:
        raise _damaged(path, "it has no entries")
    for name, weights in found.items():
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise _damaged(path, f"`{name}` has values that are negative or not finite")
    return found


def _from_gguf(path: Path) -> dict[str, NDArray[np.float32]]:
    tensors = read_gguf(path).tensors
    found = {}
    for name in (n.removesuffix(SUMS) for n in tensors if n.endswith(SUMS)):
        if name + COUNTS not in tensors:
            raise _damaged(path, f"`{name}` has sums but no counts")
        sums = _floats(path, name, tensors[name + SUMS])
        counts = _floats(path, name, tensors[name + COUNTS])
        if counts.size != 1:
            raise UnsupportedError(
                f"`{path}`: `{name}` has {counts.size} matrices", hint="known: dense models"
            )
        found[name] = sums / counts[0] if counts[0] > 0 else np.ones_like(sums)
    return found


def _floats(path: Path, name: str, entry: Entry) -> NDArray[np.float32]:
    if entry.format != "F32":
        raise _damaged(path, f"`{name}` is stored as {entry.format}, expected F32")
    return entry.data.reshape(-1).view("<f4").astype(np.float32)


def _from_dat(path: Path) -> dict[str, NDArray[np.float32]]:
    """i32 entries; each: i32 length, name, i32 calls, i32 columns, f32 sums over all calls."""
    data, at = path.read_bytes(), 0

    def take(count: int) -> bytes:
        nonlocal at
        if count < 0 or count > len(data) - at:
            raise _damaged(path, f"{count} bytes at {at} are more than are left")
        at += count
        return data[at - count : at]

    def number() -> int:
        return int(struct.unpack("<i", take(4))[0])

    found = {}
    for _ in range(number()):
        name = take(number()).decode(errors="replace")
        calls, columns = number(), number()
        sums = np.frombuffer(take(4 * columns), "<f4").astype(np.float32)
        found[name] = sums / np.float32(max(calls, 1))
    return found


def _damaged(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"`{path}` is not a whole importance matrix: {reason}",
        hint="make it again with llama-imatrix",
        path=str(path),
    )

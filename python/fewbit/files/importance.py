"""Read importance matrices that ``llama-imatrix`` wrote: GGUF files, or the older .dat files."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError
from fewbit.files.gguf import Metadata, TensorInfo, read_gguf
from fewbit.files.mapped import intact

SUMS, COUNTS = ".in_sum2", ".counts"
LONGEST = 127
"""Most bytes of a text that llama.cpp writes as metadata."""


@dataclass(frozen=True, eq=False)
class Imatrix(Mapping[str, NDArray[np.float32]]):
    """Mean squared activation of each input column, float32, by tensor name.

    A matrix has [columns], experts stored as one tensor have [experts * columns] in their order.
    `datasets` and `chunks` (windows of text) are what the matrix was collected from, if known.
    """

    entries: Mapping[str, NDArray[np.float32]] = field(repr=False)
    file: str = ""
    datasets: tuple[str, ...] = ()
    chunks: int = 0

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def read_imatrix(path: str | PathLike[str]) -> Imatrix:
    """Read an importance matrix from a GGUF or .dat file.

    Raises:
        FileFormatError: the file is truncated or not an importance matrix.
        UnsupportedError: the GGUF version or a tensor format of the file is unknown.
        OSError: the file cannot be read.

    """
    path = Path(path)
    with path.open("rb") as file:
        magic = file.read(4)
    found = _from_gguf(path) if magic == b"GGUF" else _Dat(path).imatrix()
    if not found:
        raise _damaged(path, "it has no tensors")
    for name, weights in found.items():
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise _damaged(path, f"`{name}` has values that are negative or not finite")
    return found


def imatrix_metadata(importance: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a GGUF file about the importance matrix it was made with: the known values."""
    made = importance if isinstance(importance, Imatrix) else Imatrix(importance)
    values = {
        "file": _cut(made.file),
        "dataset": _cut(made.datasets[0]) if made.datasets else "",
        "entries_count": len(made),
        "chunks_count": max(made.chunks, 0),
    }
    return {f"quantize.imatrix.{key}": value for key, value in values.items() if value}


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:LONGEST].decode(errors="ignore")


def _from_gguf(path: Path) -> Imatrix:
    file = read_gguf(path)
    found = {}
    for name in (n.removesuffix(SUMS) for n in file.tensors if n.endswith(SUMS)):
        if name + COUNTS not in file.tensors:
            raise _damaged(path, f"`{name}` has sums but no counts")
        sums = _floats(path, name, file.tensors[name + SUMS])
        counts = _floats(path, name, file.tensors[name + COUNTS])
        if sums.size % counts.size:
            raise _damaged(path, f"`{name}` has {sums.size} sums and {counts.size} counts")
        found[name] = means(sums, counts)
    chunks = _value(path, file.metadata, "imatrix.chunk_count", 0)
    datasets = _value(path, file.metadata, "imatrix.datasets", list[str]())
    return Imatrix(found, str(path), tuple(map(str, datasets)), chunks)


def means(sums: NDArray[np.float32], counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide sums by the token count of their expert; an expert without tokens gets ones."""
    seen = counts[:, None] > 0
    each = sums.reshape(counts.size, -1) / np.where(seen, counts[:, None], 1)
    return np.where(seen, each, 1).astype(np.float32).reshape(-1)


def _value(path: Path, metadata: Metadata, key: str, default: Any) -> Any:
    """The value of `key`, which must have the type of `default`; `default` if it is missing."""
    value = metadata[key].value if key in metadata else default
    if not isinstance(value, type(default)):
        raise _damaged(path, f"`{key}` is {value!r}, expected a {type(default).__name__}")
    return value


def _floats(path: Path, name: str, info: TensorInfo) -> NDArray[np.float32]:
    if info.format != "F32":
        raise _damaged(path, f"`{name}` is stored as {info.format}, expected F32")
    return intact(info.data).reshape(-1).view("<f4").astype(np.float32)


class _Dat:
    """A .dat file, read from start to end.

    i32 tensors; for each: i32 length, name, i32 calls, i32 columns, f32 sums over all calls. Then,
    in all but the oldest files: i32 chunks, i32 length, dataset.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.read_bytes()
        self._at = 0

    def imatrix(self) -> Imatrix:
        found = {}
        for _ in range(self._number()):
            name = self._text()
            calls, columns = self._number(), self._number()
            sums = np.frombuffer(self._take(4 * columns), "<f4").astype(np.float32)
            found[name] = sums / np.float32(max(calls, 1))
        chunks = self._number() if self._left else 0
        dataset = self._text() if self._left else ""
        return Imatrix(found, str(self._path), (dataset,) if dataset else (), chunks)

    @property
    def _left(self) -> int:
        return len(self._data) - self._at

    def _take(self, count: int) -> bytes:
        if count < 0 or count > self._left:
            raise _damaged(
                self._path, f"{count} bytes at {self._at} reach beyond the end of the file"
            )
        self._at += count
        return self._data[self._at - count : self._at]

    def _number(self) -> int:
        return int(struct.unpack("<i", self._take(4))[0])

    def _text(self) -> str:
        return self._take(self._number()).decode(errors="replace")


def _damaged(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"`{path}` is not a valid importance matrix: {reason}",
        hint="make it again with `fewbit imatrix` or llama-imatrix",
        path=str(path),
    )

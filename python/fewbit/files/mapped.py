"""Map a file of weights, and say what it is if it cannot be one: a pipe, or a Git LFS pointer."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError, InputError

Maps: TypeAlias = tuple[mmap.mmap, ...]
"""Files that are mapped into memory."""

_LFS = b"version https://git-lfs."


def map_file(path: Path, kind: str) -> NDArray[np.uint8]:
    """Map the bytes of a file of `kind` ("GGUF" or "safetensors"), uint8 [bytes].

    Raises:
        InputError: the path is a pipe or a device.
        FileFormatError: the file is empty, or is a Git LFS pointer.
        OSError: the file cannot be read.

    """
    size = path.stat().st_size
    if not path.is_file() and not path.is_dir():
        raise InputError(
            f"`{path}` is a pipe or a device, not a file",
            hint="save it to a file first: weights are mapped from the disk, not read in order",
            path=str(path),
        )
    if size == 0:
        raise damaged(path, kind, "it is empty")
    data = np.memmap(path, np.uint8, "r")
    if data[: len(_LFS)].tobytes() == _LFS:
        raise FileFormatError(
            f"`{path}` is a Git LFS pointer, not a {kind} file",
            hint="run `git lfs pull` in its repository, or download the file itself",
            path=str(path),
        )
    return data


def intact(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `data`, a piece of a mapped file, if the file is still as long as it was.

    A process that touches a page behind the end of a file is ended by the system, without an
    exception. A file that becomes shorter between this check and the reading is not noticed.

    Raises:
        FileFormatError: another program has made the file shorter.

    """
    root: Any = data
    name = None
    while root is not None and not isinstance(root, mmap.mmap):
        name = name or getattr(root, "filename", None)
        root = getattr(root, "base", None)
    if root is not None and root.size() < len(root):
        raise FileFormatError(
            f"`{name}` had {len(root)} bytes when it was opened and has {root.size()} now",
            hint="another program writes to the file: load it again when it is complete",
            path=str(name),
        )
    return data


def damaged(path: Path, kind: str, reason: str) -> FileFormatError:
    """Return the error of a file that is not a valid file of `kind`."""
    return FileFormatError(
        f"`{path}` is not a valid {kind} file: {reason}",
        hint="download it again: an interrupted download is the usual cause",
        path=str(path),
    )


def maps_of(arrays: Iterable[NDArray[Any]]) -> Maps:
    """Return the mapped files that `arrays` are pieces of, each once."""
    found: dict[int, mmap.mmap] = {}
    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap):
            found[id(base)] = base
    return tuple(found.values())


def drop_pages(maps: Maps) -> None:
    """Take what was read of mapped files out of this process's memory; the system keeps its copy.

    Reading a page again maps it again. Does nothing where the system cannot do it.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)
    for each in maps:
        if advice is not None:
            each.madvise(advice)

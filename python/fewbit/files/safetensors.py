"""safetensors files, memory mapped: the library checks the header, the data stays on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fewbit.errors import FileFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Entry:
    """A tensor as the file has it: `data` is uint8 [bytes], mapped."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def read_safetensors(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name.

    The library refuses headers that are not JSON, and shapes, types or offsets that do not fit
    the file; its own reader would copy each tensor, so only its verdict is used.

    Raises:
        FileFormatError: the file is truncated, inconsistent or no safetensors file.
        OSError: the file cannot be read.

    """
    if path.stat().st_size == 0:
        raise _damaged(path, "it is empty")
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None
    data = np.memmap(path, np.uint8, "r")
    size = int.from_bytes(data[:8].tobytes(), "little")
    header: Mapping[str, Any] = json.loads(data[8 : 8 + size].tobytes())
    return {
        name: _entry(facts, data[8 + size :])
        for name, facts in header.items()
        if name != "__metadata__"
    }


def _entry(facts: Mapping[str, Any], data: NDArray[np.uint8]) -> Entry:
    start, end = facts["data_offsets"]
    return Entry(facts["dtype"], tuple(facts["shape"]), data[start:end])


def _damaged(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"`{path}` is not a whole safetensors file: {reason}",
        hint="download it again; a broken download is the usual cause",
        path=str(path),
    )

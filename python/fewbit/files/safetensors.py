"""Read safetensors files by memory mapping: the header is checked, the data stays on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fewbit.files.mapped import damaged, map_file

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a safetensors file: dtype ("F32", "BF16", ...), shape, mapped uint8 [bytes]."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def read_safetensors(path: Path) -> dict[str, TensorInfo]:
    """Read the header of a safetensors file: its tensors by name.

    The `safetensors` library checks the header: JSON, shapes, dtypes and offsets within the file.
    The data are mapped here, because the library would copy each tensor.

    Raises:
        InputError: the path is a pipe or a device.
        FileFormatError: the file is truncated, inconsistent, not a safetensors file, or a pointer
            of Git LFS.
        OSError: the file cannot be read.

    """
    data = map_file(path, "safetensors")
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise damaged(path, "safetensors", str(error)) from None
    size = int.from_bytes(data[:8].tobytes(), "little")
    header: Mapping[str, Any] = json.loads(data[8 : 8 + size].tobytes())
    return {
        name: _info(facts, data[8 + size :])
        for name, facts in header.items()
        if name != "__metadata__"
    }


def _info(facts: Mapping[str, Any], data: NDArray[np.uint8]) -> TensorInfo:
    start, end = facts["data_offsets"]
    return TensorInfo(facts["dtype"], tuple(facts["shape"]), data[start:end])

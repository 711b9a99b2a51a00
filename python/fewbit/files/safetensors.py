"""Read safetensors files by memory mapping: the header is checked, the data stays on disk."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fewbit.errors import FewbitError
from fewbit.files.mapped import damaged, map_file

if TYPE_CHECKING:
    from collections.abc import Mapping


_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "U8": 8}
"""Bits of an element, for the dtypes of weights."""


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
        size = int.from_bytes(data[:8].tobytes(), "little")
        header: Mapping[str, Any] = json.loads(data[8 : 8 + size].tobytes())
        return {
            name: _info(name, facts, data[8 + size :])
            for name, facts in header.items()
            if name != "__metadata__"
        }
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, FewbitError):
            raise
        raise damaged(path, "safetensors", str(error)) from None


def _info(name: str, facts: Mapping[str, Any], data: NDArray[np.uint8]) -> TensorInfo:
    """A tensor as the header describes it; the library has read the header too, maybe otherwise."""
    start, end = facts["data_offsets"]
    if not 0 <= start <= end <= data.size:
        raise ValueError(f"`{name}` lies at {start} to {end}, the data have {data.size} bytes")
    shape, bits = tuple(facts["shape"]), _BITS.get(facts["dtype"])
    if bits is not None and 8 * (end - start) != bits * math.prod(shape):
        raise ValueError(f"`{name}` of shape {list(shape)} has {end - start} bytes")
    return TensorInfo(facts["dtype"], shape, data[start:end])

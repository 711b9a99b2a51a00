"""Write the header of a GGUF file: metadata as they were read, then the place of each tensor."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewbit.files.gguf import ALIGNMENT, NUMBERS, Field
from fewbit.files.gguf_types import GGUFValueType
from fewbit.formats.table import Format
from fewbit.plan.shapes import tensor_bytes

VERSION = 3
_FIRST = "general.architecture"
"""The key that readers expect in front of those that begin with its value."""


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in a file: its shape has rows first, `offset` counts from the start of the data."""

    name: str
    shape: tuple[int, ...]
    format: Format
    offset: int

    @property
    def end(self) -> int:
        """Where the next tensor may begin."""
        return padded(self.offset + tensor_bytes(self.shape, self.format.name))


def placed(tensors: Iterable[tuple[str, tuple[int, ...], Format]]) -> list[TensorPlace]:
    """Put tensors one behind the other."""
    found: list[TensorPlace] = []
    for name, shape, format_ in tensors:
        found.append(TensorPlace(name, shape, format_, found[-1].end if found else 0))
    return found


def header(metadata: Mapping[str, Field], tensors: Sequence[TensorPlace]) -> bytes:
    """Return all that comes before the data of `tensors`, the padding included.

    Text that was not UTF-8 when it was read has its own bytes again.
    """
    fields = sorted(metadata.items(), key=lambda item: item[0] != _FIRST)
    written = [b"GGUF", struct.pack("<IQQ", VERSION, len(tensors), len(fields))]
    for key, field in fields:
        written += [_text(key), struct.pack("<I", field.type), _value(field)]
    for tensor in tensors:
        sizes = tuple(reversed(tensor.shape))
        code = tensor.format.gguf_id
        written.append(_text(tensor.name))
        written.append(struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, code, tensor.offset))
    joined = b"".join(written)
    return joined.ljust(padded(len(joined)), b"\0")


def padded(size: int) -> int:
    """Return `size` rounded up to the alignment of tensors."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    try:
        raw = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair in JSON, which UTF-8 cannot hold
        raw = text.encode(errors="replace")
    return struct.pack("<Q", len(raw)) + raw


def _value(field: Field) -> bytes:
    if field.item is None:
        return _number(field.value, field.type)
    head = struct.pack("<IQ", field.item, len(field.value))
    if field.item == GGUFValueType.ARRAY:
        return head + b"".join(map(_value, field.value))
    if field.item == GGUFValueType.STRING:
        return head + b"".join(map(_text, field.value))
    return head + np.array(field.value, NUMBERS[field.item]).tobytes()


def _number(value: Any, type_: GGUFValueType) -> bytes:
    if type_ == GGUFValueType.STRING:
        return _text(value)
    return np.array(value, NUMBERS[type_]).tobytes()

"""Split a GGUF file into pieces, as ``llama-gguf-split`` does: names, sizes, metadata keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from fewbit.convert.gguf_header import padded
from fewbit.errors import InputError
from fewbit.files.gguf import Field
from fewbit.files.gguf_names import PIECE
from fewbit.files.gguf_pieces import piece_files
from fewbit.files.gguf_types import GGUFValueType

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT])B?", re.IGNORECASE)
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
MOST = 65535
"""Pieces of a model: the number of each is a uint16."""


class Sized(Protocol):
    """A tensor whose size is known."""

    @property
    def bytes(self) -> int:
        """Bytes of the tensor."""
        ...


T = TypeVar("T", bound=Sized)


@dataclass(frozen=True)
class Split:
    """The largest pieces: `max_bytes` of tensors, `max_tensors` tensors; None for no limit.

    A tensor of more than `max_bytes` has a piece of its own.
    """

    max_bytes: int | None = None
    max_tensors: int | None = None

    def __post_init__(self) -> None:
        for what, value in (("bytes", self.max_bytes), ("tensors", self.max_tensors)):
            if value is not None and value < 1:
                raise InputError(
                    f"a piece of a model cannot have {value} {what}", hint="use 1 or more"
                )

    def groups(self, tensors: Sequence[T]) -> list[list[T]]:
        """Divide `tensors`, in their order, into pieces; there is one at least.

        Raises:
            InputError: there would be more pieces than a model can have.

        """
        groups: list[list[T]] = [[]]
        size = 0
        for tensor in tensors:
            size += padded(tensor.bytes)
            too_large = self.max_bytes is not None and size > self.max_bytes
            if groups[-1] and (too_large or len(groups[-1]) == self.max_tensors):
                groups.append([])
                size = padded(tensor.bytes)
            groups[-1].append(tensor)
        if len(groups) > MOST:
            raise InputError(
                f"the model would have {len(groups):,} pieces, {MOST:,} at most",
                hint="allow larger pieces",
            )
        return groups


def split_of(size: str | None, tensors: int | None) -> Split | None:
    """Return the `Split` of ``--split-max-size`` and ``--split-max-tensors``; None without both.

    A size is a number and a unit as ``llama-gguf-split`` takes it, "500M" or "2G"; M is 10^6 bytes.

    Raises:
        InputError: a value is none.

    """
    if size is None:
        return None if tensors is None else Split(None, tensors)
    match = _SIZE.fullmatch(size)
    if match is None:
        raise InputError(
            f"`--split-max-size` takes a number and K, M, G or T, got `{size}`",
            hint="as in `--split-max-size 2G`",
        )
    return Split(int(float(match[1]) * _UNITS[match[2].upper()]), tensors)


def piece_paths(path: Path, count: int) -> list[Path]:
    """Return the paths of the pieces of `path`: NAME-00001-of-00003.gguf and so on."""
    match = PIECE.fullmatch(path.name)
    stem = match["stem"] if match else path.name.removesuffix(".gguf")
    return piece_files(path.with_name(f"{stem}-{1:05d}-of-{count:05d}.gguf"))


def split_fields(number: int, count: int, tensors: int) -> dict[str, Field]:
    """Return the metadata of piece `number` (from 0) of `count`, which have `tensors` in all."""
    return {
        "split.no": Field(number, GGUFValueType.UINT16),
        "split.count": Field(count, GGUFValueType.UINT16),
        "split.tensors.count": Field(tensors, GGUFValueType.INT32),
    }

"""GGUF files without a plan: what fewbit cannot run, it can still list and quantize.

Architectures that fewbit does not know, vision projectors, adapters and the like have tensors with
names and shapes, which is all that recipes read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.checkpoint import Checkpoint, LazyTensor, Tensor, open_checkpoint
from fewbit.files.gguf import GgufFile, Metadata, readable
from fewbit.files.gguf_pieces import gguf_file, read_pieces
from fewbit.files.mapped import Maps, intact, maps_of
from fewbit.models import ARCHITECTURES

_MODELS = ("", "model")
"""What `general.type` says of a file that should have all tensors of its architecture."""


@dataclass(frozen=True)
class ModelCounts:
    """Numbers of a model that recipes read, see `fewbit.recipes.choose.Counts`; 0 if unknown."""

    architecture: str
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    experts: int = 0


@dataclass(frozen=True)
class TensorFile:
    """The tensors and metadata of a GGUF file; `problem` says why it is no `Checkpoint`."""

    path: Path
    counts: ModelCounts
    tensors: dict[str, LazyTensor]
    metadata: Metadata
    problem: str
    maps: Maps = field(default=(), repr=False, compare=False)

    @property
    def kind(self) -> str:
        """What the file says it is: "model", "adapter", "mmproj", "imatrix", or ""."""
        return _kind(self.metadata)

    @property
    def divisors(self) -> dict[str, tuple[float, ...]]:
        """None: the divisors of rotary frequencies are among the tensors."""
        return {}

    def read(self, name: str) -> Tensor:
        """Read tensor `name`."""
        tensor = self.tensors[name]
        return Tensor(tensor.format, tensor.shape, tensor.read())


Source: TypeAlias = Checkpoint | TensorFile
"""What can be quantized."""


def open_tensors(path: str | PathLike[str], *, damaged: bool = False) -> Source:
    """Open the model at `path`, or any other GGUF file as a `TensorFile`.

    A model of a known architecture that lacks tensors or numbers is a damaged file, which is
    opened only if `damaged` is set.

    Raises:
        InputError: as `open_checkpoint`.
        FileFormatError: the file is damaged.
        UnsupportedError: the folder has no GGUF file and fewbit does not know its architecture, or
            the format of a tensor is unknown.

    """
    try:
        return open_checkpoint(path)
    except (FileFormatError, UnsupportedError) as error:
        if (file := gguf_file(path)) is None:
            raise
        found = tensor_file(file, read_pieces(file), error.message)
        other = isinstance(error, UnsupportedError) or found.kind not in _MODELS
        other = other or not found.tensors or found.counts.architecture not in ARCHITECTURES
        if not damaged and not other:
            raise
        return found


def tensor_file(path: Path, file: GgufFile, problem: str = "") -> TensorFile:
    """All tensors of a GGUF file that has been read."""
    tensors = {
        name: LazyTensor(name, info.format, info.shape, partial(intact, info.data))
        for name, info in file.tensors.items()
    }
    maps = maps_of(info.data for info in file.tensors.values())
    return TensorFile(path, _counts(file.metadata), tensors, file.metadata, problem, maps)


def _kind(metadata: Metadata) -> str:
    found = metadata.get("general.type")
    if found is not None:
        return readable(str(found.value))
    return "adapter" if "adapter.type" in metadata else ""


def _counts(metadata: Mapping[str, object]) -> ModelCounts:
    """Numbers under the prefix of the architecture; of one for each layer the first counts."""
    name = getattr(metadata.get("general.architecture"), "value", "")
    architecture = readable(name) if isinstance(name, str) else ""

    def number(key: str, default: int = 0) -> int:
        value = getattr(metadata.get(f"{architecture}.{key}"), "value", default)
        value = value[0] if isinstance(value, list) and value else value
        return value if isinstance(value, int) and 0 <= value < 1 << 31 else default

    heads = number("attention.head_count")
    return ModelCounts(
        architecture,
        layers=number("block_count"),
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        experts=number("expert_count"),
    )

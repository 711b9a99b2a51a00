"""A model on disk: its configuration and its tensors under GGUF's names.

A Hugging Face folder and a GGUF file come out the same: tensors as GGUF has them, so one
plan per architecture serves both. Nothing is read before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError, InputError
from fewbit.files import gguf, hub
from fewbit.files.gguf_config import LONG_FACTORS, ROPE_FREQS, config_from_gguf
from fewbit.files.hf_config import config_from_hf
from fewbit.files.json_file import read_json
from fewbit.files.safetensors import Entry, read_safetensors
from fewbit.files.transforms import gguf_tensors
from fewbit.models import build_plan
from fewbit.plan.config import Config
from fewbit.plan.shapes import tensor_shapes

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class TensorInfo:
    """A tensor that can be read: `shape` is (rows, columns), (n,) of a vector, or (experts, rows,
    columns).

    `read` gives all its bytes. Where they have to be put in order first, `part` gives those of the
    rows from a start to a stop, both multiples of `together`, without reading the others.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[np.uint8]] = field(repr=False, compare=False)
    part: Callable[[int, int], NDArray[np.uint8]] | None = field(
        default=None, repr=False, compare=False
    )
    together: int = 1

    def slab(self, start: int, stop: int, rows: int) -> NDArray[np.uint8]:
        """Rows from `start` to `stop` of all `rows`, uint8 [stop - start, row bytes]."""
        if self.part is not None:
            return self.part(start, stop)
        return np.ascontiguousarray(self.read().reshape(rows, -1)[start:stop])


@dataclass(frozen=True)
class Tensor:
    """A tensor's bytes, uint8 [rows, row bytes], in `format`."""

    format: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class Checkpoint:
    """What lies at `path`; `metadata` is a GGUF file's own, None for a folder."""

    path: Path
    config: Config
    tensors: dict[str, TensorInfo]
    metadata: gguf.Metadata | None = None

    def read(self, name: str) -> Tensor:
        """The bytes of tensor `name`."""
        info = self.tensors[name]
        return Tensor(info.format, info.shape, info.read())


def open_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """The model at `path`: a Hugging Face folder, a GGUF file, or a name on the hub.

    Raises:
        InputError: there is nothing of the kind.
        FileFormatError: a file is damaged, or tensors do not fit the configuration.
        UnsupportedError: the architecture, a variant or a tensor's format is not known here.

    """
    found = hub.resolve(path)
    checkpoint = _open_folder(found) if found.is_dir() else _open_file(found)
    _check_tensors(checkpoint)
    return checkpoint


def _open_file(path: Path) -> Checkpoint:
    if path.suffix == ".safetensors" or path.name == "config.json":
        return _open_folder(path.parent)
    file = gguf.read_gguf(path)
    shapes = {name: entry.shape for name, entry in file.tensors.items()}
    divisors = {}
    for name in (ROPE_FREQS, *LONG_FACTORS):
        if (entry := file.tensors.pop(name, None)) is not None:
            if entry.format != "F32":
                raise FileFormatError(f"`{path}`: `{name}` must be F32, found {entry.format}")
            divisors[name] = [float(d) for d in entry.data.reshape(-1).view("<f4")]
    config = config_from_gguf(file.metadata, shapes, divisors, path)
    tensors = {
        name: TensorInfo(name, entry.format, entry.shape, partial(_same, entry.data))
        for name, entry in file.tensors.items()
    }
    return Checkpoint(path, config, tensors, file.metadata)


def _same(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return data


def _open_folder(path: Path) -> Checkpoint:
    config_path = path / "config.json"
    if not config_path.exists():
        raise InputError(
            f"no model in `{path}`: there is no config.json",
            hint="a Hugging Face folder has config.json, *.safetensors and tokenizer.json",
            path=str(path),
        )
    config = config_from_hf(read_json(config_path), config_path)
    entries: dict[str, Entry] = {}
    for file in _weight_files(path):
        entries |= read_safetensors(file)
    tensors = {
        name: TensorInfo(name, source.format, source.shape, source.rows, source.some_rows)
        for name, source in gguf_tensors(entries, config).items()
    }
    return Checkpoint(path, config, tensors)


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of `folder`, all that the index names or else all there are."""
    index = folder / INDEX
    if index.exists():
        parts = read_json(index).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
            raise FileFormatError(f"`{index}`: `weight_map` must name a file for each tensor")
        files = [folder / Path(name).name for name in sorted(set(parts.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files or (missing := [file for file in files if not file.exists()]):
        what = f"`{missing[0].name}` is missing" if files else "there are no safetensors files"
        raise FileFormatError(
            f"`{folder}` has no whole weights: {what}",
            hint="download the folder again; weights in other containers are not read",
            path=str(folder),
        )
    return files


def _check_tensors(checkpoint: Checkpoint) -> None:
    """All tensors that the plan needs are there, in the shape that it needs."""
    for name, expected in tensor_shapes(build_plan(checkpoint.config)).items():
        info = checkpoint.tensors.get(name)
        if info is None:
            raise FileFormatError(
                f"`{checkpoint.path}` has no tensor `{name}`",
                hint="the file is incomplete, or of another kind than its configuration says",
                tensor=name,
            )
        found = (1, *info.shape) if len(info.shape) == 1 else info.shape
        if found != expected:
            raise _wrong_shape(name, info.shape, expected)


def _wrong_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> FileFormatError:
    return FileFormatError(
        f"tensor `{name}` has shape {list(found)}, the configuration says {list(expected)}",
        hint="take the configuration that belongs to the weights",
        tensor=name,
    )

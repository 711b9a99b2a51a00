"""Open a model on disk: its configuration and its tensors under GGUF names.

A Hugging Face folder and a GGUF file give the same tensors in GGUF's order of rows, so one plan per
architecture serves both. Tensor data are read on demand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError, InputError
from fewbit.files import gguf, hub
from fewbit.files.gguf_config import (
    LONG_FACTORS,
    ROPE_FREQS,
    config_from_gguf,
    rope_divisors,
)
from fewbit.files.gguf_pieces import gguf_in, read_pieces
from fewbit.files.header_sizes import check_sizes
from fewbit.files.hf_config import config_from_hf
from fewbit.files.hf_weights import read_weights, refuse_quantized
from fewbit.files.json_file import read_json
from fewbit.files.mapped import Maps, intact, maps_of
from fewbit.files.transforms import Source, gguf_tensors
from fewbit.models import build_plan
from fewbit.plan.config import Config
from fewbit.plan.shapes import tensor_shapes

MANY_LAYERS = 1000
"""More layers than any model that is known has."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read on demand: (rows, columns), (experts, rows, columns) or (n,).

    `read` returns all its bytes, uint8 [rows, row bytes]. `read_rows` returns those of the rows
    from a start to a stop, without reading the others; None where `read` maps the file as it is.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[np.uint8]] = field(repr=False, compare=False)
    read_rows: Callable[[int, int], NDArray[np.uint8]] | None = field(
        default=None, repr=False, compare=False
    )

    def slab(self, start: int, stop: int, rows: int) -> NDArray[np.uint8]:
        """Read rows `start` to `stop` of all `rows`, uint8 [stop - start, row bytes]."""
        if self.read_rows is not None:
            return self.read_rows(start, stop)
        return np.ascontiguousarray(self.read().reshape(rows, -1)[start:stop])


@dataclass(frozen=True)
class Tensor:
    """A tensor's bytes, uint8 [rows, row bytes], in `format`."""

    format: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk; `metadata` is that of a GGUF file, None for a Hugging Face folder.

    `maps` are the mapped files of its tensors.
    """

    path: Path
    config: Config
    tensors: dict[str, LazyTensor]
    metadata: gguf.Metadata | None = None
    maps: Maps = field(default=(), repr=False, compare=False)

    @property
    def counts(self) -> Config:
        """The numbers that recipes read."""
        return self.config

    @property
    def divisors(self) -> dict[str, tuple[float, ...]]:
        """Divisors of rotary frequencies that GGUF has as tensors, by name."""
        return rope_divisors(self.config)

    def read(self, name: str) -> Tensor:
        """Read tensor `name`."""
        tensor = self.tensors[name]
        return Tensor(tensor.format, tensor.shape, tensor.read())


def open_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """Open the model at `path`: a Hugging Face folder, a GGUF file, or a repository of the Hub.

    A folder that holds one GGUF model and no safetensors is that model. Of a model in pieces any
    piece may be named.

    Raises:
        InputError: there is no model at the path, or there are several, or it cannot be downloaded.
        FileFormatError: a file is damaged, or tensors do not fit the configuration.
        UnsupportedError: the architecture, a variant or the format of a tensor is not supported.

    """
    found = hub.resolve(path)
    if found.is_dir():
        file = gguf_in(found)
        checkpoint = _open_folder(found) if file is None else _open_file(file)
    else:
        checkpoint = _open_file(found)
    _check_tensors(checkpoint)
    return checkpoint


def _open_file(path: Path) -> Checkpoint:
    if path.suffix == ".safetensors" or path.name == "config.json":
        return _open_folder(path.parent, path if path.suffix == ".safetensors" else None)
    file = read_pieces(path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    maps = maps_of(info.data for info in file.tensors.values())
    divisors = {}
    for name in (ROPE_FREQS, *LONG_FACTORS):
        if (info := file.tensors.pop(name, None)) is not None:
            if info.format != "F32":
                raise FileFormatError(f"`{path}`: `{name}` must be F32, found {info.format}")
            divisors[name] = [float(d) for d in info.data.reshape(-1).view("<f4")]
    config = config_from_gguf(file.metadata, shapes, divisors, path)
    tensors = {
        name: LazyTensor(name, info.format, info.shape, partial(intact, info.data))
        for name, info in file.tensors.items()
    }
    return Checkpoint(path, config, tensors, file.metadata, maps)


def _open_folder(path: Path, weights: Path | None = None) -> Checkpoint:
    config_path = path / "config.json"
    if not config_path.exists():
        raise InputError(
            f"no model in `{path}`: config.json is missing",
            hint="give a Hugging Face folder: it has config.json, *.safetensors and tokenizer.json",
            path=str(path),
        )
    settings = read_json(config_path)
    if _claimed_layers(settings) > MANY_LAYERS:  # count tensors before anything runs to the number
        claimed = (info.shape for info in read_weights(path, weights).values())
        check_sizes(config_path, claimed, _claimed_layers(settings), 0)
    config = config_from_hf(settings, config_path)
    infos = read_weights(path, weights)
    shapes = (info.shape for info in infos.values())
    check_sizes(config_path, shapes, config.layers, max(config.head_dim, config.rope_dims))
    refuse_quantized(settings, infos, config_path)
    sources = gguf_tensors(infos, config)
    if config.tied and "token_embd.weight" in sources:
        if _has_own_head(sources):
            config = replace(config, tied=False)
        else:
            sources.pop("output.weight", None)
    tensors = {
        name: LazyTensor(name, source.format, source.shape, source.read, source.read_rows)
        for name, source in sources.items()
    }
    return Checkpoint(path, config, tensors, maps=maps_of(info.data for info in infos.values()))


def _has_own_head(sources: Mapping[str, Source]) -> bool:
    """Whether the output matrix is another than the embedding; many checkpoints carry a copy."""
    head, embedding = sources.get("output.weight"), sources["token_embd.weight"]
    if head is None:
        return False
    if (head.format, head.shape) != (embedding.format, embedding.shape):
        return True
    first, second = head.load(), embedding.load()
    parts = range(0, len(first), 1024)
    return not all(np.array_equal(first[i : i + 1024], second[i : i + 1024]) for i in parts)


def _claimed_layers(values: Mapping[str, Any]) -> int:
    """The number of layers that a config.json gives, by any of its names; 0 if it has none."""
    text = values.get("text_config")
    known = [values, text] if isinstance(text, dict) else [values]
    found = [level.get(key) for level in known for key in ("num_hidden_layers", "n_layer")]
    return max((int(n) for n in found if isinstance(n, int | float) and isfinite(n)), default=0)


def _check_tensors(checkpoint: Checkpoint) -> None:
    """Check that every tensor of the plan exists and has the shape that the plan expects."""
    for name, expected in tensor_shapes(build_plan(checkpoint.config)).items():
        tensor = checkpoint.tensors.get(name)
        if tensor is None:
            raise FileFormatError(
                f"`{checkpoint.path}` has no tensor `{name}`",
                hint="the file is incomplete, or its configuration is that of another model",
                tensor=name,
            )
        found = (1, *tensor.shape) if len(tensor.shape) == 1 else tensor.shape
        if found != expected:
            raise _wrong_shape(name, tensor.shape, expected)


def _wrong_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> FileFormatError:
    return FileFormatError(
        f"tensor `{name}` has shape {list(found)}, expected {list(expected)} by the configuration",
        hint="take the configuration that belongs to the weights",
        tensor=name,
    )

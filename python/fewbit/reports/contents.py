"""Read what `fewbit inspect` shows: tensors, distributions of values, single blocks."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.demo import demo_or
from fewbit.errors import FileFormatError, InputError, UnsupportedError
from fewbit.files.checkpoint import Checkpoint, open_checkpoint
from fewbit.files.gguf import GgufFile, readable
from fewbit.files.gguf_pieces import gguf_file, read_pieces
from fewbit.files.names import matching
from fewbit.formats.blocks import read_block, scales_of
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import find_format
from fewbit.plan.shapes import matrix_shape, tensor_bytes
from fewbit.reports.summaries import (
    Block,
    Bytes,
    Contents,
    Distribution,
    Explanation,
    MetadataValues,
    TensorSummary,
)
from fewbit.tokenizer.load import tokenizer_of

PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
SIGMAS = (3, 4, 6, 10)
BINS = 21


def explain(name: str) -> Explanation:
    """The layout and the formula of the format `name`.

    Raises:
        FormatError: there is no such format.

    """
    found = find_format(name)
    layout = layout_of(found)
    fields = tuple(Bytes(f.name, f.start, f.stop, f.text) for f in layout.fields)
    return Explanation(
        found.name, found.family, found.block, found.bytes, found.bits_per_weight,
        layout.formula, layout.kinds, layout.table, fields,
    )  # fmt: skip


def inspect(model: str | PathLike[str] | Checkpoint) -> Contents:
    """List what a model's file or folder holds: configuration, tokenizer, tensors; no weights.

    `model` is a GGUF file, a Hugging Face folder, a name on the hub, "demo", or an opened one.

    A GGUF file that fewbit cannot run (an unknown architecture, a vocabulary alone, an adapter) is
    listed too: its `config` is None, and `problems` say what is missing, as for a tokenizer.

    Raises:
        InputError: there is no such model.
        FileFormatError: a file is damaged.
        UnsupportedError: fewbit does not know a format, or the architecture of a folder.

    """
    if isinstance(model, Checkpoint):
        return _contents_of(model)
    path = demo_or(model)
    try:
        checkpoint = open_checkpoint(path)
    except (FileFormatError, UnsupportedError) as error:
        if (file := gguf_file(path)) is None:
            raise
        return _listed(file, read_pieces(file), error.message)
    return _contents_of(checkpoint)


def metadata(model: str | PathLike[str]) -> MetadataValues:
    """List every metadata key of a GGUF file, in the order of the file.

    Raises:
        InputError: there is no such file, or it is not a GGUF file but a folder.
        FileFormatError: the file is damaged.
        UnsupportedError: fewbit does not know a format.

    """
    if (path := gguf_file(model)) is None:
        raise InputError(
            f"`{model}` has no GGUF metadata",
            hint="name a GGUF file; a Hugging Face folder has its config.json instead",
        )
    fields = read_pieces(path).metadata
    types = {
        key: field.type.name if field.item is None else f"{field.item.name} list"
        for key, field in fields.items()
    }
    return MetadataValues(str(path), types, {k: _readable(f.value) for k, f in fields.items()})


def _readable(value: object) -> object:
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return readable(value) if isinstance(value, str) else value


def _listed(path: Path, file: GgufFile, problem: str) -> Contents:
    """List a GGUF file without its configuration and its tokenizer."""
    tensors = tuple(
        TensorSummary(name, info.shape, info.format, tensor_bytes(info.shape, info.format))
        for name, info in file.tensors.items()
    )
    return Contents(str(path), None, {}, tensors, (problem,))


def _contents_of(checkpoint: Checkpoint) -> Contents:
    tensors = tuple(
        TensorSummary(t.name, tuple(t.shape), t.format, tensor_bytes(t.shape, t.format))
        for t in checkpoint.tensors.values()
    )
    try:
        tokenizer = tokenizer_of(checkpoint)
    except (FileFormatError, UnsupportedError) as error:
        return Contents(str(checkpoint.path), checkpoint.config, {}, tensors, (error.message,))
    facts: dict[str, object] = {
        "vocab": len(tokenizer.vocab),
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "adds_bos": tokenizer.adds_bos,
        "chat_template": tokenizer.chat_template is not None,
    }
    return Contents(str(checkpoint.path), checkpoint.config, facts, tensors)


def distributions(checkpoint: Checkpoint, pattern: str) -> Iterator[Distribution]:
    """The distributions of the tensors whose names match the regular expression `pattern`.

    Raises:
        InputError: `pattern` is not a regular expression, or matches no tensor.

    """
    for name in matching(checkpoint.tensors, pattern):
        tensor = checkpoint.read(name)
        rows = tensor.data.reshape(matrix_shape(tensor.shape)[0], -1)
        values = _core.decode(rows, tensor.format, tensor.shape[-1])
        yield distribution(name, tensor.format, tuple(tensor.shape), values)


def blocks(checkpoint: Checkpoint, pattern: str, index: int) -> Iterator[Block]:
    """Block `index` of each tensor whose name matches the regular expression `pattern`.

    Raises:
        InputError: `pattern` is not a regular expression or matches no tensor, a tensor has no
            such block, or no blocks at all.

    """
    for name in matching(checkpoint.tensors, pattern):
        tensor = checkpoint.read(name)
        if find_format(tensor.format).is_float:
            raise InputError(
                f"`{name}` is stored as {tensor.format}: single numbers, not blocks",
                hint="name a tensor that is stored in blocks; `fewbit inspect` lists the formats",
                tensor=name,
            )
        data = tensor.data.reshape(matrix_shape(tensor.shape)[0], -1)
        yield block(name, tensor.format, data, tensor.shape[-1], index)


def block(name: str, format_: str, data: NDArray[np.uint8], columns: int, index: int) -> Block:
    """Block `index` of the tensor `name`, whose rows of `columns` are `data`, uint8 [rows, bytes].

    Raises:
        InputError: there is no such block.

    """
    kind = find_format(format_)
    in_row = -(-columns // kind.block)
    count = len(data) * in_row
    if not 0 <= index < count:
        raise InputError(
            f"`{name}` has no block {index}",
            hint=f"it has {count:,} of {format_}: 0 to {count - 1}",
            tensor=name,
        )
    row, place = divmod(index, in_row)
    column = place * kind.block
    stored = np.ascontiguousarray(data[row, place * kind.bytes : (place + 1) * kind.bytes])
    numbers = read_block(stored, format_)
    scales, minima = scales_of(numbers, format_)
    values = _core.decode(stored[None], format_, kind.block)[0, : columns - column]
    fields = tuple(
        Bytes(f.name, f.start, f.stop, f.text, stored[f.start : f.stop].tobytes().hex())
        for f in layout_of(kind).fields
    )
    found = {key: [v.item() for v in stored_as] for key, stored_as in numbers.items()}
    return Block(
        name, format_, index, count, row, column, fields, found,
        list(map(float, scales)), list(map(float, minima)), list(map(float, values)),
    )  # fmt: skip


def distribution(
    name: str, format_: str, shape: tuple[int, ...], values: NDArray[np.float32]
) -> Distribution:
    """The distribution of `values`, of any shape."""
    flat = values.ravel().astype(np.float64)
    mean, deviation = float(flat.mean()), float(flat.std())
    found = [float(v) for v in np.percentile(flat, PERCENTILES)]
    far = np.abs(flat - mean)
    low, high = found[0], found[-1]
    edges = np.linspace(low, high, BINS + 1)
    counts = np.bincount(np.clip(np.searchsorted(edges, flat) - 1, 0, BINS - 1), minlength=BINS)
    return Distribution(
        name=name,
        format=format_,
        shape=shape,
        min=float(flat.min()),
        max=float(flat.max()),
        mean=mean,
        deviation=deviation,
        percentiles=dict(zip(PERCENTILES, found, strict=True)),
        outliers={k: float((far > k * deviation).mean()) for k in SIGMAS},
        low=low,
        high=high,
        counts=tuple(int(c) for c in counts),
    )

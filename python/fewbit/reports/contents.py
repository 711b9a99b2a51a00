"""Read what `fewbit inspect` shows: tensors, metadata, single blocks."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.demo import demo_or
from fewbit.errors import FileFormatError, InputError, UnsupportedError
from fewbit.files.checkpoint import Checkpoint
from fewbit.files.gguf import Field, readable
from fewbit.files.gguf_pieces import gguf_file, read_pieces
from fewbit.files.names import matching
from fewbit.files.tensor_file import Source, TensorFile, open_tensors
from fewbit.formats.blocks import read_block, scales_of
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import find_format
from fewbit.plan.shapes import matrix_shape, tensor_bytes
from fewbit.reports.summaries import (
    Block,
    Bytes,
    Contents,
    Explanation,
    MetadataValues,
    TensorSummary,
)
from fewbit.tokenizer.load import tokenizer_of


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
    source = open_tensors(demo_or(model), damaged=True)
    return _listed(source) if isinstance(source, TensorFile) else _contents_of(source)


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
        readable(key): field.type.name if field.item is None else f"{field.item.name} list"
        for key, field in fields.items()
    }
    values = {readable(key): _readable(field) for key, field in fields.items()}
    return MetadataValues(str(path), types, values)


def _readable(value: object) -> object:
    if isinstance(value, Field):
        return _readable(value.value)
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return readable(value) if isinstance(value, str) else value


def _listed(file: TensorFile) -> Contents:
    """List a GGUF file without its configuration and its tokenizer."""
    return Contents(str(file.path), None, {}, _summaries(file), (file.problem,))


def _summaries(source: Source) -> tuple[TensorSummary, ...]:
    return tuple(
        TensorSummary(readable(t.name), tuple(t.shape), t.format, tensor_bytes(t.shape, t.format))
        for t in source.tensors.values()
    )


def _contents_of(checkpoint: Checkpoint) -> Contents:
    tensors = _summaries(checkpoint)
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


def blocks(source: Source, pattern: str, index: int) -> Iterator[Block]:
    """Block `index` of each tensor whose name matches the regular expression `pattern`.

    Raises:
        InputError: `pattern` is not a regular expression or matches no tensor, a tensor has no
            such block, or no blocks at all.

    """
    for name in matching(source.tensors, pattern):
        tensor = source.read(name)
        if find_format(tensor.format).is_float:
            raise InputError(
                f"`{name}` is stored as {tensor.format}: single numbers, not blocks",
                hint="name a tensor that is stored in blocks; `fewbit inspect` lists the formats",
                tensor=name,
            )
        data = tensor.data.reshape(matrix_shape(tensor.shape)[0], -1)
        yield block(readable(name), tensor.format, data, tensor.shape[-1], index)


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

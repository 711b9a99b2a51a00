"""What is in a model's file: configuration, tokenizer, tensors, how values lie, single blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import InputError
from fewbit.formats.layouts import layout_of, read_block, scales_of
from fewbit.formats.table import find_format
from fewbit.plan.config import Config
from fewbit.tokenizer.load import tokenizer_of

if TYPE_CHECKING:
    from fewbit.files.checkpoint import Checkpoint

PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
SIGMAS = (3, 4, 6, 10)
BINS = 21


@dataclass(frozen=True)
class Entry:
    """A tensor as the file has it: `shape` (rows, columns), or (n,) of a vector."""

    name: str
    shape: tuple[int, ...]
    format: str
    bytes: int

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """Bits that one of them takes, scales included."""
        return 8 * self.bytes / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class Total:
    """All tensors of one format."""

    format: str
    tensors: int
    weights: int
    bytes: int


@dataclass(frozen=True)
class Contents:
    """A model's file, without the weights themselves."""

    path: str
    config: Config
    tokenizer: dict[str, object]
    tensors: tuple[Entry, ...]

    @property
    def weights(self) -> int:
        """Numbers in all tensors together."""
        return sum(entry.weights for entry in self.tensors)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(entry.bytes for entry in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Mean bits per weight over all tensors."""
        return 8 * self.bytes / self.weights if self.weights else 0.0

    @property
    def formats(self) -> list[Total]:
        """One total per format, the largest first."""
        names = dict.fromkeys(entry.format for entry in self.tensors)
        totals = []
        for name in names:
            entries = [entry for entry in self.tensors if entry.format == name]
            weights, size = sum(e.weights for e in entries), sum(e.bytes for e in entries)
            totals.append(Total(name, len(entries), weights, size))
        return sorted(totals, key=lambda total: -total.bytes)


@dataclass(frozen=True)
class Distribution:
    """How a tensor's values lie.

    `outliers` gives, for each number of standard deviations, the share of values further than
    that from the mean; `counts` are `BINS` equal bins from `low` to `high`, the range of 0.1 to
    99.9 percent, with what lies outside in the first and last.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    min: float
    max: float
    mean: float
    deviation: float
    percentiles: dict[float, float]
    outliers: dict[int, float]
    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Bytes:
    """A field of a block: the bytes `start` to `stop`, not included; `hex` as stored, if known."""

    name: str
    start: int
    stop: int
    text: str
    hex: str | None = None


@dataclass(frozen=True)
class Explanation:
    """How a format stores numbers: `block` elements in `bytes` bytes.

    `kinds` says which numbers are not unsigned integers, `table` what codes mean, if it is needed.
    """

    format: str
    family: str
    block: int
    bytes: int
    bits_per_weight: float
    formula: str
    kinds: dict[str, str]
    table: tuple[int, ...]
    fields: tuple[Bytes, ...]


@dataclass(frozen=True)
class Block:
    """Block `index` of a tensor's `blocks`, counted row after row, taken apart.

    `numbers` are as stored (d and its kin as floats), `scales` and `minima` what they make, one
    for each part of the block; `values` start at `column` of `row`.
    """

    name: str
    format: str
    index: int
    blocks: int
    row: int
    column: int
    fields: tuple[Bytes, ...]
    numbers: dict[str, list[float]]
    scales: list[float]
    minima: list[float]
    values: list[float]


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


def inspect(checkpoint: Checkpoint) -> Contents:
    """What `checkpoint` holds; reads no weights."""
    entries = tuple(
        Entry(t.name, tuple(t.shape), t.format, _stored_bytes(tuple(t.shape), t.format))
        for t in checkpoint.tensors.values()
    )
    tokenizer = tokenizer_of(checkpoint)
    facts: dict[str, object] = {
        "vocab": len(tokenizer.vocab),
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "adds_bos": tokenizer.adds_bos,
        "chat_template": tokenizer.chat_template is not None,
    }
    return Contents(str(checkpoint.path), checkpoint.config, facts, entries)


def distributions(checkpoint: Checkpoint, pattern: str) -> Iterator[Distribution]:
    """The distributions of the tensors whose names match the regular expression `pattern`.

    Raises:
        InputError: `pattern` is not a regular expression, or matches no tensor.

    """
    for name in _matching(checkpoint, pattern):
        tensor = checkpoint.read(name)
        rows = tensor.data.reshape(math.prod(tensor.shape[:-1]), -1)
        values = _core.decode(rows, tensor.format, tensor.shape[-1])
        yield distribution(name, tensor.format, tuple(tensor.shape), values)


def blocks(checkpoint: Checkpoint, pattern: str, index: int) -> Iterator[Block]:
    """Block `index` of each tensor whose name matches the regular expression `pattern`.

    Raises:
        InputError: `pattern` is not a regular expression or matches no tensor, a tensor has no
            such block, or no blocks at all.

    """
    for name in _matching(checkpoint, pattern):
        tensor = checkpoint.read(name)
        if find_format(tensor.format).is_float:
            raise InputError(
                f"`{name}` is stored as {tensor.format}: every number by itself, not in blocks",
                hint="name a tensor that is stored in blocks; `fewbit inspect` lists the formats",
                tensor=name,
            )
        data = tensor.data.reshape(math.prod(tensor.shape[:-1]), -1)
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


def _matching(checkpoint: Checkpoint, pattern: str) -> list[str]:
    """The names that match, one at least."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"`{pattern}` is not a regular expression: {error}",
            hint="as in `--tensor 'blk.0.attn_q'`",
        ) from None
    names = [name for name in checkpoint.tensors if expression.search(name)]
    if not names:
        raise InputError(f"no tensor matches `{pattern}`", hint="`fewbit inspect` lists the names")
    return names


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


def _stored_bytes(shape: tuple[int, ...], format_: str) -> int:
    return math.prod(shape[:-1]) * find_format(format_).row_bytes(shape[-1])

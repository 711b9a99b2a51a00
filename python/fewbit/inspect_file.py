"""What is in a model's file: configuration, tokenizer, tensors, and how their values lie."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.config import Config
from fewbit.errors import InputError
from fewbit.formats import find_format

if TYPE_CHECKING:
    from fewbit.checkpoint import Checkpoint

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


def inspect(checkpoint: Checkpoint) -> Contents:
    """What `checkpoint` holds; reads no weights."""
    entries = tuple(
        Entry(t.name, tuple(t.shape), t.format, _stored_bytes(tuple(t.shape), t.format))
        for t in checkpoint.tensors.values()
    )
    tokenizer = checkpoint.tokenizer()
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
    for name in names:
        tensor = checkpoint.read(name)
        rows = tensor.data.reshape(math.prod(tensor.shape[:-1]), -1)
        values = _core.decode(rows, tensor.format, tensor.shape[-1])
        yield distribution(name, tensor.format, tuple(tensor.shape), values)


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

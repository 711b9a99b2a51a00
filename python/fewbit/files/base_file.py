"""Read and write llama.cpp's files of a base model's log-probabilities (``--kl-divergence-base``).

The file is little-endian: the 8 bytes ``_logits_``, u32 window length, u32 vocabulary, u32 windows,
i32 tokens [windows, length] as the text has them (without BOS in front), then for each window a row
for each position from length // 2 to length - 2. A row is u16 [2 * ((vocab + 1) // 2) + 4]: two f32
(`step`, `lowest`), a code for each token, and a pad if the vocabulary is odd. A token's log-
probability is ``step * code + lowest`` (nats). The lowest is that of max(least logit, largest
logit - 16); what is below it has code 0, so its probability is raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError
from fewbit.files.mapped import damaged, intact, map_file
from fewbit.files.replace import replacing

KIND = "KLD base"
MAGIC = b"_logits_"
HEADER = len(MAGIC) + 12
CUT = 16.0
"""Logits further than this below the largest are stored as that far below it."""
CODES = 65535
LARGEST = 1 << 24
"""The longest window, the largest vocabulary and the most windows that are believed."""
SLICE = 1 << 22
"""Values that are worked on at once: temporary arrays stay small with any vocabulary."""

Tokens = NDArray[np.uint32]
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """The numbers in the header of a base file."""

    ctx: int
    vocab: int
    windows: int

    @property
    def first(self) -> int:
        """The first position of a window whose prediction is stored."""
        return self.ctx // 2

    @property
    def scored(self) -> int:
        """Rows of a window."""
        return self.ctx - 1 - self.first


class KldFile:
    """A base file of llama.cpp, mapped into memory: nothing is read before it is asked for."""

    kind = "llama.cpp"

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._data = map_file(self.path, KIND)
        self.shape = self._read_shape()
        self.tokens = read_tokens(self.path, self._data, HEADER, self.shape)

    @property
    def bytes(self) -> int:
        """The length of the file."""
        return self._data.size

    @cached_property
    def _rows(self) -> NDArray[np.uint16]:
        """All rows, [windows, scored, width]."""
        start = HEADER + 4 * self.shape.windows * self.shape.ctx
        return (
            self._data[start:]
            .view("<u2")
            .reshape(self.shape.windows, self.shape.scored, self.width)
        )

    @property
    def width(self) -> int:
        """The u16 of a row."""
        return row_width(self.shape.vocab)

    def stored(self, window: int, start: int, stop: int) -> tuple[Rows, Rows, NDArray[np.uint16]]:
        """Steps [rows, 1], lowest log-probabilities [rows, 1] and codes [rows, vocab].

        Raises:
            FileFormatError: a row cannot be one of log-probabilities, or the file became shorter.

        """
        intact(self._data)
        rows = self._rows[window, start:stop]
        head = np.ascontiguousarray(rows[:, :4]).view("<f4").astype(np.float32)
        step, lowest = head[:, :1], head[:, 1:]
        with np.errstate(invalid="ignore", over="ignore"):
            wrong = (step < 0) | (lowest + CODES * step > 0.01) | np.isinf(step) | (lowest > 0.01)
        if wrong.any():
            row = start + int(np.flatnonzero(wrong)[0])
            raise damaged(
                self.path, KIND, f"row {row} of window {window} has a probability above 1"
            )
        return step, lowest, rows[:, 4 : 4 + self.shape.vocab]

    def log_probabilities(self, window: int, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of a window as they are stored, f32 [rows, vocab], nats.

        Raises:
            FileFormatError: as `stored`.

        """
        step, lowest, codes = self.stored(window, start, stop)
        found = codes.astype(np.float32)
        with np.errstate(invalid="ignore"):
            found *= step
            found += lowest
        return found

    def _read_shape(self) -> Shape:
        data = self._data
        if data.size < HEADER or data[: len(MAGIC)].tobytes() != MAGIC:
            raise damaged(self.path, KIND, "it does not begin with `_logits_`")
        shape = Shape(*(int(n) for n in data[len(MAGIC) : HEADER].view("<u4")))
        if not (shape.ctx >= 4 and shape.vocab >= 2 and shape.windows >= 1) or (
            max(shape.ctx, shape.vocab, shape.windows) > LARGEST
        ):
            raise damaged(
                self.path, KIND,
                f"its header says {shape.windows} windows of {shape.ctx} tokens, "
                f"a vocabulary of {shape.vocab}",
            )  # fmt: skip
        rows = 2 * shape.windows * shape.scored * row_width(shape.vocab)
        check_length(self.path, data.size, HEADER + 4 * shape.windows * shape.ctx + rows)
        return shape


def row_width(vocab: int) -> int:
    """The u16 of a row."""
    return 2 * ((vocab + 1) // 2) + 4


def check_length(path: Path, found: int, expected: int) -> None:
    """Refuse a file that is not exactly as long as its header says.

    Raises:
        FileFormatError: it is not.

    """
    if found != expected:
        raise FileFormatError(
            f"`{path}` has {found:,} bytes, its header asks for {expected:,}",
            hint="the file is incomplete, or no base file: write it again",
            path=str(path), bytes=found, expected=expected,
        )  # fmt: skip


def read_tokens(path: Path, data: NDArray[np.uint8], start: int, shape: Shape) -> Tokens:
    """The tokens of all windows, [windows, ctx], each checked against the vocabulary.

    Raises:
        FileFormatError: one is not in the vocabulary.

    """
    count = shape.windows * shape.ctx
    tokens = data[start : start + 4 * count].view("<u4").astype(np.uint32)
    wrong = np.flatnonzero(tokens >= shape.vocab)
    if wrong.size:
        window, at = divmod(int(wrong[0]), shape.ctx)
        raise damaged(
            path, KIND,
            f"token {at} of window {window} is {int(tokens[wrong[0]].astype(np.int32))}, "
            f"the vocabulary has {shape.vocab}",
        )  # fmt: skip
    return tokens.reshape(shape.windows, shape.ctx)


class KldWriter:
    """Writes rows of logits into a base file as they come."""

    def __init__(self, file: BinaryIO, shape: Shape, tokens: Tokens) -> None:
        self._file, self._vocab = file, shape.vocab
        numbers = np.array([shape.ctx, shape.vocab, shape.windows], "<u4")
        file.write(MAGIC + numbers.tobytes() + tokens.astype("<i4").tobytes())

    def add(self, logits: Rows, targets: Tokens) -> None:
        """Append rows [n, vocab]; the targets are not stored.

        Raises:
            OSError: the disk is full.

        """
        for rows, _ in slices(logits, targets):
            self._file.write(encode(rows).tobytes())


def slices(logits: Rows, targets: Tokens) -> Iterator[tuple[Rows, Tokens]]:
    """Rows and targets, a few rows at a time."""
    step = max(SLICE // logits.shape[1], 1)
    for start in range(0, len(logits), step):
        yield logits[start : start + step], targets[start : start + step]


def encode(logits: Rows) -> NDArray[np.uint16]:
    """Rows of logits as a base file stores them, u16 [n, width].

    A row without a softmax (NaN or +inf in it) is stored with a step that is NaN.
    """
    count, vocab = logits.shape
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        high = logits.max(1, keepdims=True)
        low = np.maximum(logits.min(1, keepdims=True), high - np.float32(CUT))
        total = np.exp(logits - high).sum(1, keepdims=True, dtype=np.float64)
        step = ((high - low) / np.float32(CODES)).astype(np.float32)
        inverse = np.where(step > 0, np.float32(1) / step, np.float32(0))
        codes = np.rint(np.maximum(logits - low, 0) * inverse)
        lowest = low - high - np.log(total).astype(np.float32)
    out = np.zeros((count, row_width(vocab)), "<u2")
    out[:, :4] = np.concatenate([step, lowest], 1).astype("<f4").view("<u2")
    out[:, 4 : 4 + vocab] = np.nan_to_num(codes, nan=0, posinf=0).clip(0, CODES)
    return out


@contextmanager
def writing(path: Path, shape: Shape, tokens: Tokens) -> Iterator[KldWriter]:
    """Write a base file under a temporary name; it appears when all rows have come.

    Raises:
        OSError: the file cannot be written.

    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield KldWriter(file, shape, tokens)

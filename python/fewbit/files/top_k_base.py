"""Read and write fewbit's compact base files: a row's likeliest tokens and the rest's mass.

A file of all log-probabilities takes 2 bytes a token of the vocabulary in each row. This one keeps
the `top` likeliest tokens and, of the rest, what bounds and estimates a divergence
(`fewbit.measure.top_k` says how). It is little-endian:

========================  =====================================================================
8 bytes                   ``fewbitKL``
u32 [7]                   version (1), window length, vocabulary, windows, top, samples, id bytes
32 bytes                  SHA-256 of the texts of the tokens in the windows (`text_digest`)
u32 [windows, length]     the tokens as the text has them, without BOS in front
rows                      for each window one for each position from length // 2 to length - 2
========================  =====================================================================

A row, padded with zeros to a multiple of 4 bytes, logarithms in nats:

====================  =========================================================================
f32                   step of the codes
f32                   ln p of the least likely token of the top
f32                   ln p of the token that follows in the text
f32                   ln of the sum of p over the rest, -inf if there is no rest
f32                   the sum of p ln p over the rest
u16 [top]             codes, likeliest first: ln p = step * code + ln p of the least likely
ids [top]             the tokens, 2 bytes each, 3 above 65,536; of equal logits the smaller id first
ids [samples]         tokens of the rest, drawn with probability p
f32 [samples]         ln p of these; -inf (and id 0) if there is no rest
====================  =========================================================================

The samples are systematic: the rest in the order of ids is a line as long as its mass, cut into
`samples` equal pieces; the token at the same fraction of each piece is taken. The fraction of row r
of the file, counted from 0, is the fractional part of (r + 1) * (sqrt(5) - 1) / 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError, UnsupportedError
from fewbit.files.base_file import (
    CODES,
    LARGEST,
    Rows,
    Shape,
    Tokens,
    check_length,
    read_tokens,
    slices,
)
from fewbit.files.mapped import damaged, intact, map_file
from fewbit.files.replace import replacing

KIND = "compact KLD base"
MAGIC = b"fewbitKL"
VERSION = 1
DIGEST = 32
HEADER = len(MAGIC) + 7 * 4 + DIGEST
SAMPLES = 16
GOLDEN = (5**0.5 - 1) / 2
DEEPEST = 40.0
"""ln p of the top reaches this far below the largest: e^-40 is 4e-18, and 0 has no logarithm."""
FRACTION = 10
"""A file of the default `top` is this many times smaller than one of all log-probabilities."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """How many tokens a row keeps and where its fields begin, in bytes."""

    vocab: int
    top: int
    samples: int

    @property
    def id_bytes(self) -> int:
        """Bytes of a token id."""
        return 2 if self.vocab <= 1 << 16 else 3

    @property
    def ids(self) -> int:
        """Where the ids of the top begin."""
        return 20 + 2 * self.top

    @property
    def sampled(self) -> int:
        """Where the ids of the samples begin."""
        return self.ids + self.id_bytes * self.top

    @property
    def logarithms(self) -> int:
        """Where the samples' log-probabilities begin."""
        return self.sampled + self.id_bytes * self.samples

    @property
    def bytes(self) -> int:
        """The length of a row."""
        return -(-(self.logarithms + 4 * self.samples) // 4) * 4


def default_top(vocab: int) -> int:
    """The tokens of a row that make the file a tenth of one of all log-probabilities."""
    smallest = Layout(vocab, 1, SAMPLES)
    room = 2 * vocab // FRACTION - (smallest.bytes - 2 - smallest.id_bytes) - 3
    top = room // (2 + smallest.id_bytes)
    return max(1, min(top, vocab))


@dataclass(frozen=True)
class TopRows:
    """Rows of a compact file, decoded: f64, logarithms in nats."""

    step: NDArray[np.float64]
    """The difference of ln p between two codes, [n]."""
    ids: Ids
    """The likeliest tokens, [n, top], the likeliest first."""
    ln_top: NDArray[np.float64]
    """Their ln p, [n, top]."""
    ln_target: NDArray[np.float64]
    ln_rest: NDArray[np.float64]
    negentropy: NDArray[np.float64]
    """The sum of p ln p over the rest."""
    samples: Ids
    ln_samples: NDArray[np.float64]


class TopKFile:
    """A compact base file, mapped into memory."""

    kind = "fewbit top-k"

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._data = map_file(self.path, KIND)
        self.shape, self.layout = self._read_header()
        self.digest = self._data[HEADER - DIGEST : HEADER].tobytes()
        self.tokens = read_tokens(self.path, self._data, HEADER, self.shape)

    @property
    def bytes(self) -> int:
        """The length of the file."""
        return self._data.size

    def rows(self, window: int, start: int, stop: int) -> TopRows:
        """Rows `start` to `stop` of a window.

        Raises:
            FileFormatError: a row cannot be one of log-probabilities, or the file became shorter.

        """
        intact(self._data)
        shape, layout = self.shape, self.layout
        begin = HEADER + 4 * shape.windows * shape.ctx
        begin += (window * shape.scored + start) * layout.bytes
        raw = self._data[begin : begin + (stop - start) * layout.bytes]
        raw = np.ascontiguousarray(raw).reshape(stop - start, layout.bytes)
        head = _floats(raw[:, :20])
        codes = np.ascontiguousarray(raw[:, 20 : layout.ids]).view("<u2").astype(np.float64)
        ids = _ids(raw[:, layout.ids : layout.sampled], layout.id_bytes)
        samples = _ids(raw[:, layout.sampled : layout.logarithms], layout.id_bytes)
        end = layout.logarithms + 4 * layout.samples
        ln_samples = _floats(raw[:, layout.logarithms : end])
        with np.errstate(invalid="ignore", over="ignore"):
            ln_top = head[:, :1] * codes + head[:, 1:2]
        found = TopRows(
            head[:, 0], ids, ln_top, head[:, 2], head[:, 3], head[:, 4], samples, ln_samples
        )
        self._check(found, window, start)
        return found

    def _check(self, rows: TopRows, window: int, start: int) -> None:
        """Refuse ids beyond the vocabulary and probabilities above 1; NaN is a base's own."""
        most = np.maximum(rows.ids.max(1), rows.samples.max(1, initial=0))
        logarithms = np.column_stack((rows.ln_top, rows.ln_target, rows.ln_rest, rows.ln_samples))
        wrong = (most >= self.shape.vocab) | (logarithms > 0.01).any(1) | (rows.negentropy > 0)
        with np.errstate(invalid="ignore"):
            total = np.exp(rows.ln_top).sum(1) + np.exp(rows.ln_rest)
            wrong |= np.abs(total - 1) > 0.01
        if wrong.any():
            row = start + int(np.flatnonzero(wrong)[0])
            raise damaged(
                self.path, KIND, f"row {row} of window {window} holds no distribution of tokens"
            )

    def _read_header(self) -> tuple[Shape, Layout]:
        data = self._data
        if data.size < HEADER or data[: len(MAGIC)].tobytes() != MAGIC:
            raise damaged(self.path, KIND, f"it does not begin with `{MAGIC.decode()}`")
        numbers = data[len(MAGIC) : HEADER - DIGEST].view("<u4")
        version, ctx, vocab, windows, top, samples, id_bytes = (int(n) for n in numbers)
        if version != VERSION:
            raise UnsupportedError(
                f"`{self.path}` is a compact KLD base of version {version}, "
                f"this fewbit reads version {VERSION}",
                hint="update fewbit", path=str(self.path),
            )  # fmt: skip
        layout = Layout(vocab, top, samples)
        if (
            not (ctx >= 4 and vocab >= 2 and windows >= 1 and 1 <= top <= vocab)
            or max(ctx, vocab, windows) > LARGEST
            or samples > 1 << 16
            or id_bytes != layout.id_bytes
        ):
            raise damaged(
                self.path, KIND,
                f"its header says {windows} windows of {ctx} tokens, {top} of {vocab} tokens a row",
            )  # fmt: skip
        shape = Shape(ctx, vocab, windows)
        rows = windows * shape.scored * layout.bytes
        check_length(self.path, data.size, HEADER + 4 * windows * ctx + rows)
        return shape, layout


class TopKWriter:
    """Writes rows of logits into a compact base file as they come."""

    def __init__(
        self, file: BinaryIO, shape: Shape, tokens: Tokens, top: int, digest: bytes
    ) -> None:
        self._file, self._layout, self._row = file, Layout(shape.vocab, top, SAMPLES), 0
        layout = self._layout
        numbers = [
            VERSION, shape.ctx, shape.vocab, shape.windows, top, layout.samples, layout.id_bytes,
        ]  # fmt: skip
        file.write(MAGIC + np.array(numbers, "<u4").tobytes() + digest)
        file.write(tokens.astype("<u4").tobytes())

    def add(self, logits: Rows, targets: Tokens) -> None:
        """Append rows [n, vocab] and the tokens that they predict.

        Raises:
            OSError: the disk is full.

        """
        for rows, wanted in slices(logits, targets):
            self._file.write(encode(rows, wanted, self._layout, self._row).tobytes())
            self._row += len(rows)


def encode(logits: Rows, targets: Tokens, layout: Layout, first: int) -> NDArray[np.uint8]:
    """Rows of logits as a compact file stores them, u8 [n, row bytes]; `first` is its row."""
    count = len(logits)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
        ln_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    ids = _likeliest(logits, layout.top)
    ln_top = np.take_along_axis(ln_p, ids, 1)
    with np.errstate(invalid="ignore"):
        rest = np.exp(ln_p)
        np.put_along_axis(rest, ids, 0.0, 1)
        negentropy = np.where(rest > 0, rest * ln_p, 0.0).sum(1)
        low = np.maximum(ln_top[:, -1:], ln_top[:, :1] - DEEPEST)
        step = ((ln_top[:, :1] - low) / CODES).astype(np.float32)
        codes = np.rint((ln_top - low) / np.where(step > 0, step, 1.0))
    sampled, ln_samples = _sample(rest, ln_p, layout.samples, first)
    mass = rest.sum(1)
    with np.errstate(divide="ignore"):
        head = [step[:, 0], low[:, 0], ln_p[np.arange(count), targets], np.log(mass), negentropy]
    pieces = (
        np.column_stack(head).astype("<f4").view(np.uint8),
        np.nan_to_num(codes).clip(0, CODES).astype("<u2").view(np.uint8),
        _stored_ids(ids, layout.id_bytes),
        _stored_ids(sampled, layout.id_bytes),
        ln_samples.astype("<f4").view(np.uint8),
    )
    out = np.zeros((count, layout.bytes), np.uint8)
    joined = np.concatenate(pieces, axis=1)
    out[:, : joined.shape[1]] = joined
    return out


def _likeliest(logits: Rows, top: int) -> Ids:
    """The ids of the `top` largest logits of each row, the largest first, of equals the first."""
    if top < logits.shape[1]:
        chosen = np.sort(np.argpartition(logits, -top, axis=1)[:, -top:], axis=1)
    else:
        chosen = np.broadcast_to(np.arange(top), logits.shape)
    order = np.argsort(-np.take_along_axis(logits, chosen, 1), axis=1, kind="stable")
    found = np.take_along_axis(chosen, order, 1).astype(np.int64)
    best = logits.argmax(1)
    for row in np.flatnonzero(found[:, 0] != best):  # the first of equals may have been left out
        found[row] = np.concatenate([best[row : row + 1], found[row][found[row] != best[row]]])[
            :top
        ]
    return found


def _sample(
    rest: NDArray[np.float64], ln_p: NDArray[np.float64], samples: int, first: int
) -> tuple[Ids, NDArray[np.float64]]:
    """Systematic samples of each row's rest, [n, samples], and their ln p."""
    sums = np.cumsum(rest, axis=1)
    ids = np.zeros((len(rest), samples), np.int64)
    ln = np.full(ids.shape, -np.inf)
    for row, line in enumerate(sums):
        fraction = (first + row + 1) * GOLDEN % 1.0
        if line[-1] > 0:
            points = (np.arange(samples) + fraction) / samples * line[-1]
            ids[row] = np.searchsorted(line, points, side="right").clip(max=len(line) - 1)
            ln[row] = ln_p[row, ids[row]]
    return ids, ln


def text_digest(texts: Sequence[str | None], tokens: Tokens) -> bytes:
    """SHA-256 of the texts of the tokens that occur in `tokens`; `texts` has them by id."""
    found = hashlib.sha256()
    for token in np.unique(tokens).tolist():
        text = texts[token] if token < len(texts) else None
        found.update(f"{token}\0{text}\0".encode("utf-8", "surrogatepass"))
    return found.digest()


@contextmanager
def writing(
    path: Path, shape: Shape, tokens: Tokens, top: int | None, digest: bytes
) -> Iterator[TopKWriter]:
    """Write a compact file under a temporary name; it appears when all rows have come.

    Raises:
        InputError: `top` is not from 1 to the vocabulary.
        OSError: the file cannot be written.

    """
    kept = default_top(shape.vocab) if top is None else top
    if not 1 <= kept <= shape.vocab:
        raise InputError(
            f"`--top {kept}` of a vocabulary of {shape.vocab} tokens",
            hint=f"the default is {default_top(shape.vocab)}", top=kept,
        )  # fmt: skip
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield TopKWriter(file, shape, tokens, kept, digest)


def _floats(raw: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.ascontiguousarray(raw).view("<f4").astype(np.float64)


def _ids(raw: NDArray[np.uint8], size: int) -> Ids:
    """Little-endian integers of `size` bytes, row by row."""
    grouped = np.zeros((len(raw), raw.shape[1] // size, 4), np.uint8)
    grouped[..., :size] = raw.reshape(len(raw), -1, size)
    return grouped.view("<u4")[..., 0].astype(np.int64)


def _stored_ids(ids: Ids, size: int) -> NDArray[np.uint8]:
    narrow = ids.astype("<u4")[..., None].view(np.uint8)[..., :size]
    return np.ascontiguousarray(narrow).reshape(len(ids), -1)

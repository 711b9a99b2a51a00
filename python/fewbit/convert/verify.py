"""Verify a quantized file: encode its source again and compare bytes, look for damaged values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.convert.encode import SLAB
from fewbit.convert.findings import (
    Difference,
    Impossible,
    Padding,
    Place,
    TensorFindings,
    Verification,
)
from fewbit.convert.reencode import Bytes, Numbers, Reencoder, take_rows
from fewbit.demo import demo_or
from fewbit.errors import InputError
from fewbit.files import hub
from fewbit.files.gguf import GgufFile, TensorInfo, read_gguf, readable
from fewbit.files.gguf_pieces import piece_files, read_pieces
from fewbit.files.mapped import drop_pages, intact, map_file, maps_of
from fewbit.files.names import matching
from fewbit.files.tensor_file import open_tensors
from fewbit.formats.blocks import read_block
from fewbit.formats.impossible import Check, checks_of
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import find_format

SAMPLED = 64
"""Rows of a tensor that are encoded again if no other number is given."""

Importance = Mapping[str, NDArray[np.float32]]

DECODED = 1 << 20
"""Values that are decoded at a time."""
ROUNDING = 2.0**-20
"""How far numbers that another program computed may be from ours, relative: 8 roundings to f32."""


def verify(
    file: str | PathLike[str],
    source: str | PathLike[str] | None = None,
    *,
    imatrix: Importance | None = None,
    tensor: str | None = None,
    rows: int | Literal["all"] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Verification:
    """Compare a GGUF file with the model that it was quantized from, and look for damaged values.

    The file may be one of the hub, as `owner/repository:Q4_K_M`.

    With a `source` (a folder, a GGUF file or a name on the hub) rows of each tensor are encoded
    again, in the format that the file has, with the importance matrix `imatrix` that it was made
    with, and must give the same bytes. In any case no block may hold a value that no encoder
    writes, as a scale that is NaN, and bytes between tensors must be zero.

    `tensor` is a regular expression over names. `rows` of each tensor are checked, evenly spaced,
    the first and the last among them: 64 if there is a source and all if there is none, unless
    given. `threads` 0 means all cores. Memory holds a slab of 64 MiB at a time.

    Raises:
        FileFormatError: `file` is not a whole GGUF file.
        InputError: `tensor` matches nothing, `rows` is below 1, or the source cannot be that of
            the file: a tensor is missing in one of them.
        ShapeError: a tensor of the source has another shape.

    """
    if isinstance(rows, int) and rows < 1:
        raise InputError(f"cannot check {rows} rows of each tensor", hint="use 1 or more, or `all`")
    path = hub.resolve(file)
    paths, found = piece_files(path), read_pieces(path)
    names = matching(found.tensors, tensor or "")
    origin = None
    if source is not None:
        origin = Reencoder(
            path, open_tensors(demo_or(source), damaged=True), imatrix or {}, threads
        )
        origin.check(found.tensors, names, complete=tensor is None)
    wanted = rows or ("all" if origin is None else SAMPLED)
    owners = _owners(paths)
    walks = [_Walk(name, found.tensors[name], origin, wanted, owners.get(name)) for name in names]
    total, done = sum(walk.bytes for walk in walks), 0
    for walk in walks:
        for size in walk.run():
            done += size
            if progress:
                progress(done, total, readable(walk.name))
    return Verification(
        str(file),
        None if source is None else str(source),
        tuple(walk.findings() for walk in walks),
        tuple(_stray(paths)) if tensor is None else (),
        () if origin is None else tuple(_notes(found, imatrix)),
    )


class _Walk:
    """One tensor, a slab of rows at a time, and what is found on the way."""

    def __init__(
        self,
        name: str,
        stored: TensorInfo,
        origin: Reencoder | None,
        rows: int | Literal["all"],
        piece: str | None,
    ) -> None:
        self.name, self._stored, self._origin = name, stored, origin
        self._piece, self._maps = piece, maps_of([stored.data])
        self._format = find_format(stored.format)
        self._total, self._row_bytes = map(int, stored.data.shape)
        self._rows = _spread(self._total, self._total if rows == "all" else rows)
        self._blocks = self._row_bytes // self._format.bytes
        self._checks = checks_of(self._format)
        self._differing_rows = self._differing_blocks = 0
        self._difference: Difference | None = None
        self._impossible: dict[str, Impossible] = {}
        self._zero = True

    @property
    def bytes(self) -> int:
        """Bytes of the file that are looked at."""
        return self._rows.size * self._row_bytes

    def run(self) -> Iterator[int]:
        """Look at all rows; yields the bytes looked at, slab by slab."""
        widest, encode = self._row_bytes, None
        if self._origin is not None:
            widest = max(widest, self._origin.row_bytes(self.name))
            encode = self._origin.encoder(self.name, self._format.name)
        step = max(SLAB // widest, 1)
        for start in range(0, len(self._rows), step):
            rows = self._rows[start : start + step]
            stored = take_rows(self._stored.data, rows)
            if encode is not None:
                self._compare(rows, stored, self._expected(stored, encode(rows)))
            for check in self._checks:
                self._look(check, rows, stored)
            self._zero = self._zero and self._is_zero(stored)
            drop_pages(self._maps)
            yield stored.size

    def findings(self) -> TensorFindings:
        """What was found."""
        return TensorFindings(
            readable(self.name), self._format.name, self._stored.shape, self._total,
            len(self._rows), self._blocks, self._differing_rows, self._differing_blocks,
            self._difference, tuple(self._impossible.values()), self._zero, self._piece,
        )  # fmt: skip

    def _expected(self, stored: Bytes, expected: Bytes) -> Bytes:
        """The bytes to compare with: of a computed tensor the stored ones where they are close."""
        if self._origin is None or self.name not in self._origin.computed:
            return expected
        a, b = stored.view("<f4"), expected.view("<f4")
        return np.where(np.abs(a - b) <= ROUNDING * np.abs(b), a, b).view(np.uint8)

    def _compare(self, rows: Numbers, stored: Bytes, expected: Bytes) -> None:
        differs = stored != expected
        if not differs.any():
            return
        self._differing_rows += int(differs.any(axis=1).sum())
        blocks = differs.reshape(len(rows), self._blocks, -1)
        self._differing_blocks += int(blocks.any(axis=2).sum())
        if self._difference is None:
            index, byte = divmod(int(differs.argmax()), self._row_bytes)
            block = byte // self._format.bytes * self._format.bytes
            two = (data[index, block : block + self._format.bytes] for data in (stored, expected))
            self._difference = self._describe(self._place(int(rows[index]), byte), *two)

    def _describe(self, place: Place, found: Bytes, expected: Bytes) -> Difference:
        """The first difference of two blocks, which is at `place`."""
        name, two = self._format.name, np.stack([found, expected])
        values = _core.decode(two, name, self._format.block).tolist()
        if self._format.is_float:
            number: str | None = "values"
            numbers: tuple[float | None, float | None] = (values[0][0], values[1][0])
        else:
            number, numbers = _number(two, name, place.byte)
        return Difference(
            **asdict(place), found=int(found[place.byte]), expected=int(expected[place.byte]),
            number=number, found_number=numbers[0], expected_number=numbers[1],
            found_values=tuple(values[0]), expected_values=tuple(values[1]),
        )  # fmt: skip

    def _look(self, check: Check, rows: Numbers, stored: Bytes) -> None:
        """Note the first block with an impossible value, and count the others."""
        blocks = stored.reshape(-1, self._format.bytes)
        marks = check.find(blocks)
        count = int(marks.any(axis=1).sum())
        if not count:
            return
        known = self._impossible.get(check.reason)
        if known is None:
            block, at = divmod(int(marks.argmax()), marks.shape[1])
            byte = check.start + at * check.width
            row, in_row = divmod(block, self._blocks)
            place = self._place(int(rows[row]), in_row * self._format.bytes + byte)
            stored_bytes = blocks[block, byte : byte + check.width].tobytes().hex(" ")
            known = Impossible(**asdict(place), reason=check.reason, found=stored_bytes, blocks=0)
        self._impossible[check.reason] = replace(known, blocks=known.blocks + count)

    def _is_zero(self, stored: Bytes) -> bool:
        """Whether all values are zero; of most tensors the first row answers that."""
        columns = self._stored.shape[-1]
        step = max(DECODED // columns, 1)
        starts = [0, *range(1, len(stored), step)]
        for start, stop in zip(starts, [*starts[1:], len(stored)], strict=True):
            if _core.decode(stored[start:stop], self._format.name, columns).any():
                return False
        return True

    def _place(self, row: int, byte: int) -> Place:
        """Where a byte of a row is."""
        block, inside = divmod(byte, self._format.bytes)
        fields = layout_of(self._format).fields
        field = next(f.name for f in fields if f.start <= inside < f.stop)
        offset = self._stored.offset + row * self._row_bytes + byte
        return Place(row, block, block * self._format.block, field, inside, offset)


def _spread(total: int, count: int) -> Numbers:
    """`count` of the numbers below `total`, evenly spaced, the first and the last among them."""
    if count >= total:
        return np.arange(total)
    if count == 1:
        return np.zeros(1, np.int64)
    return np.arange(count) * (total - 1) // (count - 1)


def _number(
    two: Bytes, format_: str, byte: int
) -> tuple[str | None, tuple[float | None, float | None]]:
    """The first stored number that `byte` changes from one block to the other, and both of them."""
    fields = layout_of(find_format(format_)).fields
    names = next(f.name for f in fields if f.start <= byte < f.stop).split()
    only = two[1].copy()
    only[byte] = two[0, byte]
    found, expected, changed = (read_block(block, format_) for block in (*two, only))
    for name in names:
        a, b = changed[name], expected[name]
        differ = np.flatnonzero((a != b) & ~((a != a) & (b != b)))
        if differ.size:
            at = int(differ[0])
            label = f"{name}[{at}]" if len(a) > 1 else name
            return label, (found[name][at].item(), expected[name][at].item())
    return None, (None, None)


def _owners(paths: Sequence[Path]) -> dict[str, str]:
    """The piece of a split model that each tensor is in; empty if the model is one file."""
    if len(paths) < 2:
        return {}
    return {name: path.name for path in paths for name in read_gguf(path).tensors}


def _stray(paths: Sequence[Path]) -> Iterator[Padding]:
    """Bytes of the files of a model that belong to no tensor and are not zero."""
    for path in paths:
        piece = path.name if len(paths) > 1 else None
        yield from _padding(path, read_gguf(path), piece)


def _padding(path: Path, file: GgufFile, piece: str | None) -> Iterator[Padding]:
    """Bytes between tensors and behind the last that are not zero."""
    data = map_file(path, "GGUF")
    placed = sorted(file.tensors.items(), key=lambda item: item[1].offset)
    starts = ([stored.offset for _, stored in placed] + [data.size])[1:]
    for (name, stored), stop in zip(placed, starts, strict=True):
        start, first, count = stored.offset + stored.data.size, None, 0
        for at in range(start, stop, SLAB):
            stray = np.flatnonzero(intact(data)[at : min(at + SLAB, stop)])
            if stray.size and first is None:
                first = at + int(stray[0])
            count += stray.size
        if first is not None:
            yield Padding(readable(name), first, int(data[first]), count, piece)


def _notes(file: GgufFile, imatrix: Importance | None) -> Iterator[str]:
    """What may explain differences."""
    made_with = [key for key in file.metadata if key.startswith("quantize.imatrix.")]
    if made_with and not imatrix:
        named = file.metadata.get("quantize.imatrix.file")
        name = f", `{named.value}`" if named else ""
        yield f"the file was made with an importance matrix{name}: name it with `--imatrix`"
    if imatrix and not made_with:
        yield "the file does not say that it was made with an importance matrix"

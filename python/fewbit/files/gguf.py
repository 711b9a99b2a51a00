"""Read GGUF files by memory mapping (specification: docs/gguf.md in ggml's repository).

The reader trusts nothing: it checks every length against the rest of the file before it uses it, so
a hostile header costs neither memory nor time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError, ShapeError, UnsupportedError
from fewbit.files.gguf_types import GGUFValueType
from fewbit.formats.table import BY_GGUF_ID

VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_DIMENSIONS = 4

_NUMBERS: dict[GGUFValueType, np.dtype[Any]] = {
    GGUFValueType.UINT8: np.dtype("<u1"),
    GGUFValueType.INT8: np.dtype("<i1"),
    GGUFValueType.UINT16: np.dtype("<u2"),
    GGUFValueType.INT16: np.dtype("<i2"),
    GGUFValueType.UINT32: np.dtype("<u4"),
    GGUFValueType.INT32: np.dtype("<i4"),
    GGUFValueType.FLOAT32: np.dtype("<f4"),
    GGUFValueType.BOOL: np.dtype("?"),
    GGUFValueType.UINT64: np.dtype("<u8"),
    GGUFValueType.INT64: np.dtype("<i8"),
    GGUFValueType.FLOAT64: np.dtype("<f8"),
}


@dataclass(frozen=True)
class Field:
    """A metadata value and its type; `item` is the type of the elements of an array."""

    value: Any
    type: GGUFValueType
    item: GGUFValueType | None = None


Metadata = Mapping[str, Field]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a GGUF file: format, shape with rows first, mapped uint8 [rows, row bytes].

    `offset` is the position of `data` in the file, in bytes.
    """

    format: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    offset: int


@dataclass(frozen=True)
class GgufFile:
    """Metadata and tensors of a GGUF file, in file order."""

    metadata: dict[str, Field]
    tensors: dict[str, TensorInfo]


@dataclass(frozen=True)
class _Header:
    """A tensor as the header describes it; `offset` counts from the start of the data."""

    name: str
    format: str
    shape: tuple[int, ...]
    row_bytes: int
    offset: int

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def bytes(self) -> int:
        return self.rows * self.row_bytes


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file: metadata and tensors, whose data stay on disk.

    Raises:
        FileFormatError: the file is truncated, inconsistent or not a GGUF file.
        UnsupportedError: the file is big-endian, has another version than 2 or 3, or has a tensor
            in an unknown format.
        OSError: the file cannot be read.

    """
    if path.stat().st_size == 0:
        raise _damaged(path, "it is empty")
    data = np.memmap(path, np.uint8, "r")
    cursor = _Cursor(path, data)
    tensor_count, field_count = _header(cursor)
    metadata: dict[str, Field] = {}
    for _ in range(field_count):
        key = cursor.text("a metadata key")
        if key in metadata:
            raise cursor.error(f"the metadata key `{key}` appears twice")
        metadata[key] = cursor.field(key)
    infos = [_info(cursor) for _ in range(tensor_count)]
    alignment = _alignment(cursor, metadata)
    start = math.ceil(cursor.at / alignment) * alignment
    _check_layout(cursor, infos, start, alignment)
    return GgufFile(metadata, {info.name: _tensor(info, data, start) for info in infos})


class _Cursor:
    """Reads a file from start to end and refuses lengths that reach beyond its end."""

    def __init__(self, path: Path, data: NDArray[np.uint8]) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def error(self, reason: str) -> FileFormatError:
        return _damaged(self.path, reason)

    def take(self, count: int, what: str) -> NDArray[np.uint8]:
        left = self.data.size - self.at
        if count > left:
            raise self.error(f"{what} needs {count} bytes at {self.at}, {left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, type_: GGUFValueType, what: str) -> Any:
        dtype = _NUMBERS[type_]
        return self.take(dtype.itemsize, what).view(dtype)[0].item()

    def u32(self, what: str) -> int:
        return int(self.number(GGUFValueType.UINT32, what))

    def u64(self, what: str) -> int:
        return int(self.number(GGUFValueType.UINT64, what))

    def text(self, what: str) -> str:
        raw = self.take(self.u64(f"the length of {what}"), what).tobytes()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8: {raw[:40]!r}") from None

    def field(self, key: str) -> Field:
        type_ = self._type(key)
        if type_ != GGUFValueType.ARRAY:
            return Field(self._value(type_, key), type_)
        item = self._type(key)
        count = self.u64(f"the length of `{key}`")
        if item in _NUMBERS:
            dtype = _NUMBERS[item]
            values = self.take(count * dtype.itemsize, f"the array `{key}`")
            return Field(values.view(dtype).tolist(), type_, item)
        if item == GGUFValueType.ARRAY:
            raise self.error(f"the array `{key}` holds arrays, which are not supported")
        if count > (self.data.size - self.at) // 8:  # a string takes 8 bytes at least
            raise self.error(f"the array `{key}` of {count} strings does not fit")
        return Field(self._texts(count, key), type_, item)

    def _texts(self, count: int, key: str) -> list[str]:
        """Read `count` strings in one loop: calls of `text` would be slow for 100,000 tokens."""
        data, at, found = self.data.data, self.at, []
        for _ in range(count):
            size = int.from_bytes(data[at : at + 8], "little")
            raw = bytes(data[at + 8 : at + 8 + size])
            if len(raw) != size or at + 8 > data.nbytes:
                break
            try:
                found.append(raw.decode())
            except UnicodeDecodeError:
                break
            at += 8 + size
        self.at = at
        if len(found) < count:
            self.text(f"a string of `{key}`")  # raises the error of this string
        return found

    def _value(self, type_: GGUFValueType, key: str) -> Any:
        if type_ == GGUFValueType.STRING:
            return self.text(f"the value of `{key}`")
        return self.number(type_, f"the value of `{key}`")

    def _type(self, key: str) -> GGUFValueType:
        code = self.u32(f"the type of `{key}`")
        try:
            return GGUFValueType(code)
        except ValueError:
            raise self.error(f"`{key}` has the unknown type {code}") from None


def _header(cursor: _Cursor) -> tuple[int, int]:
    """Read the number of tensors and the number of metadata keys."""
    magic = cursor.take(4, "the magic number").tobytes()
    if magic != b"GGUF":
        raise cursor.error(f"it starts with {magic!r}, expected b'GGUF'")
    version = cursor.u32("the version")
    if version not in VERSIONS:
        order = " (big-endian?)" if int.from_bytes(version.to_bytes(4, "big"), "little") < 9 else ""
        raise UnsupportedError(
            f"`{cursor.path}` has GGUF version {version}{order}",
            hint="known: little-endian files of version 2 and 3",
            path=str(cursor.path),
        )
    tensors, fields = cursor.u64("the tensor count"), cursor.u64("the metadata count")
    left = cursor.data.size - cursor.at
    if tensors > left // 24 or fields > left // 13:  # the least bytes of each
        raise cursor.error(f"{tensors} tensors and {fields} metadata keys do not fit")
    return tensors, fields


def _info(cursor: _Cursor) -> _Header:
    name = cursor.text("a tensor's name")
    count = cursor.u32(f"the dimensions of `{name}`")
    if not 1 <= count <= MAX_DIMENSIONS:
        raise cursor.error(f"tensor `{name}` has {count} dimensions, expected 1 to 4")
    shape = tuple(cursor.u64(f"the shape of `{name}`") for _ in range(count))[::-1]
    if 0 in shape or math.prod(shape) > 1 << 62:
        raise cursor.error(f"tensor `{name}` has the invalid shape {shape}")
    format_ = BY_GGUF_ID.get(code := cursor.u32(f"the format of `{name}`"))
    if format_ is None:
        raise UnsupportedError(
            f"tensor `{name}` has the unsupported format {_ggml_name(code)}",
            hint=f"known: {', '.join(known.name for known in BY_GGUF_ID.values())}",
            tensor=name,
        )
    try:
        row_bytes = format_.row_bytes(shape[-1])
    except ShapeError as error:
        raise cursor.error(f"tensor `{name}`: {error.message}") from None
    return _Header(name, format_.name, shape, row_bytes, cursor.u64(f"the offset of `{name}`"))


def _ggml_name(code: int) -> str:
    from gguf import GGMLQuantizationType

    try:
        return GGMLQuantizationType(code).name
    except ValueError:
        return f"type {code}"


def _alignment(cursor: _Cursor, metadata: Metadata) -> int:
    field = metadata.get("general.alignment")
    value = ALIGNMENT if field is None else field.value
    if not isinstance(value, int) or value < 1 or value & (value - 1) or value > 1 << 20:
        raise cursor.error(f"`general.alignment` is {value!r}, expected a power of two")
    return value


def _check_layout(cursor: _Cursor, infos: list[_Header], start: int, alignment: int) -> None:
    """Check that every tensor is aligned, within the file, and overlaps no other."""
    seen: set[str] = set()
    end, before = 0, ""
    for info in sorted(infos, key=lambda info: info.offset):
        if info.name in seen:
            raise cursor.error(f"tensor `{info.name}` appears twice")
        seen.add(info.name)
        if info.offset % alignment:
            raise cursor.error(
                f"tensor `{info.name}` starts at {info.offset}, not a multiple of {alignment}"
            )
        if info.offset < end:
            raise cursor.error(f"tensors `{before}` and `{info.name}` overlap")
        end, before = info.offset + info.bytes, info.name
        if start + end > cursor.data.size:
            raise cursor.error(
                f"tensor `{info.name}` ends at byte {start + end}, the file at {cursor.data.size}"
            )


def _tensor(info: _Header, data: NDArray[np.uint8], start: int) -> TensorInfo:
    begin = start + info.offset
    rows = data[begin : begin + info.bytes].reshape(info.rows, info.row_bytes)
    return TensorInfo(info.format, info.shape, rows, begin)


def _damaged(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"`{path}` is not a valid GGUF file: {reason}",
        hint="download it again: an interrupted download is the usual cause",
        path=str(path),
    )


def fields_of(values: Mapping[str, Any]) -> Iterator[tuple[str, Field]]:
    """Give plain values their GGUF types: int u32 (in lists i32), float f32, str, bool, lists."""
    for key, value in values.items():
        if isinstance(value, list):
            item = _type_of(value[0]) if value else GGUFValueType.STRING
            item = GGUFValueType.INT32 if item == GGUFValueType.UINT32 else item
            yield key, Field(value, GGUFValueType.ARRAY, item)
        else:
            yield key, Field(value, _type_of(value))


def _type_of(value: Any) -> GGUFValueType:
    match value:
        case bool():
            return GGUFValueType.BOOL
        case int():
            return GGUFValueType.UINT32 if value >= 0 else GGUFValueType.INT32
        case float():
            return GGUFValueType.FLOAT32
        case str():
            return GGUFValueType.STRING
    raise TypeError(f"GGUF has no type for {value!r}")

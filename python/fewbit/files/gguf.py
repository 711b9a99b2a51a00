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
from fewbit.files.mapped import damaged, map_file
from fewbit.formats.table import BY_GGUF_ID

VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_DIMENSIONS = 4

NUMBERS: dict[GGUFValueType, np.dtype[Any]] = {
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
"""The types of numbers, and what they are in memory."""
MAX_NESTING = 16
"""Arrays in arrays: more levels than any writer makes, few enough to be read by recursion."""

_OTHERS = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
    36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
    133: "Q6_0", 134: "IQ1_BN", 135: "IQ2_BN", 136: "Q8_K64", 137: "IQ2_K", 138: "IQ3_K",
    139: "IQ4_K", 140: "IQ5_K", 141: "IQ6_K", 144: "IQ4_KS", 145: "IQ2_KS", 146: "IQ4_KSS",
    147: "Q8_K16", 148: "Q8_K32", 149: "Q8_KR8", 150: "Q8_K128", 151: "Q8_KV", 152: "IQ5_KS",
    153: "IQ2_KT", 154: "IQ3_KT", 155: "IQ4_KT", 156: "IQ3_KS", 157: "IQ2_KL", 158: "IQ1_KT",
}  # fmt: skip
"""Names of the types that llama.cpp has dropped (below 39) and of those of ik_llama.cpp."""


@dataclass(frozen=True)
class Field:
    """A metadata value and its type; `item` is the type of the elements of an array.

    An array of arrays has a `Field` for each of them.
    """

    value: Any
    type: GGUFValueType
    item: GGUFValueType | None = None


Metadata = Mapping[str, Field]


def readable(text: str) -> str:
    r"""Spell the bytes of a file's text that are not UTF-8 as `\xNN`, to print or to encode it.

    >>> readable(b"Mod\xe8le".decode(errors="surrogateescape"))
    'Mod\\xe8le'
    """
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


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

    A byte of a name, key or value that is not UTF-8 becomes a surrogate, as in Python's
    `surrogateescape`, so that it is written as it was; `readable` makes it fit to print.

    Raises:
        InputError: the path is a pipe or a device.
        FileFormatError: the file is truncated, inconsistent, not a GGUF file, or a pointer of
            Git LFS.
        UnsupportedError: the file is big-endian, has another version than 2 or 3, or has a tensor
            in an unknown format.
        OSError: the file cannot be read.

    """
    data = map_file(path, "GGUF")
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
        return damaged(self.path, "GGUF", reason)

    def take(self, count: int, what: str) -> NDArray[np.uint8]:
        left = self.data.size - self.at
        if count > left:
            raise self.error(f"{what} needs {count} bytes at {self.at}, {left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, type_: GGUFValueType, what: str) -> Any:
        dtype = NUMBERS[type_]
        return self.take(dtype.itemsize, what).view(dtype)[0].item()

    def u32(self, what: str) -> int:
        return int(self.number(GGUFValueType.UINT32, what))

    def u64(self, what: str) -> int:
        return int(self.number(GGUFValueType.UINT64, what))

    def text(self, what: str) -> str:
        raw = self.take(self.u64(f"the length of {what}"), what).tobytes()
        return raw.decode(errors="surrogateescape")

    def field(self, key: str) -> Field:
        type_ = self._type(key)
        if type_ != GGUFValueType.ARRAY:
            return Field(self._value(type_, key), type_)
        return self._array(key, 1)

    def _array(self, key: str, level: int) -> Field:
        type_, item = GGUFValueType.ARRAY, self._type(key)
        count = self.u64(f"the length of `{key}`")
        if item in NUMBERS:
            dtype = NUMBERS[item]
            values = self.take(count * dtype.itemsize, f"the array `{key}`")
            return Field(values.view(dtype).tolist(), type_, item)
        if count > (self.data.size - self.at) // 8:  # a string or array takes 8 bytes at least
            what = "strings" if item == GGUFValueType.STRING else "arrays"
            raise self.error(f"the array `{key}` of {count} {what} does not fit")
        if item == GGUFValueType.STRING:
            return Field(self._texts(count, key), type_, item)
        if level == MAX_NESTING:
            raise self.error(f"the array `{key}` has more than {MAX_NESTING} levels")
        return Field([self._array(key, level + 1) for _ in range(count)], type_, item)

    def _texts(self, count: int, key: str) -> list[str]:
        """Read `count` strings in one loop: calls of `text` would be slow for 100,000 tokens."""
        data, at, found = self.data.data, self.at, []
        for _ in range(count):
            size = int.from_bytes(data[at : at + 8], "little")
            raw = bytes(data[at + 8 : at + 8 + size])
            if len(raw) != size or at + 8 > data.nbytes:
                break
            found.append(raw.decode(errors="surrogateescape"))
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
    sizes = [cursor.u64(f"the shape of `{name}`") for _ in range(count)]
    shape = _without_ones(name, tuple(reversed(sizes)))
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


def _without_ones(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop the outer sizes of 1 with which some writers fill all four places of a shape.

    A matrix may have one row and a stack one expert: what the header gives as a matrix stays one.
    """
    least = 3 if "_exps." in name else 1
    if len(shape) > 2:
        while len(shape) > least and shape[0] == 1:
            shape = shape[1:]
    return shape


def _ggml_name(code: int) -> str:
    if code in _OTHERS:
        return _OTHERS[code]
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


def fields_of(values: Mapping[str, Any]) -> Iterator[tuple[str, Field]]:
    """Give plain values their GGUF types: int u32 (in lists i32), float f32, str, bool, lists.

    Bytes are a list of u8.
    """
    for key, value in values.items():
        if isinstance(value, bytes):
            yield key, Field(list(value), GGUFValueType.ARRAY, GGUFValueType.UINT8)
            continue
        if isinstance(value, list):
            item = _type_of(value[0]) if value else GGUFValueType.STRING
            if item in (GGUFValueType.UINT32, GGUFValueType.UINT64, GGUFValueType.INT64):
                small = all(-(1 << 31) <= each < 1 << 31 for each in value)
                item = GGUFValueType.INT32 if small else GGUFValueType.INT64
            yield key, Field(value, GGUFValueType.ARRAY, item)
        else:
            yield key, Field(value, _type_of(value))


def _type_of(value: Any) -> GGUFValueType:
    match value:
        case bool():
            return GGUFValueType.BOOL
        case int():
            if 0 <= value < 1 << 32:
                return GGUFValueType.UINT32
            if value >= 0:
                return GGUFValueType.UINT64
            return GGUFValueType.INT32 if value >= -(1 << 31) else GGUFValueType.INT64
        case float():
            return GGUFValueType.FLOAT32
        case str():
            return GGUFValueType.STRING
    raise TypeError(f"GGUF has no type for {value!r}")

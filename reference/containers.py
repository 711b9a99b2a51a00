"""Read and write GGUF and safetensors files, byte by byte; anything unknown is refused.

safetensors   u64 length of a JSON header; the header: name -> dtype, shape, data_offsets; the data
GGUF          "GGUF"; u32 version; u64 tensors; u64 keys
              per key     string name; u32 kind; value
              per tensor  string name; u32 dimensions; u64 each, fastest first; u32 type; u64 offset
              padding to the alignment; the data, each tensor from a multiple of the alignment

All numbers are little-endian; a string is a u64 length and UTF-8 bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from reference.formats import row_bytes

KINDS = ["B", "b", "H", "h", "I", "i", "f", "?", "string", "array", "Q", "q", "d"]
"""GGUF's kinds of metadata values by number, as `struct` format characters."""

TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 30: "BF16",
}  # fmt: skip
"""GGUF's tensor types by number, those that the oracle's tests need."""

DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of an element, for safetensors dtypes of weights."""


class Stored(NamedTuple):
    """A tensor: its format, its shape with the fastest dimension last, its bytes."""

    format: str
    shape: tuple[int, ...]
    data: bytes


class Typed(NamedTuple):
    """A metadata value and its kind; the kind of an array is a list with its elements' kind."""

    kind: str | list[str]
    value: Any


def read_safetensors(data: bytes) -> dict[str, Stored]:
    """Return all tensors of a file; ValueError if they do not fill it exactly.

    >>> data = write_safetensors({"w": Stored("F32", (1, 2), bytes(8))})
    >>> read_safetensors(data)["w"].shape
    (1, 2)
    >>> read_safetensors(data[:-1])
    Traceback (most recent call last):
    ValueError: `w` ends at byte 8 of 7
    """
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    tensors, end = {}, 0
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = info["data_offsets"]
        if last > len(body):
            raise ValueError(f"`{name}` ends at byte {last} of {len(body)}")
        size = math.prod(info["shape"]) * DTYPES[info["dtype"]]
        if first != end or last - first != size:
            raise ValueError(f"`{name}` lies at {first}..{last}, expected {end}..{end + size}")
        tensors[name] = Stored(info["dtype"], tuple(info["shape"]), body[first:last])
        end = last
    if end != len(body):
        raise ValueError(f"{len(body) - end} bytes behind the last tensor")
    return tensors


def write_safetensors(tensors: Mapping[str, Stored]) -> bytes:
    """Return a file of tensors in the given order, its header padded to 8 bytes.

    >>> write_safetensors({"w": Stored("F16", (1,), b"xy")})[8:]
    b'{"w":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}  xy'
    """
    header, end = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [end, end + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors.values())


class Reader:
    """Reads values from the front of a GGUF file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if count > len(self.data) - self.at:
            raise ValueError(f"{count} bytes wanted at byte {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind: str) -> Any:
        """Return a number of a `struct` kind."""
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        """Return a string."""
        return self.take(self.number("Q")).decode()

    def typed(self) -> Typed:
        """Return a metadata value, whose kind is stored before it."""
        kind = KINDS[self.number("I")]
        if kind != "array":
            return Typed(kind, self.text() if kind == "string" else self.number(kind))
        of, count = KINDS[self.number("I")], self.number("Q")
        if of == "array":
            raise ValueError("an array of arrays")
        return Typed(
            [of], [self.text() if of == "string" else self.number(of) for _ in range(count)]
        )


def read_gguf(data: bytes) -> tuple[dict[str, Typed], dict[str, Stored]]:
    """Return the metadata and the tensors of a file; ValueError if it is malformed.

    >>> keys = {"general.name": Typed("string", "tiny"), "lengths": Typed(["I"], [1, 2])}
    >>> data = write_gguf(keys, {"w": Stored("Q8_0", (2, 32), bytes(68))})
    >>> read_gguf(data)[0] == keys, read_gguf(data)[1]["w"].shape
    (True, (2, 32))
    >>> read_gguf(data[:100])
    Traceback (most recent call last):
    ValueError: 8 bytes wanted at byte 99 of 100
    """
    r = Reader(data)
    if r.take(4) != b"GGUF" or r.number("I") not in (2, 3):
        raise ValueError("not a GGUF file of version 2 or 3")
    count, keys = r.number("Q"), r.number("Q")
    metadata = {r.text(): r.typed() for _ in range(keys)}
    infos = {}
    for _ in range(count):
        name = r.text()
        shape = tuple(r.number("Q") for _ in range(r.number("I")))[::-1]
        infos[name] = (TYPES[r.number("I")], shape, r.number("Q"))
    alignment = metadata.get("general.alignment", Typed("I", 32)).value
    r.take(-r.at % alignment)
    start, tensors = r.at, {}
    for name, (kind, shape, offset) in infos.items():
        if offset % alignment:
            raise ValueError(f"`{name}` starts at {offset}, not a multiple of {alignment}")
        r.at = start + offset
        tensors[name] = Stored(kind, shape, r.take(tensor_bytes(kind, shape)))
    return metadata, tensors


def tensor_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor; a vector is one row.

    >>> tensor_bytes("Q8_0", (2, 3, 32))
    204
    """
    return math.prod(shape[:-1]) * row_bytes(kind, shape[-1])


def write_gguf(
    metadata: Mapping[str, Typed], tensors: Mapping[str, Stored], alignment: int = 32
) -> bytes:
    """Return a GGUF file of version 3 with these keys and tensors, in the given order.

    >>> len(write_gguf({}, {"w": Stored("F32", (1,), bytes(4))}))
    96
    """
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for name, (kind, value) in metadata.items():
        out += _text(name)
        if isinstance(kind, str):
            out += struct.pack("<I", KINDS.index(kind)) + _value(kind, value)
        else:
            out += struct.pack("<IIQ", KINDS.index("array"), KINDS.index(kind[0]), len(value))
            out += b"".join(_value(kind[0], v) for v in value)
    numbers, body = {name: number for number, name in TYPES.items()}, bytearray()
    for name, (kind, shape, data) in tensors.items():
        out += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        out += struct.pack("<IQ", numbers[kind], len(body))
        body += data + bytes(-len(data) % alignment)
    return bytes(out) + bytes(-len(out) % alignment) + bytes(body)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: str, value: Any) -> bytes:
    return _text(value) if kind == "string" else struct.pack("<" + kind, value)

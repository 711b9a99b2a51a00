"""GGUF files as lists of fields and tensors that can be changed at will, and safetensors files."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.hostile.values import (
    FLOATS,
    INTEGERS,
    TEXTS,
    change_bytes,
    change_document,
    change_text,
    to_bytes,
)

CODES = dict(
    zip([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12], map("<".__add__, "BbHhIifBQqd"), strict=True)
)
"""GGUF's number of a type -> its code in `struct`."""
TEXT, ARRAY = 8, 9


@dataclass
class Gguf:
    """The fields (key, type, value) and the tensors (name, sizes, type, offset) of a file.

    The value of an array is (type of its items, items). Texts are bytes.
    """

    fields: list[list[Any]]
    tensors: list[list[Any]]
    data: bytes
    head: bytes = b"GGUF\x03\0\0\0"
    counts: list[int | None] = field(default_factory=lambda: [None, None])

    def to_bytes(self) -> bytes:
        counts = [len(self.tensors), len(self.fields)]
        counts = [own if own is not None else n for own, n in zip(self.counts, counts, strict=True)]
        out = bytearray(self.head + b"".join(_pack("<Q", n) for n in counts))
        for key, type_, value in self.fields:
            out += _text(key) + _pack("<I", type_) + _value(type_, value)
        for name, sizes, type_, offset in self.tensors:
            out += _text(name) + _pack("<I", len(sizes)) + b"".join(_pack("<Q", n) for n in sizes)
            out += _pack("<I", type_) + _pack("<Q", offset)
        return bytes(out) + bytes(-len(out) % 32) + self.data


def _pack(code: str, value: Any) -> bytes:
    """A number in this type; one that does not fit loses its upper bits."""
    if code in ("<f", "<d"):
        try:
            return struct.pack(code, float(value))
        except OverflowError:
            return struct.pack(code, float("inf"))
    size = struct.calcsize(code)
    if isinstance(value, float):
        value = int(value) if abs(value) < 1e300 else 0
    return (int(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def _value(type_: int, value: Any) -> bytes:
    if type_ == TEXT:
        return _text(value if isinstance(value, bytes) else str(value).encode("utf-8", "replace"))
    if type_ == ARRAY:
        item, items = value if isinstance(value, tuple) else (4, [value])
        body = b"".join(_value(item, each) for each in items)
        return _pack("<I", item) + _pack("<Q", len(items)) + body
    if isinstance(value, bytes | tuple):
        value = len(value)
    return _pack(CODES.get(type_, "<I"), value)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, code: str) -> Any:
        (found,) = struct.unpack_from(code, self.data, self.at)
        self.at += struct.calcsize(code)
        return found

    def text(self) -> bytes:
        size = self.number("<Q")
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self, type_: int) -> Any:
        if type_ == TEXT:
            return self.text()
        if type_ == ARRAY:
            item, count = self.number("<I"), self.number("<Q")
            return item, [self.value(item) for _ in range(count)]
        return self.number(CODES[type_])


def parse(data: bytes) -> Gguf:
    """Read a file that is valid."""
    r = _Reader(data)
    r.at = 8
    tensors, fields = r.number("<Q"), r.number("<Q")
    found = []
    for _ in range(fields):
        key, type_ = r.text(), r.number("<I")
        found.append([key, type_, r.value(type_)])
    infos = []
    for _ in range(tensors):
        name, count = r.text(), r.number("<I")
        sizes = [r.number("<Q") for _ in range(count)]
        infos.append([name, sizes, r.number("<I"), r.number("<Q")])
    return Gguf(found, infos, data[-(-r.at // 32) * 32 :])


def _odd_item(item: int, rng: Random) -> Any:
    if item == TEXT:
        return rng.choice([b"\xff\xfe", b"\xed\xa0\x80", *(_bytes(t) for t in TEXTS)])
    return rng.choice(FLOATS if item in (6, 12) else INTEGERS)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _new_value(type_: int, rng: Random) -> Any:
    if type_ != ARRAY:
        return _odd_item(type_, rng)
    item = rng.choice([*CODES, TEXT, ARRAY])
    return item, [_new_value(item, rng) for _ in range(rng.choice([0, 1, 2, 5]))]


def _change_array(value: tuple[int, list[Any]], rng: Random) -> tuple[int, list[Any]]:
    item, items = value[0], list(value[1])
    at = rng.randrange(len(items) + 1)
    match rng.randrange(7):
        case 0:
            items[at:] = []
        case 1 if items:
            items[at : at + 1] = [_odd_item(item, rng)] if item != ARRAY else []
        case 2:
            items[at:at] = items[:1] * rng.choice([1, 3, 1000])
        case 3 if items:
            items[0], items[-1] = items[-1], items[0]
        case 4:
            return rng.choice([*CODES, TEXT]), items
        case 5 if items and item != ARRAY:
            items = [_odd_item(item, rng)] * len(items)
        case 6 if items and item == TEXT:
            at = min(at, len(items) - 1)
            items[at] = change_bytes(items[at], rng)
    return item, items


def change_field(file: Gguf, rng: Random) -> None:
    """Change one field: its value, its type, its key; leave it out, put it in twice."""
    if not file.fields:
        return
    at = rng.randrange(len(file.fields))
    found = file.fields[at]
    match rng.randrange(13):
        case 0 | 1 | 2 | 3 | 4:
            if found[1] == ARRAY and isinstance(found[2], tuple) and rng.random() < 0.8:
                found[2] = _change_array(found[2], rng)
            elif found[1] == TEXT and rng.random() < 0.5 and isinstance(found[2], bytes):
                text = found[2].decode(errors="replace")
                found[2] = _bytes(change_text(text, rng))
            else:
                found[2] = _odd_item(found[1], rng) if found[1] != ARRAY else (4, [])
        case 5 | 6:
            found[1] = rng.choice([*CODES, TEXT, ARRAY])
            found[2] = _new_value(found[1], rng)
        case 7:
            found[1] = rng.choice([*CODES, TEXT, ARRAY, 13, 2**32 - 1])
        case 8:
            del file.fields[at]
        case 9:
            file.fields.append(list(found))
        case 10:
            other = rng.choice(file.fields)
            found[1:], other[1:] = other[1:], found[1:]
        case 11:
            found[0] = rng.choice([change_bytes(found[0], rng), b"", b"general.alignment"])
        case 12:
            _put_in(file, rng)


_KNOWN = [
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
    *("rope.freq_base", "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast"),
    *("rope.scaling.yarn_beta_slow", "rope.scaling.yarn_attn_factor", "rope.scale_linear"),
    *("attention.sliding_window", "attention.sliding_window_pattern", "nextn_predict_layers"),
    *("expert_count", "expert_used_count", "expert_feed_forward_length", "vocab_size"),
    *("rope.dimension_sections", "rope.dimension_count", "rope.freq_base_swa"),
    *("attention.key_length", "attention.value_length", "final_logit_softcapping"),
    *("full_attention_interval", "attention.recurrent_layers"),
]
_TOKENIZER = [
    *("tokenizer.huggingface.json", "tokenizer.fewbit.end_token_ids", "tokenizer.chat_template"),
    *("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id", "tokenizer.ggml.pre"),
    *("tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_eos_token", "split.count", "split.no"),
    *("tokenizer.ggml.unknown_token_id", "general.alignment", "general.file_type"),
    *("general.name", "imatrix.chunk_count", "imatrix.datasets", "quantize.imatrix.file"),
]


def _put_in(file: Gguf, rng: Random) -> None:
    """Put in a field that readers look for."""
    prefix = next((v for k, t, v in file.fields if k == b"general.architecture"), b"llama")
    prefix = prefix if isinstance(prefix, bytes) else b"llama"
    known = [prefix + b"." + key.encode() for key in _KNOWN] + [key.encode() for key in _TOKENIZER]
    key, type_ = rng.choice(known), rng.choice([*CODES, TEXT, TEXT, ARRAY, ARRAY])
    value = rng.choice([_new_value(type_, rng), _bytes(rng.choice(TEXTS))])
    file.fields = [found for found in file.fields if found[0] != key]
    file.fields.append([key, TEXT if isinstance(value, bytes) else type_, value])


def change_tensor(file: Gguf, rng: Random) -> None:
    """Change the description of one tensor."""
    if not file.tensors:
        return
    at = rng.randrange(len(file.tensors))
    found, other = file.tensors[at], rng.choice(file.tensors)
    match rng.randrange(9):
        case 0:
            found[0] = rng.choice([change_bytes(found[0], rng), b"", b"\xff", other[0]])
        case 1 if found[1]:
            found[1][rng.randrange(len(found[1]))] = rng.choice(INTEGERS)
        case 2:
            found[1] = rng.choice(
                [[], [1], [0], found[1][::-1], found[1] + [1], [1] * 5, [2**32] * 2]
            )
        case 3:
            found[2] = rng.choice([*range(42), 2**31, 2**32 - 1])
        case 4:
            found[3] = rng.choice([*INTEGERS, found[3] + 32, found[3] + 1, other[3]])
        case 5:
            del file.tensors[at]
        case 6:
            file.tensors.append(list(other))
        case 7:
            found[0], other[0] = other[0], found[0]
        case 8:
            found[1:], other[1:] = other[1:], found[1:]


def change_data(data: bytes, rng: Random) -> bytes:
    """Tensor data with a run of bytes of NaN, infinity, or anything."""
    if not data:
        return data
    found, at = bytearray(data), rng.randrange(len(data)) // 4 * 4
    what = rng.choice(
        [b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\xff", b"\0\x7c", b"\0", rng.randbytes(64)]
    )
    run = (what * (rng.choice([4, 256, 65536]) // len(what) + 1))[: len(data) - at]
    found[at : at + len(run)] = run
    return bytes(found)


def change_gguf(data: bytes, rng: Random) -> bytes:
    """A GGUF file with some changes."""
    if rng.random() < 0.1:
        return change_bytes(data, rng)
    file = parse(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        match rng.randrange(12):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6:
                change_field(file, rng)
            case 7 | 8 | 9:
                change_tensor(file, rng)
            case 10:
                file.data = change_data(file.data, rng)
            case 11 if rng.random() < 0.5:
                file.counts[rng.randrange(2)] = rng.choice(INTEGERS)
            case 11:
                file.head = rng.choice([b"GGUF", b"FUGG", b"GGML"]) + _pack(
                    "<I", rng.choice(INTEGERS)
                )
    return file.to_bytes()


def change_safetensors(data: bytes, rng: Random) -> bytes:
    """A safetensors file with a change in its header, its sizes or its bytes."""
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = rng.randrange(10)
    if kind == 0:
        return change_bytes(data, rng)
    if kind == 1:
        return _pack("<Q", rng.choice([*INTEGERS, size + 1, size - 1])) + data[8:]
    if kind == 2:
        return data[: 8 + size] + change_data(rest, rng)
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.choice(names), rng.choice(names)
    if kind == 3:
        header[name], header[other] = header[other], header[name]
    elif kind == 4:
        header[name]["dtype"] = rng.choice(
            ["U8", "F16", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "", 5]
        )
    elif kind == 5:
        header[name]["shape"] = rng.choice(
            [[], [0], [1], header[name]["shape"][::-1], [2**32, 2**32]]
        )
    elif kind == 6:
        del header[name]
    elif kind == 7 and len(header[name]["shape"]) >= 1:
        header[name]["shape"] = _other_shape(header[name]["shape"], rng)
    else:
        for _ in range(rng.choice([1, 1, 3])):
            header = change_document(header, rng)
    text = to_bytes(header, rng)
    return _pack("<Q", len(text)) + text + rest


def _other_shape(shape: list[int], rng: Random) -> list[int]:
    """A shape of as many elements."""
    *outer, last = shape
    count = last
    for n in outer:
        count *= n
    return rng.choice([[count], [1, count], [count, 1], [*shape, 1], [1, *shape], [2, count // 2]])

"""Read the numbers stored in quantized blocks: codes, scales and minima of any format."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import UnsupportedError
from fewbit.formats.layouts import BitField, Field, Layout, layout_of
from fewbit.formats.table import Format, find_format

Numbers = dict[str, NDArray[np.generic]]
"""Numbers of blocks by the names that the layout gives them."""
_SLAB = 1 << 18
"""Bytes of blocks that are read at once: every bit of them takes a byte of memory meanwhile."""

_QUIET = np.errstate(invalid="ignore", over="ignore")
"""Damaged blocks may hold a NaN or overflow; `fewbit.verify` finds them."""


def read_block(data: NDArray[np.uint8], name: str) -> Numbers:
    """Read the numbers of one block, uint8 [bytes], as `read_blocks` does: arrays [numbers]."""
    return {key: numbers[0] for key, numbers in read_blocks(data[None], name).items()}


def read_blocks(data: NDArray[np.uint8], name: str) -> Numbers:
    """Read the numbers stored in blocks of format `name`, by the names that its layout gives them.

    `data` is uint8 [blocks, bytes]; each result is [blocks, numbers]. Scales (`d`, `dmin`, `m`)
    are float32, all other numbers are integers as stored.
    """
    format_ = find_format(name)
    layout = layout_of(format_)
    found: dict[str, NDArray[np.int64]] = {}
    trits = [_read_trits(data[:, f.start : f.stop], f.trits) for f in layout.fields if f.trits]
    if trits:
        found["codes"] = np.concatenate(trits, axis=1)
    for place in layout.fields:
        for bits, numbers in _read_field(data, place) if not place.trits else ():
            end = bits.first + numbers.shape[1]
            joined = found.setdefault(bits.name, np.zeros((len(data), end), np.int64))
            if joined.shape[1] < end:
                joined = np.pad(joined, ((0, 0), (0, end - joined.shape[1])))
            joined[:, bits.first : end] += numbers << bits.shift
            found[bits.name] = joined
    if "codes" in found:
        found["codes"] = found["codes"][:, : format_.block]
    return {key: _as_kind(v, layout.kinds.get(key, "")) for key, v in found.items()}


@_QUIET
def scales_of(numbers: Numbers, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and minimum of each group of a block, f32 [..., groups]; [..., 0] without a minimum."""
    layout = layout_of(find_format(name))
    times, plus, factor = layout.of
    d = numbers["d"].astype(np.float64)
    steps = numbers["scales"] if "scales" in numbers else np.ones(1)
    scales = (d * (steps.astype(np.float64) * times + plus) * factor).astype(np.float32)
    if "m" in numbers:
        return scales, numbers["m"].astype(np.float32)
    if "zero" in numbers:
        return scales, (-(d * numbers["zero"].astype(np.float64))).astype(np.float32)
    if "minima" in numbers:
        low = numbers["dmin"].astype(np.float64) * numbers["minima"].astype(np.float64)
        return scales, (-low).astype(np.float32)
    return scales, np.zeros((*scales.shape[:-1], 0), np.float32)


def levels_of(numbers: Numbers, name: str) -> NDArray[np.int64] | None:
    """The integers that the scale multiplies; None where the format has no code per element."""
    layout = layout_of(find_format(name))
    if "codes" not in numbers:
        return None
    codes = _codes(numbers, layout)
    return np.array(layout.table)[codes] if layout.table else codes


def _codes(numbers: Numbers, layout: Layout) -> NDArray[np.int64]:
    """Signed codes; indices as they are."""
    codes = numbers["codes"].astype(np.int64)
    return codes if layout.table else codes * layout.step[0] + layout.step[1]


def values_of(numbers: Numbers, name: str) -> NDArray[np.float32] | None:
    """Values by the formula, f32; None for floats and for formats with indices into a grid."""
    levels = levels_of(numbers, name)
    if levels is None:
        return None
    scales, minima = scales_of(numbers, name)
    each = levels.shape[-1] // scales.shape[-1]
    values = np.repeat(scales, each, -1) * levels.astype(np.float32)
    return values + np.repeat(minima, each, -1) if minima.size else values


def codes_of_rows(data: NDArray[np.uint8], format_: Format, columns: int) -> NDArray[np.int16]:
    """Read the code of each element from uint8 [rows, row bytes]: int16 [rows, columns].

    A code is the integer that the scale multiplies, or the index into the format's code book.

    Raises:
        UnsupportedError: the format has no code per element.

    """
    require_codes(format_)
    codes = np.empty((data.size // format_.bytes, format_.block), np.int16)
    for start, numbers in _slabs(data, format_):
        found = _codes(numbers, layout_of(format_))
        codes[start : start + len(found)] = found
    return codes.reshape(len(data), -1)[:, :columns]


@_QUIET
def scales_of_rows(
    data: NDArray[np.uint8], format_: Format
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Read scale and minimum of each group, f32 [rows, groups]; None in a format without minima.

    Raises:
        UnsupportedError: the format has no code per element.

    """
    require_codes(format_)
    found = [scales_of(numbers, format_.name) for _, numbers in _slabs(data, format_)]
    scales, minima = (
        np.concatenate(each).reshape(len(data), -1) for each in zip(*found, strict=True)
    )
    return scales, minima if minima.size else None


@_QUIET
def zeros_of_rows(data: NDArray[np.uint8], format_: Format) -> NDArray[Any] | None:
    """Read the zero point of each group, [rows, groups]; None in a format without one.

    It is int16 where the format stores it, else float64: -minimum / scale, and 0 where the scale
    is 0.

    Raises:
        UnsupportedError: the format has no code per element.

    """
    if any(each.name == "zero" for each in layout_of(format_).fields):
        stored = [numbers["zero"] for _, numbers in _slabs(data, format_)]
        return np.concatenate(stored).reshape(len(data), -1).astype(np.int16)
    scales, minima = scales_of_rows(data, format_)
    if minima is None:
        return None
    zeros = np.zeros(scales.shape)
    np.divide(-minima.astype(np.float64), scales, out=zeros, where=scales != 0)
    return zeros


def require_codes(format_: Format) -> None:
    """Refuse formats that have no code per element.

    Raises:
        UnsupportedError: the format stores floats, or indices into a grid of vectors.

    """
    if format_.is_float:
        raise UnsupportedError(
            f"{format_.name} stores each element as a float: it has no codes, scales or zeros",
            hint="`dequantize()` returns the values",
            format=format_.name,
        )
    if format_.family == "grid":
        raise UnsupportedError(
            f"{format_.name} stores indices into a grid of vectors: it has no code per element",
            hint="`dequantize()` returns the values; `fewbit inspect FILE --tensor NAME --block N` "
            "shows the indices, signs and scales of a block",
            format=format_.name,
        )


@lru_cache
def group_size(format_: Format) -> int:
    """Return the number of elements that share a scale.

    Raises:
        UnsupportedError: the format has no code per element.

    """
    require_codes(format_)
    scales, _ = scales_of_rows(np.zeros((1, format_.bytes), np.uint8), format_)
    return format_.block // int(scales.shape[1])


def _slabs(data: NDArray[np.uint8], format_: Format) -> Iterator[tuple[int, Numbers]]:
    """The numbers of some blocks at a time, each with the index of its first block."""
    blocks = data.reshape(-1, format_.bytes)
    count = max(_SLAB // format_.bytes, 1)
    for start in range(0, len(blocks), count):
        yield start, read_blocks(blocks[start : start + count], format_.name)


def _read_field(data: NDArray[np.uint8], place: Field) -> list[tuple[BitField, NDArray[np.int64]]]:
    """The bit fields of a field and the numbers in each, [blocks, numbers], in element order."""
    bits = np.unpackbits(data[:, place.start : place.stop], axis=1, bitorder="little")
    count = bits.shape[1] // place.word
    words = bits[:, : count * place.word].reshape(len(data), count, place.word)
    at, found = 0, []
    for each in place.bits:
        taken = words[..., at : at + each.width * each.count]
        at += each.width * each.count
        numbers = _integers(taken.reshape(len(data), count * each.count, each.width))
        if place.stride:  # byte j of a stretch holds the elements j, j + stride, ...
            numbers = numbers.reshape(len(data), -1, place.stride, 8 // place.word)
            numbers = numbers.swapaxes(2, 3).reshape(len(data), -1)
        found.append((each, numbers))
    return found


def _integers(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The integers of [..., width] bits, the lowest bit first."""
    stored = np.packbits(bits, axis=-1, bitorder="little")
    numbers = stored[..., 0].astype(np.int64)
    for index in range(1, stored.shape[-1]):
        numbers |= stored[..., index].astype(np.int64) << 8 * index
    return numbers


def _read_trits(data: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """`count` numbers 0..2 of each byte: times 3, what exceeds 256 is the next one."""
    byte = data.astype(np.int64)
    return np.concatenate([(byte * 3**n & 255) * 3 >> 8 for n in range(count)], axis=1)


def _as_kind(numbers: NDArray[np.int64], kind: str) -> NDArray[np.generic]:
    if kind == "f16 in 4":
        shifts = 4 * np.arange(numbers.shape[-1])
        numbers, kind = (numbers << shifts).sum(-1, keepdims=True), "f16"
    if kind == "f16":
        return numbers.astype(np.uint16).view(np.float16).astype(np.float32)
    if kind == "f32":
        return numbers.astype(np.uint32).view(np.float32)
    if kind == "i8":
        return numbers.astype(np.uint8).view(np.int8)
    if kind == "e8m0":
        return np.ldexp(1.0, numbers - 128).astype(np.float32)
    if kind == "ue4m3":
        exponent, significand = numbers >> 3 & 15, numbers & 7
        steps = significand + np.where(exponent > 0, 8, 0)
        value = np.ldexp(steps.astype(np.float64), np.maximum(exponent, 1) - 10)
        return np.where(numbers == 127, 0, value).astype(np.float32)
    return numbers

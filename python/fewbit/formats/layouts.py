"""Where each number of a block lies: the layouts of all formats, as data, and one reader of them.

A block is cut into fields of whole bytes; a field into words, the first in the lowest bits; a word
into parts, again from the lowest bits up. Where a field has a `stride`, its words are bytes, and
the parts of a byte hold elements that are so many apart. A number whose bits lie in several parts
is the sum of them, each moved up by its `shift`. Source: ``reference/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fewbit.formats.table import Format, find_format


@dataclass(frozen=True)
class Part:
    """`count` neighbours of `width` bits each in a word; the first one of the field is `first`."""

    name: str
    width: int
    count: int = 1
    shift: int = 0
    first: int = 0

    @property
    def text(self) -> str:
        """What the part holds, in words."""
        times = f"{self.count} x " if self.count > 1 else ""
        above = f" above its low {self.shift}" if self.shift else ""
        start = f", from number {self.first}" if self.first else ""
        return f"{times}{self.width} bit{'s' * (self.width > 1)} of {self.name}{above}{start}"


@dataclass(frozen=True)
class Field:
    """The bytes `start` to `stop` (not included) of a block: words of `word` bits."""

    start: int
    stop: int
    parts: tuple[Part, ...]
    word: int
    stride: int = 0
    trits: int = 0

    @property
    def text(self) -> str:
        """What the field holds, in words."""
        apart = f", {self.stride} elements apart" if self.stride else ""
        if self.trits:
            return f"{self.trits} trits a byte{apart}"
        words = 8 * (self.stop - self.start) // self.word
        times = f"{words} x " if words > 1 else ""
        inside = ", ".join(part.text for part in self.parts)
        return f"{times}({inside}){apart}" if len(self.parts) > 1 else f"{times}{inside}{apart}"

    @property
    def name(self) -> str:
        """The numbers that have bits here."""
        return " ".join(dict.fromkeys(part.name for part in self.parts))


@dataclass(frozen=True)
class Layout:
    """A format's fields and its formula.

    `kinds` says which numbers are not unsigned integers. A level is ``table[code]``, or
    ``code * step[0] + step[1]``; a block's scale is ``d * (scale * of[0] + of[1]) * of[2]``.
    """

    formula: str
    fields: tuple[Field, ...]
    kinds: dict[str, str] = field(default_factory=dict)
    step: tuple[int, int] = (1, 0)
    of: tuple[int, int, float] = (1, 0, 1.0)
    table: tuple[int, ...] = ()


Numbers = dict[str, NDArray[np.generic]]
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice the values, so that they are integers."""
D = {"d": "f16"}
D_MIN = {"d": "f16", "dmin": "f16"}
D_M = {"d": "f16", "m": "f16"}


def _one(name: str, start: int, width: int) -> Field:
    return Field(start, start + width // 8, (Part(name, width),), width)


def _run(name: str, start: int, stop: int, width: int, shift: int = 0) -> Field:
    return Field(start, stop, (Part(name, width, shift=shift),), width)


def _planes(name: str, start: int, stop: int, width: int, stride: int, shift: int = 0) -> Field:
    return Field(start, stop, (Part(name, width, shift=shift),), width, stride)


def _words(start: int, stop: int, word: int, *parts: Part) -> Field:
    return Field(start, stop, parts, word)


def _trits(start: int, stop: int, count: int) -> Field:
    return Field(start, stop, (Part("codes", 8),), 8, stop - start, count)


_SIX = (
    _words(4, 8, 8, Part("scales", 6), Part("scales", 2, shift=4, first=4)),
    _words(8, 12, 8, Part("minima", 6), Part("minima", 2, shift=4, first=4)),
    _words(12, 16, 8, Part("scales", 4, first=4), Part("minima", 4, first=4)),
)
_SIGNS = (Part("signs", 7, 4), Part("scales", 4))
_K = "value = (d * scale) * code - (dmin * minimum)"
_IQ2 = "value = d * (0.5 + scale) / 4 * m, m of the grid at the index, negative by its sign bit"

LAYOUTS: dict[str, Layout] = {
    "F32": Layout("value = the f32 itself", (_one("values", 0, 32),), {"values": "f32"}),
    "F16": Layout("value = the f16 itself", (_one("values", 0, 16),), {"values": "f16"}),
    "BF16": Layout("value = the upper half of an f32", (_one("values", 0, 16),)),
    "Q1_0": Layout(
        "value = d * (2 code - 1)", (_one("d", 0, 16), _run("codes", 2, 18, 1)), D, (2, -1)
    ),
    "Q2_0": Layout(
        "value = d * (code - 1)", (_one("d", 0, 16), _run("codes", 2, 18, 2)), D, (1, -1)
    ),
    "Q4_0": Layout(
        "value = d * (code - 8)", (_one("d", 0, 16), _planes("codes", 2, 18, 4, 16)), D, (1, -8)
    ),
    "Q4_1": Layout(
        "value = d * code + m",
        (_one("d", 0, 16), _one("m", 2, 16), _planes("codes", 4, 20, 4, 16)),
        D_M,
    ),
    "Q5_0": Layout(
        "value = d * (code - 16)",
        (_one("d", 0, 16), _run("codes", 2, 6, 1, 4), _planes("codes", 6, 22, 4, 16)),
        D, (1, -16),
    ),
    "Q5_1": Layout(
        "value = d * code + m",
        (
            _one("d", 0, 16), _one("m", 2, 16),
            _run("codes", 4, 8, 1, 4), _planes("codes", 8, 24, 4, 16),
        ),
        D_M,
    ),
    "Q8_0": Layout(
        "value = d * code",
        (_one("d", 0, 16), _run("codes", 2, 34, 8)),
        {"d": "f16", "codes": "i8"},
    ),
    "Q2_K": Layout(
        _K,
        (
            _words(0, 16, 8, Part("scales", 4), Part("minima", 4)),
            _planes("codes", 16, 80, 2, 32), _one("d", 80, 16), _one("dmin", 82, 16),
        ),
        D_MIN,
    ),
    "Q3_K": Layout(
        "value = d * (scale - 32) * (code - 4)",
        (
            _planes("codes", 0, 32, 1, 32, 2), _planes("codes", 32, 96, 2, 32),
            _planes("scales", 96, 104, 4, 8), _planes("scales", 104, 108, 2, 4, 4),
            _one("d", 108, 16),
        ),
        D, (1, -4),
        (1, -32, 1.0),
    ),
    "Q4_K": Layout(
        _K,
        (_one("d", 0, 16), _one("dmin", 2, 16), *_SIX, _planes("codes", 16, 144, 4, 32)),
        D_MIN,
    ),
    "Q5_K": Layout(
        _K,
        (
            _one("d", 0, 16), _one("dmin", 2, 16), *_SIX,
            _planes("codes", 16, 48, 1, 32, 4), _planes("codes", 48, 176, 4, 32),
        ),
        D_MIN,
    ),
    "Q6_K": Layout(
        "value = d * scale * (code - 32)",
        (
            _planes("codes", 0, 128, 4, 64), _planes("codes", 128, 192, 2, 32, 4),
            _run("scales", 192, 208, 8), _one("d", 208, 16),
        ),
        {"d": "f16", "scales": "i8"},
        (1, -32),
    ),
    "IQ4_NL": Layout(
        "value = d * T[code]",
        (_one("d", 0, 16), _planes("codes", 2, 18, 4, 16)),
        D, table=IQ4,
    ),
    "IQ4_XS": Layout(
        "value = d * (scale - 32) * T[code]",
        (
            _one("d", 0, 16), _run("scales", 2, 4, 2, 4), _run("scales", 4, 8, 4),
            _planes("codes", 8, 136, 4, 16),
        ),
        D, of=(1, -32, 1.0),
        table=IQ4,
    ),
    "MXFP4": Layout(
        "value = d * T[code], d = 2^(e - 128) of the stored exponent e",
        (_one("d", 0, 8), _planes("codes", 1, 17, 4, 16)),
        {"d": "e8m0"},
        table=E2M1,
    ),
    "NVFP4": Layout(
        "value = d / 2 * T[code], d one of 4 floats of 4 exponent and 3 significand bits",
        (_run("d", 0, 4, 8), _planes("codes", 4, 36, 4, 8)),
        {"d": "ue4m3"},
        of=(1, 0, 0.5),
        table=E2M1,
    ),
    "IQ1_S": Layout(
        "value = d * (2 scale + 1) * (g + 1/8), - 1/8 by the shift; g of the grid at the index",
        (
            _one("d", 0, 16), _run("indices", 2, 34, 8),
            _words(34, 50, 16, Part("indices", 3, 4, 8), Part("scales", 3), Part("shifts", 1)),
        ),
        D, of=(2, 1, 1.0),
    ),
    "IQ1_M": Layout(
        "value = d * (2 scale + 1) * (g + 1/8), - 1/8 by the shift; g of the grid at the index",
        (
            _run("indices", 0, 32, 8),
            _words(32, 48, 4, Part("indices", 3, shift=8), Part("shifts", 1)),
            _words(48, 56, 16, Part("scales", 3, 4), Part("d", 4)),
        ),
        {"d": "f16 in 4"},
        of=(2, 1, 1.0),
    ),
    "IQ2_XXS": Layout(
        _IQ2,
        (_one("d", 0, 16), _words(2, 66, 64, Part("indices", 8, 4), *_SIGNS)),
        D, of=(2, 1, 0.125),
    ),
    "IQ2_XS": Layout(
        _IQ2,
        (
            _one("d", 0, 16), _words(2, 66, 16, Part("indices", 9), Part("signs", 7)),
            _run("scales", 66, 74, 4),
        ),
        D, of=(2, 1, 0.125),
    ),
    "IQ2_S": Layout(
        _IQ2,
        (
            _one("d", 0, 16), _run("indices", 2, 34, 8), _run("signs", 34, 66, 8),
            _run("indices", 66, 74, 2, 8), _run("scales", 74, 82, 4),
        ),
        D, of=(2, 1, 0.125),
    ),
    "IQ3_XXS": Layout(
        _IQ2.replace("/ 4", "/ 2"),
        (_one("d", 0, 16), _run("indices", 2, 66, 8), _words(66, 98, 32, *_SIGNS)),
        D, of=(2, 1, 0.25),
    ),
    "IQ3_S": Layout(
        _IQ2.replace("(0.5 + scale) / 4", "(1 + 2 scale)"),
        (
            _one("d", 0, 16), _run("indices", 2, 66, 8), _run("indices", 66, 74, 1, 8),
            _run("signs", 74, 106, 8), _run("scales", 106, 110, 4),
        ),
        D, of=(2, 1, 1.0),
    ),
    "TQ1_0": Layout(
        "value = d * (code - 1)",
        (_trits(0, 32, 5), _trits(32, 48, 5), _trits(48, 52, 4), _one("d", 52, 16)),
        D, (1, -1),
    ),
    "TQ2_0": Layout(
        "value = d * (code - 1)",
        (_planes("codes", 0, 64, 2, 32), _one("d", 64, 16)),
        D, (1, -1),
    ),
}  # fmt: skip


def layout_of(format_: Format) -> Layout:
    """The layout of a format of the table, or of the affine family."""
    if found := LAYOUTS.get(format_.name):
        return found
    kind, bits = format_.name[: -len(f"0-g{format_.block}")], int(format_.name.split("-")[0][-1])
    d = _one("d", 0, 32)
    if kind == "asym":
        fields = (d, _one("zero", 4, 8), _run("codes", 5, format_.bytes, bits))
        return Layout("value = d * code - d * zero", fields, {"d": "f32"})
    zero = 2 ** (bits - 1) - 1
    step, level = ((2, -1), "2 code - 1") if bits == 1 else ((1, -zero), f"code - {zero}")
    codes = _run("codes", 4, format_.bytes, bits)
    return Layout(f"value = d * ({level})", (d, codes), {"d": "f32"}, step)


def read_block(data: NDArray[np.uint8], name: str) -> Numbers:
    """The numbers in a block, uint8 [bytes], by name: integers as stored, d and its kin as f32."""
    format_ = find_format(name)
    layout = layout_of(format_)
    found: dict[str, NDArray[np.int64]] = {}
    trits = [_read_trits(data[f.start : f.stop], f.trits) for f in layout.fields if f.trits]
    if trits:
        found["codes"] = np.concatenate(trits)
    for place in layout.fields:
        for part, numbers in _read_parts(data, place) if not place.trits else ():
            whole = found.setdefault(part.name, np.zeros(0, np.int64))
            size = max(len(whole), part.first + len(numbers))
            whole = np.pad(whole, (0, size - len(whole)))
            whole[part.first : part.first + len(numbers)] += numbers << part.shift
            found[part.name] = whole
    if "codes" in found:
        found["codes"] = found["codes"][: format_.block]
    return {key: _as_kind(v, layout.kinds.get(key, "")) for key, v in found.items()}


def scales_of(numbers: Numbers, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The scale and, where the format has one, the minimum of each part of a block, f32."""
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
    return scales, np.zeros(0, np.float32)


def values_of(numbers: Numbers, name: str) -> NDArray[np.float32] | None:
    """The f32 values by the formula; None where codes are indices into a grid, or floats."""
    layout = layout_of(find_format(name))
    if "codes" not in numbers:
        return None
    codes = numbers["codes"].astype(np.int64)
    levels = np.array(layout.table)[codes] if layout.table else codes * layout.step[0]
    levels = levels if layout.table else levels + layout.step[1]
    scales, minima = scales_of(numbers, name)
    each = len(codes) // len(scales)
    values = np.repeat(scales, each) * levels.astype(np.float32)
    return values + np.repeat(minima, each) if len(minima) else values


def _read_parts(data: NDArray[np.uint8], place: Field) -> list[tuple[Part, NDArray[np.int64]]]:
    """The parts of a field and the numbers in each, in the order of elements."""
    bits = np.unpackbits(data[place.start : place.stop], bitorder="little").astype(np.int64)
    words = bits[: len(bits) // place.word * place.word].reshape(-1, place.word)
    at, found = 0, []
    for part in place.parts:
        taken = words[:, at : at + part.width * part.count].reshape(-1, part.width)
        at += part.width * part.count
        numbers = taken @ (1 << np.arange(part.width, dtype=np.int64))
        if place.stride:  # byte j of a stretch holds the elements j, j + stride, ...
            numbers = numbers.reshape(-1, place.stride, 8 // place.word)
            numbers = numbers.transpose(0, 2, 1).ravel()
        found.append((part, numbers))
    return found


def _read_trits(data: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """`count` numbers 0..2 of each byte: times 3, what exceeds 256 is the next one."""
    byte = data.astype(np.int64)
    return np.concatenate([(byte * 3**n & 255) * 3 >> 8 for n in range(count)])


def _as_kind(numbers: NDArray[np.int64], kind: str) -> NDArray[np.generic]:
    if kind == "f16 in 4":
        numbers, kind = np.array([sum(int(n) << 4 * k for k, n in enumerate(numbers))]), "f16"
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

"""Block layouts of all number formats: which bits of a block hold which number, as data.

A block is a list of `Field`s, each a range of bytes. A field holds words, a word holds bit fields,
the first in the lowest bits. A number split over several bit fields is their sum, each shifted
left by its `shift`. Where a field has a `stride`, its words are bytes, and byte j holds elements
j, j + stride, j + 2 stride, ... `blocks.py` reads blocks by these tables. Source: ``reference/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fewbit.formats.table import Format


@dataclass(frozen=True)
class BitField:
    """`count` numbers of `width` bits each, side by side in a word.

    The first of them is number `first` of the block's numbers called `name`. `shift` is the
    position of its lowest bit in the number, where a number is split over several bit fields.
    """

    name: str
    width: int
    count: int = 1
    shift: int = 0
    first: int = 0

    @property
    def text(self) -> str:
        """Describe the bit field, as in "4 x 6 bits of scales"."""
        times = f"{self.count} x " if self.count > 1 else ""
        above = f" above its low {self.shift}" if self.shift else ""
        start = f", from number {self.first}" if self.first else ""
        return f"{times}{self.width} bit{'s' * (self.width > 1)} of {self.name}{above}{start}"


@dataclass(frozen=True)
class Field:
    """Bytes `start` to `stop` (exclusive) of a block: words of `word` bits.

    `stride` is the distance in elements between the numbers of one byte, 0 where they are
    neighbours. `trits` is the count of base-3 digits in each byte, 0 for binary numbers.
    """

    start: int
    stop: int
    bits: tuple[BitField, ...]
    word: int
    stride: int = 0
    trits: int = 0

    @property
    def text(self) -> str:
        """Describe the field, as `fewbit formats NAME` prints it."""
        distance = f", {self.stride} elements apart" if self.stride else ""
        if self.trits:
            return f"{self.trits} trits a byte{distance}"
        words = 8 * (self.stop - self.start) // self.word
        times = f"{words} x " if words > 1 else ""
        inside = ", ".join(bits.text for bits in self.bits)
        inside = f"({inside})" if len(self.bits) > 1 else inside
        return f"{times}{inside}{distance}"

    @property
    def name(self) -> str:
        """Names of the numbers that have bits in this field."""
        return " ".join(dict.fromkeys(bits.name for bits in self.bits))


@dataclass(frozen=True)
class Layout:
    """The fields of one block of a format, and the formula of a value.

    `kinds` gives the stored type of the numbers that are not unsigned integers. The integer level
    of a code is ``table[code]``, or ``code * step[0] + step[1]`` where there is no table. The scale
    of a group is ``d * (scale * of[0] + of[1]) * of[2]``.
    """

    formula: str
    fields: tuple[Field, ...]
    kinds: dict[str, str] = field(default_factory=dict)
    step: tuple[int, int] = (1, 0)
    of: tuple[int, int, float] = (1, 0, 1.0)
    table: tuple[int, ...] = ()


IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""The 16 values of FP4 (E2M1), doubled so that they are integers."""
D = {"d": "f16"}
D_MIN = {"d": "f16", "dmin": "f16"}
D_M = {"d": "f16", "m": "f16"}


def _one(name: str, start: int, width: int) -> Field:
    return Field(start, start + width // 8, (BitField(name, width),), width)


def _run(name: str, start: int, stop: int, width: int, shift: int = 0) -> Field:
    return Field(start, stop, (BitField(name, width, shift=shift),), width)


def _planes(name: str, start: int, stop: int, width: int, stride: int, shift: int = 0) -> Field:
    return Field(start, stop, (BitField(name, width, shift=shift),), width, stride)


def _words(start: int, stop: int, word: int, *bits: BitField) -> Field:
    return Field(start, stop, bits, word)


def _trits(start: int, stop: int, count: int) -> Field:
    return Field(start, stop, (BitField("codes", 8),), 8, stop - start, count)


_SIX = (
    _words(4, 8, 8, BitField("scales", 6), BitField("scales", 2, shift=4, first=4)),
    _words(8, 12, 8, BitField("minima", 6), BitField("minima", 2, shift=4, first=4)),
    _words(12, 16, 8, BitField("scales", 4, first=4), BitField("minima", 4, first=4)),
)
_SIGNS = (BitField("signs", 7, 4), BitField("scales", 4))
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
            _words(0, 16, 8, BitField("scales", 4), BitField("minima", 4)),
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
            _words(
                34, 50, 16,
                BitField("indices", 3, 4, 8), BitField("scales", 3), BitField("shifts", 1),
            ),
        ),
        D, of=(2, 1, 1.0),
    ),
    "IQ1_M": Layout(
        "value = d * (2 scale + 1) * (g + 1/8), - 1/8 by the shift; g of the grid at the index",
        (
            _run("indices", 0, 32, 8),
            _words(32, 48, 4, BitField("indices", 3, shift=8), BitField("shifts", 1)),
            _words(48, 56, 16, BitField("scales", 3, 4), BitField("d", 4)),
        ),
        {"d": "f16 in 4"},
        of=(2, 1, 1.0),
    ),
    "IQ2_XXS": Layout(
        _IQ2,
        (_one("d", 0, 16), _words(2, 66, 64, BitField("indices", 8, 4), *_SIGNS)),
        D, of=(2, 1, 0.125),
    ),
    "IQ2_XS": Layout(
        _IQ2,
        (
            _one("d", 0, 16), _words(2, 66, 16, BitField("indices", 9), BitField("signs", 7)),
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
    """Return the layout of a format: one of the table, or of the affine family at any width."""
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

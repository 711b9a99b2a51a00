"""Floats by the sizes of their fields: codes of values, values of codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbit.errors import FormatError
from fewbit.floats.number_format import Codes, NumberFormat, Values, as_numbers

Top: TypeAlias = Literal["ieee", "fn", "finite"]
TOPS = ("ieee", "fn", "finite")


@dataclass(frozen=True)
class FloatFormat(NumberFormat):
    """A float format by the sizes of its fields, and the meaning of its highest codes.

    value = (-1)^sign * 2^(exponent - bias) * (1 + significand / 2^significand_bits), and
    (-1)^sign * 2^(1 - bias) * significand / 2^significand_bits where the exponent field is 0
    (IEEE 754). `exponent_bits` is 2 to 11, `significand_bits` 1 to 52, the bias
    2^(exponent_bits - 1) - 1.

    `top` is "ieee" if the highest exponent means infinity and NaN, "fn" if only the code of all
    ones is NaN and there is no infinity, "finite" if every code is a number (OCP Microscaling
    Formats 1.0 for 4, 6 and 8 bits).

    >>> FloatFormat("e5m10", 5, 10).largest, FloatFormat("e4m3fn", 4, 3, "fn").largest
    (65504.0, 448.0)

    Raises:
        FormatError: a field is too short or too long, or `top` is none of the three.

    """

    exponent_bits: int
    significand_bits: int
    top: Top = "ieee"

    def __post_init__(self) -> None:
        if not (2 <= self.exponent_bits <= 11 and 1 <= self.significand_bits <= 52):
            raise FormatError(
                f"a float of {self.exponent_bits} exponent and {self.significand_bits} "
                "significand bits is not supported",
                hint="2 to 11 exponent bits and 1 to 52 significand bits, as in e4m3",
            )
        if self.top not in TOPS:
            raise FormatError(f"unknown `top` {self.top!r}", hint=f"known: {', '.join(TOPS)}")

    @property
    def bits(self) -> int:
        """Bits of a code, the sign among them."""
        return 1 + self.exponent_bits + self.significand_bits

    @property
    def bias(self) -> int:
        """The exponent field of the values from 1 to 2."""
        return (1 << self.exponent_bits - 1) - 1

    @property
    def largest_code(self) -> int:
        """The code of the largest finite value."""
        all_ones = (1 << self.bits - 1) - 1
        return all_ones - {"ieee": 1 << self.significand_bits, "fn": 1, "finite": 0}[self.top]

    @property
    def largest(self) -> float:
        """The largest finite value."""
        return float(self.decode(self.largest_code))

    @property
    def smallest(self) -> float:
        """The smallest finite value: minus the largest."""
        return -self.largest

    @property
    def smallest_above_zero(self) -> float:
        """The smallest value above zero, a subnormal."""
        return math.ldexp(1.0, 1 - self.bias - self.significand_bits)

    @property
    def digits(self) -> float:
        """Decimal digits that the significand resolves: (significand_bits + 1) * log10(2)."""
        return (self.significand_bits + 1) * math.log10(2)

    def encode(self, x: ArrayLike) -> Codes:
        """Codes of the values nearest to `x`, uint64 of its shape; ties go to the even code.

        A value that rounds past the largest one becomes infinity, or the largest in a format
        without infinity.

        Raises:
            InputError: `x` is not numbers.
            FormatError: `x` has a NaN and the format has none.

        """
        numbers = as_numbers(x)
        missing = np.isnan(numbers)
        if self.top == "finite" and missing.any():
            raise FormatError(f"{self.name} has no NaN", hint="e4m3fn has one", format=self.name)
        size = np.where(np.isfinite(numbers), np.abs(numbers), 0.0)
        exponent = np.where(size > 0, np.frexp(size)[1].astype(np.int64) - 1, 1 - self.bias)
        exponent = np.maximum(exponent, 1 - self.bias)
        steps = np.rint(np.ldexp(size, self.significand_bits - exponent)).astype(np.int64)
        # A significand that rounds up past its field carries into the exponent field.
        codes = (exponent + self.bias - 1 << self.significand_bits) + steps
        past = (codes > self.largest_code) | np.isinf(numbers)
        codes = np.where(past, self.largest_code + (self.top == "ieee"), codes)
        quiet = 1 << self.significand_bits - 1 if self.top == "ieee" else 0
        codes = np.where(missing, self.largest_code + 1 + quiet, codes).astype(np.uint64)
        signs = np.signbit(numbers).astype(np.uint64) << np.uint64(self.bits - 1)
        return np.asarray(codes | signs)

    def decode(self, codes: ArrayLike) -> Values:
        """Values of `codes`, float64 of their shape; bits above the lowest `bits` are ignored."""
        stored = np.asarray(codes, np.uint64)
        mask = (1 << self.significand_bits) - 1
        size = (stored & np.uint64((1 << self.bits - 1) - 1)).astype(np.int64)
        exponent, significand = size >> self.significand_bits, size & mask
        normal = exponent > 0
        found = np.ldexp(
            (significand + np.where(normal, mask + 1, 0)).astype(np.float64),
            np.where(normal & (size <= self.largest_code), exponent, 1)
            - (self.bias + self.significand_bits),
        )
        if self.top == "ieee":
            found = np.where(size == self.largest_code + 1, np.inf, found)
        found = np.where(size > self.largest_code + (self.top == "ieee"), np.nan, found)
        negative = (stored >> np.uint64(self.bits - 1) & np.uint64(1)).astype(bool)
        return np.asarray(np.where(negative, -found, found))

    def fields(self, code: int) -> tuple[str, ...]:
        """The bits of sign, exponent and significand.

        >>> from fewbit.floats import number_format
        >>> number_format("float32").fields(0x40490FDB)
        ('0', '10000000', '10010010000111111011011')
        """
        text = f"{int(code) & (1 << self.bits) - 1:0{self.bits}b}"
        return text[0], text[1 : 1 + self.exponent_bits], text[1 + self.exponent_bits :]

    def _rank(self, x: Values) -> NDArray[np.int64]:
        codes = self.encode(np.clip(x, -self.largest, self.largest))
        sign = np.uint64(1 << self.bits - 1)
        size = (codes & ~sign).astype(np.int64)
        rank = np.where(codes & sign, -size, size)
        return np.asarray(rank + (self.decode(codes) < x))

    def _after(self, codes: Codes) -> Values:
        sign = np.uint64(1 << self.bits - 1)
        negative, zero = (codes & sign) != 0, (codes & ~sign) == 0
        one = np.uint64(1)
        after = np.where(zero, one, np.where(negative, codes - one, codes + one))
        end = ~negative & (codes >= np.uint64(self.largest_code + (self.top == "ieee")))
        return np.where(end, np.nan, self.decode(after))

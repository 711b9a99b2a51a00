"""Unsigned integers as a number format, to compare with floats of the same size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbit.errors import FormatError
from fewbit.floats.number_format import Codes, NumberFormat, Values, as_numbers


@dataclass(frozen=True)
class UnsignedFormat(NumberFormat):
    """Unsigned integers of 1 to 52 bits: the value is the code.

    >>> UnsignedFormat("u4", 4).round([-3, 2.5, 99]).tolist()
    [0.0, 2.0, 15.0]

    Raises:
        FormatError: there are fewer than 1 or more than 52 bits.

    """

    width: int

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 52:
            raise FormatError(
                f"unsigned integers of {self.width} bits are not supported",
                hint="1 to 52 bits, as in u8",
            )

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.width

    @property
    def smallest(self) -> float:
        """The smallest value: 0."""
        return 0.0

    @property
    def largest(self) -> float:
        """The largest value: 2^bits - 1."""
        return float((1 << self.width) - 1)

    @property
    def digits(self) -> float:
        """Decimal digits of the largest value: bits * log10(2)."""
        return self.width * math.log10(2)

    def encode(self, x: ArrayLike) -> Codes:
        """Integers nearest to `x`, limited to the range, uint64 of its shape; ties go to even.

        Raises:
            InputError: `x` is not numbers.
            FormatError: `x` has a NaN.

        """
        numbers = as_numbers(x)
        if np.isnan(numbers).any():
            raise FormatError(f"{self.name} has no NaN", hint="floats have one", format=self.name)
        return np.rint(np.clip(numbers, 0.0, self.largest)).astype(np.uint64)

    def decode(self, codes: ArrayLike) -> Values:
        """Values of `codes`, float64 of their shape; bits above the lowest `bits` are ignored."""
        stored = np.asarray(codes, np.uint64)
        return np.asarray((stored & np.uint64((1 << self.width) - 1)).astype(np.float64))

    def fields(self, code: int) -> tuple[str, ...]:
        """The bits of the integer, one field."""
        return (f"{int(code) & (1 << self.width) - 1:0{self.width}b}",)

    def _rank(self, x: Values) -> NDArray[np.int64]:
        return np.ceil(np.clip(x, 0.0, self.largest + 1)).astype(np.int64)

    def _after(self, codes: Codes) -> Values:
        return np.where(
            codes >= np.uint64((1 << self.width) - 1), np.nan, codes.astype(np.float64) + 1
        )

    def next_down(self, x: ArrayLike) -> Values:
        """The largest values below `x`, NaN where there are none.

        Raises:
            InputError: `x` is not numbers.
            FormatError: `x` has a NaN.

        """
        numbers = as_numbers(x)
        below = self._rank(numbers) - 1
        return np.where(below < 0, np.nan, below.astype(np.float64))

"""What all number formats can do: rounding, neighbours, counting the values in an interval."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbit.errors import FormatError, InputError

Codes: TypeAlias = NDArray[np.uint64]
Values: TypeAlias = NDArray[np.float64]
MOST_LISTED = 16
"""Bits of the widest format whose values `values` lists."""


@dataclass(frozen=True)
class NumberFormat(ABC):
    """A set of numbers and their codes; `encode` and `decode` convert between both."""

    name: str

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits of a code."""

    @property
    @abstractmethod
    def smallest(self) -> float:
        """The smallest finite value."""

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest finite value."""

    @property
    @abstractmethod
    def digits(self) -> float:
        """Decimal digits that the format resolves."""

    @abstractmethod
    def encode(self, x: ArrayLike) -> Codes:
        """Codes of the values nearest to `x`, uint64 of its shape; ties go to the even code.

        Raises:
            InputError: `x` is not numbers.
            FormatError: `x` has a NaN and the format has none.

        """

    @abstractmethod
    def decode(self, codes: ArrayLike) -> Values:
        """Values of `codes`, float64 of their shape; bits above the lowest `bits` are ignored."""

    @abstractmethod
    def fields(self, code: int) -> tuple[str, ...]:
        """The bits of a code, one text for each field, the highest first."""

    @abstractmethod
    def _rank(self, x: Values) -> NDArray[np.int64]:
        """How many finite values lie below x, counted from zero: negative for x below zero."""

    @abstractmethod
    def _after(self, codes: Codes) -> Values:
        """The values above those of `codes`, NaN where there are none."""

    def round(self, x: ArrayLike) -> Values:
        """Round `x` to values of the format, to nearest, ties to even: float64 of its shape.

        >>> from fewbit.floats import number_format
        >>> number_format("bfloat16").round([0.1, 3.14159265]).tolist()
        [0.10009765625, 3.140625]

        Raises:
            InputError: `x` is not numbers.
            FormatError: `x` has a NaN and the format has none.

        """
        return self.decode(self.encode(x))

    def next_up(self, x: ArrayLike) -> Values:
        """The smallest values above `x`: infinity above the largest, NaN without infinity.

        >>> from fewbit.floats import number_format
        >>> number_format("float16").next_up([0.0, 1.0]).tolist()
        [5.960464477539063e-08, 1.0009765625]

        Raises:
            InputError: `x` is not numbers.
            FormatError: `x` has a NaN and the format has none.

        """
        numbers = as_numbers(x)
        codes = self.encode(numbers)
        near = self.decode(codes)
        return np.where(near > numbers, near, self._after(codes))

    def next_down(self, x: ArrayLike) -> Values:
        """The largest values below `x`: -infinity below the smallest, NaN without infinity.

        Raises:
            InputError: `x` is not numbers.
            FormatError: `x` has a NaN and the format has none.

        """
        return -self.next_up(-as_numbers(x))

    def count_between(self, low: float, high: float) -> int:
        """Count the finite values in [low, high); the two zeros of a float count as one.

        >>> from fewbit.floats import number_format
        >>> number_format("float32").count_between(-0.5, 0.5)
        2113929216

        Raises:
            InputError: a bound is not a number, or `high` is below `low`.

        """
        return self.histogram((low, high))[0]

    def histogram(self, edges: Sequence[float] | Values) -> tuple[int, ...]:
        """Count the finite values in each interval [edge, next edge); exact in every format.

        >>> from fewbit.floats import number_format
        >>> number_format("float4").histogram([-4, -1, 0, 1, 4])
        (3, 2, 2, 4)

        Raises:
            InputError: there are fewer than two edges, one is NaN, or they do not rise.

        """
        found = as_numbers(edges).ravel()
        if found.size < 2 or np.isnan(found).any() or (np.diff(found) < 0).any():
            raise InputError(
                f"edges of intervals rise and are at least two numbers, got {found.tolist()}",
                hint="for example `histogram([-1, 0, 1])`",
            )
        ranks = self._rank(found).tolist()
        return tuple(after - before for before, after in itertools.pairwise(ranks))

    def values(self) -> Values:
        """All finite values in rising order, each once; for formats of up to 16 bits.

        >>> from fewbit.floats import number_format
        >>> number_format("e2m1").values()[7:].tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]

        Raises:
            FormatError: the format has more than 16 bits.

        """
        if self.bits > MOST_LISTED:
            raise FormatError(
                f"{self.name} has {self.bits} bits: too many values to list",
                hint=f"formats of up to {MOST_LISTED} bits are listed; `histogram` counts values",
                format=self.name,
            )
        found = self.decode(np.arange(1 << self.bits, dtype=np.uint64))
        return np.unique(found[np.isfinite(found)] + 0.0)  # the sum turns -0.0 into 0.0


def as_numbers(x: ArrayLike) -> Values:
    """Return `x` as float64.

    Raises:
        InputError: it is not numbers.

    """
    try:
        return np.asarray(x, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"not numbers: {error}", hint="numbers or an array of numbers") from None

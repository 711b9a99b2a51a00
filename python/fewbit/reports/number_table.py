"""Numbers beside each other in several number formats: bits, value, error, neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fewbit.errors import FormatError, InputError
from fewbit.floats import NumberFormat, number_format
from fewbit.floats.number_format import as_numbers
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class Represented:
    """A number in one format: the nearest value, its bits, and the values beside it.

    `fields` are the bits of sign, exponent and significand, or of an unsigned integer alone.
    `delta` is value - number. `below` and `above` are the next values of the format, NaN where it
    has none.
    """

    number: float
    format: str
    bits: int
    fields: tuple[str, ...]
    value: float
    delta: float
    below: float
    above: float


@dataclass(frozen=True)
class FormatFacts:
    """What a number format can hold.

    `digits` are the decimal digits that its significand resolves, `values` the count of its finite
    values, `between` that of its values in the interval that was asked for, None without one.
    """

    format: str
    bits: int
    digits: float
    smallest: float
    smallest_above_zero: float
    largest: float
    values: int
    between: int | None


@dataclass(frozen=True)
class NumberTable(Shown):
    """Numbers in several formats, as `represent` finds them."""

    numbers: tuple[Represented, ...]
    formats: tuple[FormatFacts, ...]
    interval: tuple[float, float] | None

    def page(self) -> Page:
        """One table of each number in each format, one of the formats."""
        several = len({n.number for n in self.numbers}) > 1
        table = Table(("format", "bits", "value", "delta", "below", "above"), text=2)
        if several:
            table = Table(("number", *table.columns), text=3, keys=2)
        for n in self.numbers:
            cells = (n.format, " ".join(n.fields), digits_of(n.value), f"{n.delta:.3g}",
                     digits_of(n.below), digits_of(n.above))  # fmt: skip
            table.add_row(*([digits_of(n.number)] if several else []), *cells)
        page: Page = [table, ""] if self.numbers else []
        return [*page, self._formats()]

    def _formats(self) -> Table:
        between = "" if self.interval is None else "in [{:g}, {:g})".format(*self.interval)
        table = Table(
            ("format", "bits", "digits", "least above 0", "largest", "finite values",
             *([between] if between else [])),
        )  # fmt: skip
        for f in self.formats:
            table.add_row(
                f.format, str(f.bits), f"{f.digits:.1f}", f"{f.smallest_above_zero:.4g}",
                f"{f.largest:.6g}", f"{f.values:,}", *([f"{f.between:,}"] if between else []),
            )  # fmt: skip
        return table


def represent(
    numbers: Sequence[float], formats: Sequence[str], between: tuple[float, float] | None = None
) -> NumberTable:
    """Show each of `numbers` in each of `formats`: bits, nearest value, error, neighbours.

    `between` also counts the values of each format in the interval [low, high). Formats are the
    names of `fewbit.floats.number_format`.

    >>> print(represent([0.1], ["bfloat16", "float4"]).tables()[0].to_csv(), end="")
    format,bits,value,delta,below,above
    bfloat16,0 01111011 1001101,0.10009765625,9.77e-05,0.099609375,0.1005859375
    float4,0 00 0,0,-0.1,-0.5,0.5

    Raises:
        FormatError: a format is unknown, or a number is NaN and the format has none.
        InputError: there is no format, a number is none, or the interval is empty.

    """
    if not formats:
        raise InputError("no format named", hint="for example `float32`, `bf16` or `e4m3`")
    if between is not None and not between[0] < between[1]:
        raise InputError(
            f"an interval begins below its end, got {between[0]:g} and {between[1]:g}",
            hint="the lower bound first, as in -0.5 and 0.5",
        )
    kinds = [number_format(name) for name in formats]
    found = tuple(_represented(float(x), kind) for x in as_numbers(numbers) for kind in kinds)
    return NumberTable(found, tuple(_facts(kind, between) for kind in kinds), between)


def _represented(x: float, kind: NumberFormat) -> Represented:
    if math.isnan(x):
        raise FormatError("NaN has no neighbours", hint="name a number", format=kind.name)
    code = kind.encode(x)
    value = float(kind.decode(code))
    return Represented(
        x, kind.name, kind.bits, kind.fields(int(code)), value,
        0.0 if value == x else value - x, float(kind.next_down(value)), float(kind.next_up(value)),
    )  # fmt: skip


def _facts(kind: NumberFormat, between: tuple[float, float] | None) -> FormatFacts:
    return FormatFacts(
        kind.name, kind.bits, kind.digits, kind.smallest, float(kind.next_up(0.0)), kind.largest,
        kind.count_between(-math.inf, math.inf),
        None if between is None else kind.count_between(*between),
    )  # fmt: skip


def digits_of(x: float) -> str:
    """A number with all digits that tell it from others, at most 12; "none" for NaN."""
    return "none" if math.isnan(x) else f"{x:.12g}"

"""The commands on single numbers: their bits in number formats, and lists of them rounded.

The commands are called `float` and `round`, so this file uses neither of these built-in functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import typer

from fewbit.cli.help import Command
from fewbit.cli.options import Json, names_of
from fewbit.cli.outputs import show_result
from fewbit.errors import InputError
from fewbit.floats.number_format import as_numbers
from fewbit.reports import write
from fewbit.reports.number_table import represent
from fewbit.reports.rounding import round_numbers

MINUS = "−"
_NEGATIVE = re.compile(r"-(?=[\d.]|inf)")


class Numbers(Command):
    """A command whose arguments may be negative numbers, which begin as an option does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args` with the minus of numbers written as a sign that begins no option."""
        found = [_NEGATIVE.sub(MINUS, a, count=1) if _NEGATIVE.match(a) else a for a in args]
        return list(super().parse_args(ctx, found))


NumberList: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="NUMBER...", help="Numbers, with spaces or commas between them."),
]
As: TypeAlias = Annotated[
    list[str],
    typer.Option("--as", metavar="FORMAT", help="Formats, with commas or one --as each."),
]


def float(
    numbers: NumberList = None,
    formats: As = ["f32,f16,bf16,float8,e4m3fn,float4,e2m1"],  # noqa: B006
    between: Annotated[
        str | None,
        typer.Option(
            "--between",
            metavar="LOW,HIGH",
            help="Count the values of each format from LOW (inclusive) to HIGH (exclusive).",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show numbers in float formats: bits, nearest value, neighbours, how many values there are.

    Formats are float64, float32, float16, bfloat16, float8, e4m3fn, e5m2, e3m2, e2m3, float4, e2m1,
    any eXmY with X exponent and Y significand bits, and uN for unsigned integers.
    """
    interval = None if between is None else read_interval("--between", between)
    show_result(represent(read_numbers(numbers or []), names_of(formats), interval), json)


def round(
    numbers: NumberList = None,
    formats: As = ["sym4,asym4"],  # noqa: B006
    block: Annotated[
        int | None,
        typer.Option(
            "--block",
            metavar="N",
            min=1,
            help="Numbers that share a scale in symB and asymB; all if left out.",
            show_default=False,
        ),
    ] = None,
    outliers: Annotated[
        int,
        typer.Option(
            "--outliers", metavar="K", min=0, help="Store the K largest magnitudes apart, exactly."
        ),
    ] = 0,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="SIZES",
            help="Layers of a network with the numbers as parameters, for example 1,3,1; shows "
            "its output in each format.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="NUMBERS",
            help="Inputs of the network; all 1 if left out.",
            show_default=False,
        ),
    ] = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="Show one line per format, not each number.")
    ] = False,
    json: Json = False,
) -> None:
    """Round numbers to formats and show codes, scale, zero point, and the error of each.

    sym4 and asym4 are symmetric and asymmetric quantization with one scale for all numbers;
    sym4-g32 and Q4_0 are formats that files store; float8 and bf16 are floats.
    """
    layers = [] if network is None else read_numbers([network])
    if any(size != size // 1 for size in layers):
        raise InputError(f"`--network {network}`: sizes are whole numbers", hint="such as 1,3,1")
    found = round_numbers(
        read_numbers(numbers or []),
        names_of(formats),
        block,
        outliers,
        [int(size) for size in layers],
        [] if inputs is None else read_numbers([inputs]),
    )
    if brief and not json:
        write.show(found.summary())
        return
    show_result(found, json)


def read_interval(option: str, text: str) -> tuple[Any, Any]:
    """The two numbers of an option.

    Raises:
        InputError: there are not two.

    """
    found = read_numbers([text])
    if len(found) != 2:
        raise InputError(f"`{option} {text}` is not two numbers", hint="for example -0.5,0.5")
    return found[0], found[1]


def read_numbers(texts: Sequence[str]) -> list[Any]:
    """The numbers in `texts`.

    Raises:
        InputError: one is no number.

    """
    words = [word for text in texts for word in re.split(r"[\s,]+", text) if word]
    found = []
    for word in words:
        try:
            found.append(as_numbers(word.replace(MINUS, "-")).item())
        except InputError:
            raise InputError(
                f"`{word}` is not a number", hint="numbers are written as -0.89 or 1e-3"
            ) from None
    return found

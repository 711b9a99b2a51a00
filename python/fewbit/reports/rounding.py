"""A list of numbers rounded to number formats: codes, scales, zero points, values and errors.

`sym4` and `asym4` are the two functions of the article "Quantization from the ground up", in
float64: one scale for each block of numbers, which need not contain zero. Every other name is a
format that fewbit stores, or a float format of `fewbit.floats`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import FewbitError, FormatError, InputError
from fewbit.floats import number_format
from fewbit.floats.number_format import as_numbers
from fewbit.formats.table import find_format
from fewbit.formats.tensors import quantize
from fewbit.tables import Page, Shown, Table

SCALE_BITS = 32
ZERO_BITS = 8
OUTLIER_BITS = 64
"""Bits that an outlier takes when it is stored apart: its place (32) and its f32 value (32)."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class RoundedBlock:
    """A block of numbers: value = scale * (code - zero). Floats and code books have no codes."""

    scale: float | None
    zero: float | None
    codes: tuple[int, ...] | None


@dataclass(frozen=True)
class RoundedList(Shown):
    """Numbers in one format; `kept` are the places of the outliers that are stored apart.

    `bits_per_weight` counts codes, scales, zero points and outliers. `block` is the count of
    numbers that share a scale, None if each is a float of its own.
    """

    format: str
    numbers: tuple[float, ...]
    values: tuple[float, ...]
    blocks: tuple[RoundedBlock, ...]
    block: int | None
    kept: tuple[int, ...]
    bits_per_weight: float
    note: str

    @property
    def deltas(self) -> tuple[float, ...]:
        """Value minus number."""
        return tuple(v - x for x, v in zip(self.numbers, self.values, strict=True))

    @property
    def mean_relative(self) -> float:
        """The mean of |delta / number| over the numbers that are not 0; 0 if all are 0."""
        found = [
            abs(d / x) if d else 0.0
            for x, d in zip(self.numbers, self.deltas, strict=True)
            if x != 0
        ]
        return sum(found) / len(found) if found else 0.0

    def page(self) -> Page:
        """A heading, one line per number, the average."""
        return [self._heading(), *self._scales(), "", self.table(), "", self._total()]

    def _heading(self) -> str:
        groups = "" if self.block is None else f", blocks of {self.block}"
        apart = f"; {len(self.kept)} apart, {OUTLIER_BITS} bits each" if self.kept else ""
        bits = f"{self.bits_per_weight:.4g} bits per weight"
        return f"{self.format}{groups}: {bits} ({self.note}{apart})"

    def _scales(self) -> list[str]:
        return [
            f"  block {index}: scale {b.scale:.4g}"
            + ("" if b.zero is None else f", zero point {b.zero:.4g}")
            for index, b in enumerate(self.blocks)
            if b.scale is not None
        ]

    def table(self, count: int | None = None) -> Table:
        """The first `count` numbers, or all: code, value and error of each."""
        codes = [code for b in self.blocks for code in b.codes or ()]
        table = Table(
            ("number", *(["code"] if codes else []), "value", "delta", "delta %", ""), text=0
        )
        for index, (x, v, d) in enumerate(
            zip(self.numbers[:count], self.values, self.deltas, strict=False)
        ):
            apart = index in self.kept
            code = ["" if apart else str(codes[index])] if codes else []
            table.add_row(
                f"{x:.6g}", *code, f"{v:.4g}", f"{d:.3g}",
                f"{abs(d / x):.1%}" if x else "", "apart" if apart else "",
            )  # fmt: skip
        return table

    def _total(self) -> str:
        return f"average error {100 * self.mean_relative:.1f} %"


@dataclass(frozen=True)
class NetworkOutput:
    """The output of a network whose parameters are rounded; `relative` is its relative error."""

    format: str
    outputs: tuple[float, ...]
    relative: float


@dataclass(frozen=True)
class RoundedLists(Shown):
    """Numbers in several formats, and what a small network with these parameters computes."""

    lists: tuple[RoundedList, ...]
    network: tuple[NetworkOutput, ...]

    def page(self) -> Page:
        """The tables of all formats, then the network's outputs."""
        page: Page = []
        for each in self.lists:
            page += [*([""] if page else []), *each.page()]
        if self.network:
            table = Table(("parameters", *OUTPUTS))
            for n in self.network:
                table.add_row(n.format, *_output(n))
            page += ["", table]
        return page

    def summary(self) -> Table:
        """One line per format: size, average error, and the network's output if there is one."""
        heads = ("format", "bits per weight", "average error", *(OUTPUTS if self.network else ()))
        table = Table(heads)
        if self.network:
            table.add_row(self.network[0].format, "", "", *_output(self.network[0]))
        for index, each in enumerate(self.lists, start=1):
            found = _output(self.network[index]) if self.network else ()
            table.add_row(
                each.format, f"{each.bits_per_weight:.4g}", f"{100 * each.mean_relative:.1f} %",
                *found,
            )  # fmt: skip
        return table


OUTPUTS = ("output", "off by")


def _output(found: NetworkOutput) -> tuple[str, str]:
    return ", ".join(f"{v:.4g}" for v in found.outputs), f"{100 * found.relative:.1f} %"


def round_numbers(
    numbers: Sequence[float],
    formats: Sequence[str],
    block: int | None = None,
    outliers: int = 0,
    network: Sequence[int] = (),
    inputs: Sequence[float] = (),
) -> RoundedLists:
    """Round `numbers` to each of `formats`, and say what each number becomes.

    Formats are ``symB`` (2 to 8 bits) and ``asymB`` (1 to 8 bits) as the article "Quantization
    from the ground up" defines them, with one scale for all numbers or for each `block` of them;
    the formats that fewbit stores (``Q4_0``, ``asym4-g32``; short lists are padded with zeros); and
    the float formats of `fewbit.floats`. The `outliers` numbers of the largest magnitude are
    stored apart, exactly, and the others rounded without them.

    `network` are the sizes of the layers of a network without activation functions, for example
    (1, 3, 1), whose parameters the numbers are: layer by layer, the parameters of an output
    together. Its outputs for `inputs` (ones if empty) are computed in every format.

    >>> x = [-0.89, 0.16, 0.08, -0.13, 0.16, -0.54]
    >>> [f"{r.mean_relative:.1%}" for r in round_numbers(x, ["sym4", "asym4"]).lists]
    ['18.0%', '8.5%']

    Raises:
        FormatError: a format is unknown or cannot hold the numbers.
        InputError: there is no number or no format, a number is not finite, `block` is below 1,
            `outliers` not from 0 to the count of numbers, or `network` does not fit the numbers.

    """
    x = _checked(numbers, formats, block, outliers)
    lists = tuple(_rounded(x, name, block, outliers) for name in formats)
    if not network:
        return RoundedLists(lists, ())
    first = as_numbers(inputs) if len(inputs) else np.ones(max(network[0], 0))
    exact = _forward(x, network, first)
    found = [NetworkOutput("as given", tuple(exact.tolist()), 0.0)]
    for each in lists:
        y = _forward(np.array(each.values), network, first)
        size = float(np.abs(exact).sum())
        off = float(np.abs(y - exact).sum()) / size if size else 0.0
        found.append(NetworkOutput(each.format, tuple(y.tolist()), off))
    return RoundedLists(lists, tuple(found))


def _checked(
    numbers: Sequence[float], formats: Sequence[str], block: int | None, outliers: int
) -> Values:
    x = as_numbers(numbers)
    if x.ndim != 1 or not x.size or not formats:
        raise InputError(
            "no numbers to round" if formats else "no format named",
            hint="for example [-0.89, 0.16] and `sym4`",
        )
    if not np.isfinite(x).all():
        raise InputError("numbers to round are finite", hint="leave out NaN and infinity")
    if block is not None and block < 1:
        raise InputError(f"a block has at least one number, got {block}", hint="for example 32")
    if not 0 <= outliers <= x.size:
        raise InputError(f"{outliers} outliers of {x.size} numbers", hint=f"from 0 to {x.size}")
    return x


def _rounded(x: Values, name: str, block: int | None, outliers: int) -> RoundedList:
    kept = np.sort(np.argsort(-np.abs(x), kind="stable")[:outliers])
    inside = np.where(np.isin(np.arange(x.size), kept), 0.0, x)
    article = re.fullmatch(r"(a?)sym([1-8])", name.lower())
    if article:
        found = _affine(inside, kept, bool(article[1]), int(article[2]), block)
    elif (floats := _float_list(inside, name)) is not None:
        found = floats
    else:
        found = _stored(inside, name)
    values = np.array(found.values)
    values[kept] = x[kept]
    return RoundedList(
        found.format, tuple(x.tolist()), tuple(values.tolist()), found.blocks, found.block,
        tuple(kept.tolist()), found.bits_per_weight + OUTLIER_BITS * len(kept) / x.size, found.note,
    )  # fmt: skip


def _affine(
    x: Values, kept: NDArray[np.intp], asymmetric: bool, bits: int, block: int | None
) -> RoundedList:
    """The article's two functions on each block of x, whose scale the kept places do not enter."""
    if bits == 1 and not asymmetric:
        raise FormatError("sym1 has no code above 0", hint="`sym1-g32`, or 2 bits and more")
    size = min(block or x.size, x.size)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    blocks, values = [], []
    for start in range(0, x.size, size):
        part = x[start : start + size]
        places = np.arange(start, start + part.size)
        seen = part[~np.isin(places, kept)]
        scale, zero = _scale(seen, low, high, asymmetric)
        codes = np.clip(np.rint(part / scale + zero) if scale else part * 0, low, high)
        values += (scale * (codes - zero)).tolist()
        integers = tuple(int(code) for code in codes)
        blocks.append(RoundedBlock(scale, float(zero) if asymmetric else None, integers))
    overhead = SCALE_BITS + (ZERO_BITS if asymmetric else 0)
    note = f"{bits}, and {overhead} for each block"
    return RoundedList(
        f"{'a' if asymmetric else ''}sym{bits}", tuple(x.tolist()), tuple(values), tuple(blocks),
        size, (), bits + overhead * len(blocks) / x.size, note,
    )  # fmt: skip


def _scale(x: Values, low: int, high: int, asymmetric: bool) -> tuple[float, int]:
    """Scale and zero point; equal numbers become one code of an exact scale."""
    if not x.size or not np.abs(x).max():
        return 0.0, 0
    if not asymmetric:
        return float(np.abs(x).max()) / high, 0
    smallest, largest = float(x.min()), float(x.max())
    if smallest == largest:
        return abs(smallest), 0 if high or smallest < 0 else -1  # 1 bit: codes -1 and 0
    scale = (largest - smallest) / (high - low)
    return scale, low - round(smallest / scale)


def _float_list(x: Values, name: str) -> RoundedList | None:
    """The numbers in a float format; None if `name` is the name of no such format."""
    try:
        kind = number_format(name)
    except FormatError:
        return None
    values = tuple(kind.round(x).tolist())
    if not np.isfinite(values).all():
        raise FormatError(
            f"{kind.name} ends at {kind.largest:g}: a larger number becomes infinity",
            hint="a format with more exponent bits holds it",
            format=name,
        )
    return RoundedList(
        kind.name, tuple(x.tolist()), values, (), None, (), float(kind.bits), "floats"
    )


def _stored(x: Values, name: str) -> RoundedList:
    """The numbers in a format of fewbit's, padded with zeros to full blocks."""
    kind = find_format(name)
    pad = 0 if kind.family == "affine" else -x.size % kind.block
    padded = np.float32(np.pad(x, (0, pad))[None])
    even = (
        np.ones(padded.size, np.float32) if _core.find_format(kind.name).needs_importance else None
    )
    tensor = quantize(padded, kind.name, even)
    values = tensor.dequantize()[0, : x.size].astype(np.float64)
    note = f"{kind.bytes} bytes for {kind.block} numbers" if kind.block > 1 else "floats"
    note += f"; {pad} zeros follow" if pad else ""
    found: tuple[RoundedBlock, ...] = ()
    size = kind.scale_group
    try:
        size = tensor.group_size
        codes, scales = tensor.codes[0], tensor.scales[0]
        zeros = tensor.zeros
        found = tuple(
            RoundedBlock(
                float(scales[g]), None if zeros is None else float(zeros[0, g]),
                tuple(codes[g * size : min((g + 1) * size, x.size)].tolist()),
            )
            for g in range(-(-x.size // size))
        )  # fmt: skip
    except FewbitError:
        pass  # floats and grids have no code per number
    return RoundedList(
        kind.name, tuple(x.tolist()), tuple(values.tolist()), found,
        None if kind.is_float else size, (), kind.bits_per_weight, note,
    )  # fmt: skip


def _forward(parameters: Values, sizes: Sequence[int], inputs: Values) -> Values:
    needed = sum(a * b for a, b in itertools.pairwise(sizes))
    if len(sizes) < 2 or min(sizes) < 1 or needed != parameters.size or inputs.size != sizes[0]:
        raise InputError(
            f"a network of layers {', '.join(map(str, sizes))} has {needed} parameters and "
            f"{sizes[0]} inputs, got {parameters.size} and {inputs.size}",
            hint="for example layers 1,3,1: 6 parameters, 1 input",
        )
    start, x = 0, inputs
    for columns, rows in itertools.pairwise(sizes):
        x = parameters[start : start + rows * columns].reshape(rows, columns) @ x
        start += rows * columns
    return x

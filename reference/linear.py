"""The product of a row of activations with a weight matrix, in the three ways that `linear` has.

f64     no rounding but Python's: what the number means
f32     for each output, over the columns in order: acc = fma(weight, x, acc)
int8    the activations are rounded to 8 bits in groups of 32, then for each piece of columns that
        lies in one group of the weights and one of the activations, in order:

        acc = fma(float(sum (level * q)), scale * d, acc)
        acc = fma(minimum, d * float(sum q), acc)           where the format has a minimum

        Q2_K, Q3_K, IQ1_M, IQ2_XS and IQ2_S have groups of 16 whose scales and minima are whole
        numbers times floats that 256 columns share. There the activations are rounded in groups
        of 256, and all of a group are summed up as integers:

        acc = fma(float(sum (minimum * q)), -dmin * d, acc) where the format has minima
        acc = fma(float(sum (scale * level * q)), shared * d, acc)

        What that costs is less than 1 % of what such weights lose (benches/LOG.md); in Q6_K, whose
        groups are alike, it would be a quarter.

"f32" and "int8" define every bit of the result. Where "int8" is asked for, BF16 takes "f32" with
activations rounded to bfloat16 (`product_bf16`); other floats, groups that are neither 16 nor a
multiple of 32, and BF16 with weights below 2^-54 take "f32".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat
from operator import mul

from reference.f32 import div, f32, f32s, fmas
from reference.formats import decode_row, encode_row
from reference.legacy import Group
from reference.weights import Weight

GROUP = 32
TINY = 2.0**-100
"""Activations below this count as zero: 127 / amax would overflow."""


def round_activations(x: Sequence[float], size: int = GROUP) -> list[tuple[list[int], float]]:
    """For each `size` elements (the last may be fewer) integers -127..127 and their scale.

    d = amax / 127 and q = nearest(x * (127 / amax)), amax the largest |x|; all in f32.

    >>> round_activations([127.0, -2.5, 3.5])
    [([127, -2, 4], 1.0)]
    >>> round_activations([2.0**-101])
    [([0], 0.0)]
    """
    result = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        amax = max(map(abs, part))
        if amax < TINY:
            result.append(([0] * len(part), 0.0))
            continue
        inverse = div(127.0, amax)
        result.append(([round(v) for v in f32s(map(mul, part, repeat(inverse)))], f32(amax / 127)))
    return result


def product_f64(x: Sequence[float], w: Weight) -> list[float]:
    """The sums in binary64, each rounded to f32.

    >>> product_f64([1.0, 2.0], Weight.of([[3.0, 4.0], [0.1, 0.2]]))
    [11.0, 0.5]
    """
    return f32s(sum(map(mul, row, x)) for row in w.values)


def product_f32(x: Sequence[float], w: Weight) -> list[float]:
    """The sums in f32 over the columns in order, one fused multiply-add each.

    >>> product_f32([1.0, 2.0], Weight.of([[3.0, 4.0], [0.1, 0.2]]))
    [11.0, 0.5]
    """
    acc = [0.0] * w.rows
    for column, v in zip(w.by_column, x, strict=True):
        acc = fmas(column, [v] * w.rows, acc)
    return acc


def product_bf16(x: Sequence[float], w: Weight) -> list[float]:
    """`product_f32` of activations as bfloat16, to nearest even; what is below 2^-54 is zero.

    With weights that are not smaller either, every sum is a multiple of 2^-122: never subnormal,
    so that instructions that take subnormal numbers for zero (x86's VDPBF16PS) give the same.

    >>> product_bf16([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1e-17], Weight.of([[1.0, 1.0, 1.0]], "BF16"))
    [2.015625]
    """
    rounded = decode_row(encode_row(x, "BF16"), "BF16", len(x))
    return product_f32([v if abs(v) >= 2.0**-54 else 0.0 for v in rounded], w)


def product_int8(x: Sequence[float], w: Weight) -> list[float]:
    """The sums with activations of 8 bits.

    >>> product_int8([127.0, -2.5, 3.5] + [0.0] * 29, Weight.of([[1.0] * 32], "Q8_0"))
    [128.99212646484375]
    """
    acc = [0.0] * w.rows
    acts = round_activations(x, w.rounded)
    if w.rounded == 256:
        for i, (q, d) in enumerate(acts):
            acc = _whole(w.groups[16 * i : 16 * i + 16], q, d, acc)
        return acc
    start = 0
    for group in w.groups:
        end = start + len(group[0].levels)
        for at in range(start, end, GROUP):
            q, d = acts[at // GROUP]
            stop = min(end, at + GROUP)
            first = at % GROUP
            acc = _piece(group, at - start, q[first : first + stop - at], d, acc)
        start = end
    return acc


def _piece(
    group: Sequence[Group], first: int, q: Sequence[int], d: float, acc: list[float]
) -> list[float]:
    """One piece of columns of every row, from element `first` of the group on."""
    last = first + len(q)
    dots = [float(sum(map(mul, g.levels[first:last], q))) for g in group]
    acc = fmas(dots, [f32(g.scale * d) for g in group], acc)
    minima = [g.minimum for g in group if g.minimum is not None]
    return fmas(minima, [f32(d * sum(q))] * len(group), acc) if minima else acc


def _whole(
    groups: Sequence[Sequence[Group]], q: Sequence[int], d: float, acc: list[float]
) -> list[float]:
    """256 columns of every row, whose groups of 16 have whole scales."""
    parts = [q[start : start + 16] for start in range(0, 256, 16)]
    dots, lows = [0] * len(acc), [0] * len(acc)
    for group, part in zip(groups, parts, strict=True):
        for row, g in enumerate(group):
            assert g.whole is not None
            dots[row] += g.whole.scale * sum(map(mul, g.levels, part))
            lows[row] += g.whole.minimum * sum(part)
    shared = [g.whole for g in groups[0] if g.whole is not None]
    if groups[0][0].minimum is not None:
        acc = fmas(f32s(lows), [f32(-s.dmin * d) for s in shared], acc)
    return fmas(f32s(dots), [f32(s.d * d) for s in shared], acc)


def magnitude(x: Sequence[float], w: Weight) -> list[float]:
    """For each output sum |weight * x|: what errors of summation are measured against.

    n roundings of f32 move an output by at most n * 2^-24 times this (to first order).

    >>> magnitude([1.0, -2.0], Weight.of([[3.0, 4.0], [-1.0, 0.5]]))
    [11.0, 2.0]
    """
    return [math.fsum(abs(a * b) for a, b in zip(row, x, strict=True)) for row in w.values]


PRODUCTS = {"f64": product_f64, "f32": product_f32, "int8": product_int8}
"""The ways by name."""

"""Multiply a row of activations by a weight matrix: in f64, in f32, or with 8-bit activations.

f64     Python's own binary64 arithmetic: the value to compare with
f32     for each output, over the columns in order: acc = fma(weight, x, acc)
int8    activations are rounded to 8 bits in groups of 32 columns; then, for each run of columns
        within one group of weights and one group of activations, in order:

        acc = fma(float(sum (level * q)), scale * d, acc)
        acc = fma(minimum, d * float(sum q), acc)           where the format has a minimum

        Q2_K, Q3_K, IQ1_M, IQ2_XS and IQ2_S have integer scales: the scales and minima of 16
        groups of columns are integers times floats that these 256 columns share. Activations are
        rounded in groups of 256 columns, and each group is summed as integers:

        acc = fma(float(sum (minimum * q)), -dmin * d, acc) where the format has minima
        acc = fma(float(sum (scale * level * q)), shared * d, acc)

        Only these formats have it, because their weights lose far more than the coarser
        rounding of activations does (measured in benches/LOG.md).

"f32" and "int8" define every bit of the result. Some weights have no "int8" product: BF16 takes
"f32" with activations rounded to bfloat16 (`product_bf16`); other floats, groups that are neither
16 nor a multiple of 32, and BF16 with nonzero weights below 2^-54 take "f32".
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
"""Columns that share a scale of rounded activations, unless the weights have integer scales."""
TINY = 2.0**-100
"""Activation groups whose largest |x| is below this are rounded to 0: 127 / amax would overflow."""


def round_activations(x: Sequence[float], size: int = GROUP) -> list[tuple[list[int], float]]:
    """Round x to integers q in -127..127 with a scale d for each `size` elements.

    d = amax / 127 and q = nearest(x * (127 / amax)), where amax is the largest |x| of the group, in
    f32. The last group may have fewer elements.

    >>> round_activations([127.0, -2.5, 3.5])
    [([127, -2, 4], 1.0)]
    >>> round_activations([2.0**-101])
    [([0], 0.0)]
    """
    result = []
    for start in range(0, len(x), size):
        group = x[start : start + size]
        amax = max(map(abs, group))
        if amax < TINY:
            result.append(([0] * len(group), 0.0))
            continue
        inverse = div(127.0, amax)
        q = [round(v) for v in f32s(map(mul, group, repeat(inverse)))]
        result.append((q, f32(amax / 127)))
    return result


def product_f64(x: Sequence[float], w: Weight) -> list[float]:
    """Return the products summed in binary64, each sum rounded to f32.

    >>> product_f64([1.0, 2.0], Weight.of([[3.0, 4.0], [0.1, 0.2]]))
    [11.0, 0.5]
    """
    return f32s(sum(map(mul, row, x)) for row in w.values)


def product_f32(x: Sequence[float], w: Weight) -> list[float]:
    """Return the products summed in f32 over the columns in order, one fused multiply-add each.

    >>> product_f32([1.0, 2.0], Weight.of([[3.0, 4.0], [0.1, 0.2]]))
    [11.0, 0.5]
    """
    acc = [0.0] * w.rows
    for column, v in zip(w.by_column, x, strict=True):
        acc = fmas(column, [v] * w.rows, acc)
    return acc


def product_bf16(x: Sequence[float], w: Weight) -> list[float]:
    """Return `product_f32` with x rounded to bfloat16, to nearest even; |x| < 2^-54 becomes 0.

    Nonzero weights are at least 2^-54 too, so every sum is a multiple of 2^-122 and never
    subnormal. Instructions that flush subnormal numbers to zero (x86's VDPBF16PS) therefore give
    the same bits.

    >>> product_bf16([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1e-17], Weight.of([[1.0, 1.0, 1.0]], "BF16"))
    [2.015625]
    """
    rounded = decode_row(encode_row(x, "BF16"), "BF16", len(x))
    return product_f32([v if abs(v) >= 2.0**-54 else 0.0 for v in rounded], w)


def product_int8(x: Sequence[float], w: Weight) -> list[float]:
    """Return the products with activations rounded to 8 bits.

    >>> product_int8([127.0, -2.5, 3.5] + [0.0] * 29, Weight.of([[1.0] * 32], "Q8_0"))
    [128.99212646484375]
    """
    acc = [0.0] * w.rows
    acts = round_activations(x, w.activation_group)
    if w.activation_group == 256:
        for i, (q, d) in enumerate(acts):
            acc = _integer_scales(w.groups[16 * i : 16 * i + 16], q, d, acc)
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
    """Add a run of columns, from element `first` of the group on, to every row's sum."""
    last = first + len(q)
    dots = [float(sum(map(mul, g.levels[first:last], q))) for g in group]
    acc = fmas(dots, [f32(g.scale * d) for g in group], acc)
    minima = [g.minimum for g in group if g.minimum is not None]
    return fmas(minima, [f32(d * sum(q))] * len(group), acc) if minima else acc


def _integer_scales(
    groups: Sequence[Sequence[Group]], q: Sequence[int], d: float, acc: list[float]
) -> list[float]:
    """Add 256 columns, 16 groups with integer scales, to every row's sum."""
    sixteens = [q[start : start + 16] for start in range(0, 256, 16)]
    dots, lows = [0] * len(acc), [0] * len(acc)
    for group, q16 in zip(groups, sixteens, strict=True):
        for row, g in enumerate(group):
            assert g.integer_scales is not None
            dots[row] += g.integer_scales.scale * sum(map(mul, g.levels, q16))
            lows[row] += g.integer_scales.minimum * sum(q16)
    shared = [g.integer_scales for g in groups[0] if g.integer_scales is not None]
    if groups[0][0].minimum is not None:
        acc = fmas(f32s(lows), [f32(-s.dmin * d) for s in shared], acc)
    return fmas(f32s(dots), [f32(s.d * d) for s in shared], acc)


def magnitude(x: Sequence[float], w: Weight) -> list[float]:
    """Return sum |weight * x| for each output, the measure for errors of summation.

    n roundings in f32 move an output by at most n * 2^-24 times this (to first order).

    >>> magnitude([1.0, -2.0], Weight.of([[3.0, 4.0], [-1.0, 0.5]]))
    [11.0, 2.0]
    """
    return [math.fsum(abs(a * b) for a, b in zip(row, x, strict=True)) for row in w.values]


PRODUCTS = {"f64": product_f64, "f32": product_f32, "int8": product_int8}
"""The ways by name."""

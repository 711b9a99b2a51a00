"""Coordinate descent on scales: the best step along one direction, as far as it can be stored.

A scale s moves the values of its group by u = its levels, a minimum by v = 1 each; the f16 of a
super-block moves them by scale integers times levels, that of its minima by the minimum integers,
negative. With g = e H, steps a, b along u and v lower e H e^T by
2 a (u . g) + 2 b (v . g) - (a u + b v) H (a u + b v): two linear equations give the best ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from reference.error_feedback import Matrix
from reference.f32 import f32
from reference.float4 import half_ue4m3
from reference.floats import FLOAT16, round_to
from reference.quantized_row import QuantizedRow

State = tuple[QuantizedRow, list[float], Matrix]
"""A row, its errors e, and H."""


def gradient(errors: Sequence[float], h: Matrix, j: int) -> float:
    """Return (e H)_j.

    >>> gradient([1.0, 2.0], [[1.0, 0.5], [0.5, 1.0]], 0)
    2.0
    """
    return sum(e * x for e, x in zip(errors, h[j], strict=True))


def step_scales(state: State) -> None:
    """Step the scales of every 256 columns' groups, then what their super-blocks share.

    >>> row = QuantizedRow("f32", range(-8, 8), 2, [1, 1], [1.0], [0.0])
    >>> step_scales((row, [0.5, 0.25], [[1.0, 0.0], [0.0, 1.0]]))
    >>> row.scales
    [1.375]
    """
    for first, last in spans(state[0], len(state[1])):
        step_span(state, first, last)


def spans(row: QuantizedRow, columns: int) -> list[tuple[int, int]]:
    """Return the columns that are stepped together: whole groups or super-blocks, 256 or more.

    >>> spans(QuantizedRow("f16", range(-8, 8), 32, [0] * 288, [1.0] * 9, [0.0] * 9), 288)
    [(0, 256), (256, 288)]
    """
    unit = 256 if row.kind == "integers" else row.group
    width = unit * max(1, 256 // unit)
    return [(first, min(columns, first + width)) for first in range(0, columns, width)]


def step_span(state: State, first: int, last: int) -> None:
    """Step the groups of the columns first..last - 1, then their super-blocks.

    >>> row = QuantizedRow("f32", range(-8, 8), 1, [1, 1], [1.0, 1.0], [0.0, 0.0])
    >>> step_span((row, [0.5, 0.25], [[1.0, 0.0], [0.0, 1.0]]), 1, 2)
    >>> row.scales
    [1.0, 1.25]
    """
    row = state[0]
    for start in range(first, last, row.group):
        _step_group(state, start // row.group)
    if row.kind == "integers":
        for start in range(first, last, 256):
            _step_block(state, start // 256)


def _fit(state: State, first: int, u: list[float], v: list[float]) -> tuple[float, ...]:
    """Return u H u, u H v, v H v, u g and v g of directions that start at column `first`."""
    _, errors, h = state
    g = [gradient(errors, h, first + i) for i in range(len(u))]

    def form(a: list[float], b: list[float]) -> float:
        return sum(x * h[first + i][first + j] * y
                   for i, x in enumerate(a) if x for j, y in enumerate(b))  # fmt: skip

    both = any(v)
    return (
        form(u, u), form(u, v) if both else 0.0, form(v, v) if both else 0.0,
        sum(a * b for a, b in zip(u, g, strict=True)),
        sum(a * b for a, b in zip(v, g, strict=True)),
    )  # fmt: skip


def _along_u(fit: Sequence[float]) -> float:
    """Return the best step along u, with that along v free if there is one."""
    uu, uv, vv, u, v = fit
    determinant = uu * vv - uv * uv
    if determinant > 1e-9 * uu * vv:
        return (u * vv - v * uv) / determinant
    return u / uu if uu > 0 else 0.0


def _along_v(fit: Sequence[float], taken: float) -> float:
    """Return the best step along v after a step along u."""
    _, uv, vv, _, v = fit
    return (v - taken * uv) / vv if vv > 0 else 0.0


def _step_group(state: State, k: int) -> None:
    row, errors, _ = state
    columns = range(k * row.group, min(len(errors), (k + 1) * row.group))
    zero = row.lows[k] if row.kind == "zero point" else 0
    has_min = row.kind == "f16 and minimum" or (row.limits[2] > 0 and row.kind == "integers")
    u = [float(row.levels[j] - zero) for j in columns]
    fit = _fit(state, columns[0], u, [float(has_min)] * len(u))
    old = row.scales[k]
    new, wanted = replace(row, scales=row.scales[:], minima=row.minima[:], steps=row.steps[:],
                          lows=row.lows[:]), old + _along_u(fit)  # fmt: skip
    if row.kind in ("f16", "f16 and minimum"):
        new.scales[k] = _usable(round_to(f32(wanted), FLOAT16), old)
        if has_min:
            low = row.minima[k] + _along_v(fit, new.scales[k] - old)
            new.minima[k] = round_to(f32(low), FLOAT16)
    elif row.kind in ("f32", "zero point"):
        new.scales[k] = _usable(f32(wanted), old)
        new.minima[k] = -f32(new.scales[k] * zero)
    elif row.kind == "integers":
        _step_integers(new, k, fit)
    else:
        _step_byte(new, k, fit)
    _attempt(state, new, columns)
    if row.kind == "zero point":
        fit = _fit(state, columns[0], [-row.scales[k]] * len(u), [0.0] * len(u))
        new = replace(row, minima=row.minima[:], lows=row.lows[:])
        new.lows[k] = _integer(zero + _along_u(fit), 0, row.limits[2])
        new.minima[k] = -f32(row.scales[k] * new.lows[k])
        _attempt(state, new, columns)


def _step_integers(new: QuantizedRow, k: int, fit: Sequence[float]) -> None:
    block = k * new.group // 256
    d, dmin, old, low = new.d[block], new.dmin[block], new.scales[k], new.minima[k]
    if d:
        new.steps[k] = _integer((old + _along_u(fit)) / d, *new.limits[:2])
        new.scales[k] = f32(d * new.steps[k])
        if dmin:
            wanted = -(low + _along_v(fit, new.scales[k] - old)) / dmin
            new.lows[k] = _integer(wanted, 0, new.limits[2])
            new.minima[k] = -f32(dmin * new.lows[k])


def _step_byte(new: QuantizedRow, k: int, fit: Sequence[float]) -> None:
    best, old, center = 0.0, new.scales[k], new.steps[k]
    highest = 254 if new.kind == "power" else 126
    for byte in range(max(0, center - 4), min(highest, center + 4) + 1):
        scale = 2.0 ** (byte - 128) if new.kind == "power" else half_ue4m3(byte)
        change = (scale - old) * ((scale - old) * fit[0] - 2 * fit[3])
        if change < best:
            best, new.steps[k], new.scales[k] = change, byte, scale


def _step_block(state: State, block: int) -> None:
    row, _, _ = state
    columns = range(block * 256, block * 256 + 256)
    u = [float(row.steps[j // row.group] * row.levels[j]) for j in columns]
    fit = _fit(state, columns[0], u, [-float(row.lows[j // row.group]) for j in columns])
    new = replace(row, d=row.d[:], dmin=row.dmin[:], scales=row.scales[:], minima=row.minima[:])
    new.d[block] = _usable(round_to(f32(row.d[block] + _along_u(fit)), FLOAT16), row.d[block])
    if row.limits[2]:
        low = row.dmin[block] + _along_v(fit, new.d[block] - row.d[block])
        new.dmin[block] = _usable(round_to(f32(low), FLOAT16), row.dmin[block])
    for k in range(columns[0] // row.group, (columns[-1] + 1) // row.group):
        new.scales[k] = f32(new.d[block] * row.steps[k])
        new.minima[k] = -f32(new.dmin[block] * row.lows[k])
    if new.dmin[block] * row.dmin[block] >= 0:
        _attempt(state, new, columns)


def _usable(new: float, old: float) -> float:
    """Return the new scale; the old one where either is 0 or the new one is not finite."""
    return new if new and old and math.isfinite(new) else old


def _integer(x: float, low: int, high: int) -> int:
    return min(max(round(x), low), high)


def _attempt(state: State, new: QuantizedRow, columns: range) -> None:
    """Take the new scales over if the cost falls."""
    row, errors, h = state
    moves = [new.value(j) - row.value(j) for j in columns]
    felt = [sum(m * h[i][j] for m, j in zip(moves, columns, strict=True)) for i in columns]
    rise = sum(m * (x - 2 * gradient(errors, h, j))
               for m, x, j in zip(moves, felt, columns, strict=True))  # fmt: skip
    if rise < 0:
        for name in ("scales", "minima", "steps", "lows", "d", "dmin"):
            setattr(row, name, getattr(new, name))
        for move, j in zip(moves, columns, strict=True):
            errors[j] -= move

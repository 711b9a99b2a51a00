"""Scales of the affine formats that weigh the error of each column: where feedback starts.

`affine.encode_group` maps the largest |x| to the highest level. With few levels a smaller scale
has less error, as large values are rare; and an error counts as much as the square of its input.
All in binary64, sums in element order; the scale is rounded to f32.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from reference.affine import encode_group
from reference.bits import pack
from reference.f32 import f32

Row = Sequence[float]


class Levels(NamedTuple):
    """The lowest and the highest level, zero point included; or the signs -1 and 1."""

    low: int
    high: int
    signs: bool = False

    def nearest(self, x: float, scale: float, zero: int) -> int:
        """Return the level next to x / scale, ties to even.

        >>> Levels(0, 15).nearest(-3.0, 2.0, 1), Levels(0, 0, signs=True).nearest(-3.0, 2.0, 0)
        (-1, -1)
        """
        if self.signs:
            return 1 if x >= 0 else -1
        return round(min(max(x / scale, self.low - zero), self.high - zero))


def fit_group(x: Row, w: Row, kind: str, bits: int, group: int) -> bytes:
    """Quantize a group with the scale of the least error, sum of w (x - value)^2.

    A group whose errors do not count is stored as `affine.encode_group` does.

    >>> x = [1.0, 1.0, 1.0, 1.0, -1.0, 1.6]
    >>> struct.unpack("<f", encode_group(x, "sym", 2, 6)[:4])[0]
    1.600000023841858
    >>> struct.unpack("<f", fit_group(x, [1.0] * 6, "sym", 2, 6)[:4])[0]
    1.100000023841858
    >>> fit_group(x, [0.0] * 6, "sym", 2, 6) == encode_group(x, "sym", 2, 6)
    True
    """
    n = (1 << bits) - 1 if kind == "asym" else (1 << bits - 1) - 1
    levels = Levels(0 if kind == "asym" else -n, n, kind == "sym" and bits == 1)
    best: tuple[float, float, int] | None = None
    for scale, zero in _candidates(x, kind, n):
        fitted = _fit(x, w, levels, scale, zero)
        if fitted and (best is None or fitted[0] < best[0]):
            best = (*fitted, zero)
    if best is None:
        return encode_group(x, kind, bits, group)
    _, scale, zero = best
    found = [levels.nearest(v, scale, zero) for v in x]
    codes = [int(v > 0) if levels.signs else v + (zero if kind == "asym" else n) for v in found]
    head = struct.pack("<f", scale) + (bytes([zero]) if kind == "asym" else b"")
    return head + pack([*codes, *[0] * (group - len(x))], bits)


def _candidates(x: Row, kind: str, n: int) -> list[tuple[float, int]]:
    """Return scales and zero points: shrunken largest |x|, or ranges with shrunken ends."""
    if kind == "sym":
        peak = max(map(abs, x)) / max(n, 1)
        return [(peak * (1.0 - 0.025 * i), 0) for i in range(30)]
    low, high = min(0.0, *x), max(0.0, *x)
    ranges = [(low * (1.0 - 0.1 * a), high * (1.0 - 0.1 * b)) for a in range(6) for b in range(6)]
    steps = [(low, (high - low) / n) for low, high in ranges]
    return [(s, min(max(round(-low / s), 0), n)) for low, s in steps if s > 0]


def _fit(x: Row, w: Row, levels: Levels, scale: float, zero: int) -> tuple[float, float] | None:
    """Return error and scale after fitting the scale to its levels twice; None if it has no fit."""
    for _ in range(2):
        a = b = 0.0
        for v, weight in zip(x, w, strict=True):
            level = levels.nearest(v, scale, zero) if scale else 0
            a += weight * v * level
            b += weight * level * level
        if not (a > 0 and b > 0):
            return None
        scale = a / b
    scale = f32(scale)
    if not 0 < scale < float("inf"):
        return None
    error = 0.0
    for v, weight in zip(x, w, strict=True):
        off = v - scale * levels.nearest(v, scale, zero)
        error += weight * off * off
    return error, scale

"""Search a block's scale: the scale and integer levels with the smallest weighted squared error.

For given levels l the best scale is the least squares solution sum(w x l) / sum(w l l). Each search
tries several inverse scales, rounds x to levels, and returns the candidate with the smallest error.
All arithmetic is f32 with one rounding per operator and sums in element order; ``a * b * c`` goes
from the left. llama.cpp's x86-64 build does the same, so the bytes are equal. Above |x| of about
10^6 the gains (growing with x^6) overflow f32: the scale is then not the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import add, mul, sub

from reference.f32 import clamp, f32, f32s, inverse, nearest, products, total

TINY = f32(1e-15)
"""Blocks whose largest |x| is below this are stored as zero."""
TENTH = f32(0.1)


def signed_peak(x: Sequence[float]) -> float:
    """Return the element with the largest |x|, sign included; the first of equals.

    >>> signed_peak([1.0, -3.0, 3.0])
    -3.0
    """
    peak = 0.0
    for v in x:
        if abs(v) > abs(peak):
            peak = v
    return peak


def symmetric_search(
    x: Sequence[float], n: int, w: Sequence[float] | None = None
) -> tuple[float, list[int]]:
    """Fit a signed scale and levels -n..n-1 (returned + n), 19 inverse scales: `make_qx_quants`.

    The largest |x| maps to -n, so the scale has the other sign. The search maximizes the gain
    sum(w x l)^2 / sum(w l l), which the scale takes off the squared error. Without `w`: w = x^2.

    >>> symmetric_search([-0.89, 0.16, 0.08, -0.13, 0.16, -0.54], 8)
    (0.11088692396879196, [0, 9, 9, 7, 9, 3])
    """
    peak = signed_peak(x)
    if abs(peak) < TINY:
        return 0.0, [0] * len(x)
    wx = products(x, x, x) if w is None else products(w, x)
    w = products(x, x) if w is None else w
    best_levels: list[int] = []
    scale = best = 0.0
    for s in (0, *range(-9, 0), *range(1, 10)):
        inv = f32(-f32(n + f32(TENTH * s)) / peak)
        levels = [clamp(nearest(v), -n, n - 1) for v in f32s(map(mul, repeat(inv), x))]
        a, b = total(products(wx, levels)), total(products(w, levels, levels))
        if s == 0:
            scale = f32(a / b) if b else 0.0
            best, best_levels = f32(scale * a), levels
        elif b > 0 and f32(a * a) > f32(best * b):
            scale = f32(a / b)
            best, best_levels = f32(scale * a), levels
    return scale, [level + n for level in best_levels]


def coordinate_search(x: Sequence[float], n: int) -> tuple[float, list[int]]:
    """Fit like `symmetric_search` with w = x^2, one level at a time: `make_q3_quants`.

    At most 5 rounds set each level to the best one for the scale that the other levels imply.

    >>> coordinate_search([-0.89, 0.16, 0.08, -0.13, 0.16, -0.54], 4)
    (0.2921016812324524, [1, 5, 4, 4, 5, 2])
    """
    peak = signed_peak(x)
    if abs(peak) < TINY:
        return 0.0, [0] * len(x)
    w = products(x, x)
    inv = f32(-n / peak)
    levels = [clamp(nearest(v), -n, n - 1) for v in f32s(map(mul, repeat(inv), x))]
    a, b = total(products(w, x, levels)), total(products(w, levels, levels))
    a, b = _sweeps(x, w, levels, (a, b), -n, n - 1)
    return f32(a / b) if b else 0.0, [level + n for level in levels]


def _sweeps(
    x: Sequence[float], w: Sequence[float], levels: list[int], sums: tuple[float, float],
    low: int | None, high: int,
) -> tuple[float, float]:  # fmt: skip
    """Improve `levels` in place while a*a/b grows; return both sums. `low` None: byte levels."""
    a, b = sums
    wx = products(w, x)
    for _ in range(5):
        changed = False
        for i, (v, wi, wxi, level) in enumerate(zip(x, w, wx, levels, strict=True)):
            rest_a = f32(a - f32(wxi * level))
            rest_b = f32(b - f32(f32(wi * level) * level))
            if not rest_a > 0 or (low is None and not rest_b > 0):
                continue
            new = nearest(f32(f32(v * rest_b) / rest_a))
            new = min(new, high) if low is None else clamp(new, low, high)
            if new == level:
                continue
            new_a = f32(rest_a + f32(wxi * new))
            new_b = f32(rest_b + f32(f32(wi * new) * new))
            if new_b > 0 and f32(f32(new_a * new_a) * b) > f32(f32(a * a) * new_b):
                levels[i], a, b, changed = new & 255 if low is None else new, new_a, new_b, True
        if not changed:
            break
    return a, b


def affine_search(
    x: Sequence[float], n: int, w: Sequence[float], grid: tuple[float, float, int],
    absolute: bool = False,
) -> tuple[float, float, list[int]]:  # fmt: skip
    """Fit x = scale * l - minimum with levels l in 0..n, minimum >= 0: `make_qkx2_quants`.

    `grid` = (first, step, count) lists the inverse scales (n + first + step * s) / range, s =
    0..count, each with the least squares scale and minimum. An accepted candidate also moves the
    minimum that later candidates start from. `absolute` weighs |error| instead of its square.

    >>> affine_search([-0.89, 0.16, 0.08, -0.13, 0.16, -0.54], 15, [1.0] * 6, (-1.0, 0.1, 20))
    (0.06973959505558014, 0.8907292485237122, [0, 15, 14, 11, 15, 5])
    """
    low, high = min(0.0, *x), max(x)
    if high <= low:
        return 0.0, -low, [0] * len(x)
    inv = f32(n / f32(high - low))
    scale, best_low = f32(1 / inv), low
    best_levels = _rounded(x, inv, low, n)
    best = _error(x, w, best_levels, scale, low, absolute)
    sw, swx = total(w), total(products(w, x))
    first, step, count = map(f32, grid)
    for s in range(int(count) + 1):
        inv = f32(f32(f32(first + f32(step * s)) + n) / f32(high - best_low))
        levels = _rounded(x, inv, best_low, n)
        fitted = _least_squares(x, w, levels, sw, swx)
        if fitted is None:
            continue
        error = _error(x, w, levels, *fitted, absolute)
        if error < best:
            best, best_levels, (scale, best_low) = error, levels, fitted
    return scale, -best_low, best_levels


def _rounded(x: Sequence[float], inv: float, low: float, n: int) -> list[int]:
    shifted = f32s(map(sub, x, repeat(low)))
    return [clamp(nearest(v), 0, n) for v in f32s(map(mul, repeat(inv), shifted))]


def _error(
    x: Sequence[float], w: Sequence[float], levels: Sequence[int], scale: float, low: float,
    absolute: bool,
) -> float:  # fmt: skip
    near = f32s(map(add, f32s(map(mul, repeat(scale), levels)), repeat(low)))
    off = f32s(map(sub, near, x))
    return total(products(w, [abs(v) for v in off] if absolute else products(off, off)))


def _least_squares(
    x: Sequence[float], w: Sequence[float], levels: Sequence[int], sw: float, swx: float
) -> tuple[float, float] | None:
    """Return the best scale and minimum (<= 0) for these levels; None if there is no solution."""
    wl = products(w, levels)
    sl, sll, sxl = total(wl), total(products(wl, levels)), total(products(wl, x))
    d = f32(f32(sw * sll) - f32(sl * sl))
    if not d > 0:  # a NaN of overflowed sums is no solution either
        return None
    scale = f32(f32(f32(sw * sxl) - f32(swx * sl)) / d)
    low = f32(f32(f32(sll * swx) - f32(sl * sxl)) / d)
    return (scale, low) if low <= 0 else (f32(sxl / sll), 0.0)


def scale_quantizer(v: Sequence[float], n: int, w: Sequence[float]) -> tuple[float, list[int]]:
    """Fit a scale and levels 0..n to the scales of a super-block: `make_qp_quants`.

    IQ2_XXS passes some values below 0: their levels return as bytes (-1 is 255), but the sums and
    all candidates but the first use the signed levels.

    >>> scale_quantizer([0.5, 1.0, 2.0], 15, [1.0, 1.0, 1.0])
    (0.13114753365516663, [4, 8, 15])
    """
    peak = max(0.0, *v)
    if peak < TINY:
        return 0.0, [0] * len(v)
    inv, best = 0.0, 0.0
    for s in (0, *range(-4, 0), *range(1, 5)):
        tried = f32(f32(f32(TENTH * s) + n) / peak)
        levels = [min(n, nearest(y)) for y in f32s(map(mul, repeat(tried), v))]
        compared = levels if s else [level & 255 for level in levels]
        off = f32s(map(sub, v, f32s(map(mul, repeat(inverse(tried)), compared))))
        error = total(products(w, off, off))
        if s == 0 or error < best:
            inv, best = tried, error
    levels = [min(n, nearest(y)) for y in f32s(map(mul, repeat(inv), v))]
    a, b = total(products(w, v, levels)), total(products(w, levels, levels))
    levels = [level & 255 for level in levels]
    a, b = _sweeps(v, w, levels, (a, b), None, n)
    return f32(a / b) if b > 0 else 0.0, levels

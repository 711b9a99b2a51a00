"""The only two comparisons of numbers that tests use: equal bits, and within a derived bound."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray


def same_bits(got: ArrayLike | bytes, expected: ArrayLike | bytes, what: str = "") -> None:
    """Fail unless both have the same type, shape and bits: -0.0 is not 0.0, a NaN equals itself."""
    a, b = _array(got), _array(expected)
    assert a.dtype == b.dtype, f"{what}: {a.dtype} is not {b.dtype}"
    assert a.shape == b.shape, f"{what}: shape {a.shape} is not {b.shape}"
    differ = np.atleast_1d(_bits(a) != _bits(b))
    if differ.any():
        raise AssertionError(_report(a, b, differ, what))


def within_bound(got: ArrayLike, expected: ArrayLike, bound: ArrayLike, what: str = "") -> None:
    """Fail unless |got - expected| <= bound, element by element, and all are finite.

    `bound` comes from the sizes of the inputs (as ``reference.linear.magnitude`` has them) or
    is stated, with its reason, beside the data; never from looking at the result.
    """
    a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape, f"{what}: shape {a.shape} is not {b.shape}"
    limit = np.broadcast_to(np.asarray(bound, np.float64), a.shape)
    with np.errstate(invalid="ignore"):
        outside = np.atleast_1d(~(np.abs(a - b) <= limit))
    if outside.any():
        worst = np.unravel_index(
            np.nanargmax(np.where(outside, np.abs(a - b) - limit, -1)), a.shape
        )
        detail = (
            f"; worst at {_index(worst)}: off by {abs(a[worst] - b[worst]):g} > {limit[worst]:g}"
        )
        raise AssertionError(_report(a, b, outside, what) + detail)


def _array(x: ArrayLike | bytes) -> Array:
    return np.frombuffer(x, np.uint8) if isinstance(x, bytes) else np.asarray(x)


def _bits(x: Array) -> Array:
    if x.dtype.kind != "f":
        return x
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


def _report(a: Array, b: Array, differ: Array, what: str) -> str:
    """How many differ, the first one with both values in hex, and the command that repeats it."""
    first = tuple(int(i) for i in np.argwhere(differ)[0])
    x, y = np.atleast_1d(a)[first], np.atleast_1d(b)[first]
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" (")[0]
    return (
        f"{what}: {int(differ.sum())} of {differ.size} differ, first at {_index(first)}: "
        f"got {x!r} ({_hex(x)}), expected {y!r} ({_hex(y)})\nrepeat: pytest '{test}'"
    )


def _hex(x: np.generic) -> str:
    return float(x).hex() if x.dtype.kind == "f" else hex(int(x))


def _index(index: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"

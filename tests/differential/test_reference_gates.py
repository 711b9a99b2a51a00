"""Activation functions, gates and norms on the CPU executor against the oracle.

Ops with one rounding per step are compared bit by bit, the others with a bound from the roundings
of their steps. The executor's exp is accurate to 2 roundings and limits its argument to -87.3..88,
so a sigmoid is never below e^-88: `FLOOR`.
"""

import numpy as np
import pytest

from reference import gates
from tests.compare import same_bits, within_bound
from tests.differential.plans import U, both, embed, op, stored, values

FLOOR = 1.01 * np.exp(-88.0)
"""The smallest value of the executor's sigmoid."""
WIDTHS = [1, 15, 16, 33, 70]


def rows(seed, width):
    """Six rows; the first has extreme values, zeros of both signs and a subnormal number."""
    x = values(seed, 6, width) * 3
    edges = np.float32([-100, 100, 0, -0.0, 1e-40, -30, 88.5, -88.5])[:width]
    x[0, : len(edges)] = edges
    return x


def one(kind, x, y=None, **attributes):
    """Run an op in both on `x`, or on the halves `x` and `y` of a row."""
    width, table = x.shape[1], x if y is None else np.concatenate([x, y], axis=1)
    plan, inputs = [embed("x", table)], [0]
    if y is not None:
        plan += [
            op("part", [0], [], width, parts=1, start=0),
            op("part", [0], [], y.shape[1], parts=1, start=width),
        ]
        inputs = [1, 2]
    plan.append(op(kind, inputs, [], width, **attributes))
    return both(plan, {"x": stored(table)}, range(len(x)))


def slope(z):
    """Factor from a relative error of z to one of sigmoid(z): |z| (1 - sigmoid(z))."""
    z = np.float64(z)
    return np.abs(z) / (1 + np.exp(np.minimum(z, 700)))


def gelu_argument(x):
    x = np.float64(x)
    return 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def test_exact_functions_cover_the_edges():
    x = rows(1, 70)
    assert np.isfinite(x).all()
    assert (np.abs(x) > 88).any()


@pytest.mark.parametrize("width", WIDTHS)
def test_scale(width):
    same_bits(*one("scale", rows(1, width), factor=float(np.float32(0.3))))


@pytest.mark.parametrize(("width", "shorter"), [(16, 16), (33, 1), (33, 11), (48, 16), (70, 7)])
def test_mul(width, shorter):
    same_bits(*one("mul", rows(2, width), values(3, 6, shorter)))


@pytest.mark.parametrize("width", WIDTHS)
def test_sigmoid(width):
    """Roundings: exp 2, a sum, a quotient, the oracle's own."""
    got, expected = one("sigmoid", rows(4, width))
    within_bound(got, expected, 5 * U * expected + FLOOR)


@pytest.mark.parametrize("width", WIDTHS)
def test_silu(width):
    x = rows(5, width)
    got, expected = one("silu", x)
    within_bound(got, expected, 6 * U * np.abs(expected) + np.abs(x) * FLOOR)


@pytest.mark.parametrize("width", WIDTHS)
def test_gelu(width):
    """The argument takes six roundings, constants included; `slope` scales them."""
    x = rows(6, width)
    got, expected = one("gelu", x)
    off = (6 * slope(gelu_argument(x)) + 6) * U
    within_bound(got, expected, off * np.abs(expected) + np.abs(x) * FLOOR)


@pytest.mark.parametrize("width", WIDTHS)
def test_geglu(width):
    x, y = rows(7, width), values(8, 6, width)
    got, expected = one("geglu", x, y)
    off = (6 * slope(gelu_argument(x)) + 7) * U
    within_bound(got, expected, off * np.abs(expected) + np.abs(x * y) * FLOOR)


@pytest.mark.parametrize("limit", [7.0, 0.5])
@pytest.mark.parametrize("width", WIDTHS)
def test_clamped_swiglu(width, limit):
    """The argument takes one rounding; then silu, the sum u + 1 and the product."""
    x, y, alpha = rows(9, width), values(10, 6, width) * 5, float(np.float32(1.702))
    got, expected = one("clamped_swiglu", x, y, alpha=alpha, limit=limit)
    off = (2 * slope(alpha * np.minimum(x, limit)) + 8) * U
    within_bound(got, expected, off * np.abs(expected) + np.abs(x) * (limit + 1) * FLOOR)


@pytest.mark.parametrize("cap", [30.0, 0.5])
@pytest.mark.parametrize("width", WIDTHS)
def test_softcap(width, cap):
    """2 sigmoid(2 y) - 1 has an absolute error: that of the sigmoid, doubled.

    Sigmoid's five roundings count twice; its argument has two, and two follow.
    """
    x = rows(11, width)
    got, expected = one("softcap", x, cap=cap)
    within_bound(got, expected, 14 * U * cap)


@pytest.mark.parametrize("width", WIDTHS)
def test_layer_norm(width):
    """Two sums go through 16 lanes; an error of the mean moves every element."""
    x, w, b = rows(12, width), values(13, width), values(14, width)
    x[1] = 5  # no variance
    norm = op("layer_norm", [0], ["w", "b"], width, eps=1e-5)
    weights = {"x": stored(x), "w": stored(w), "b": stored(b)}
    got, expected = both([embed("x", x), norm], weights, range(6))
    lanes = width / 16 + 5
    wide = np.float64(x)
    deviation = wide - wide.mean(1, keepdims=True)
    root = np.sqrt((deviation**2).mean(1, keepdims=True) + 1e-5)
    mean_off = (lanes + 1) * U * np.abs(wide).mean(1, keepdims=True)
    scaled = np.abs(deviation * w) / root
    bound = (
        2 * mean_off * (np.abs(w) + scaled) / root
        + (lanes / 2 + 8) * U * scaled
        + 2 * U * (np.abs(expected) + np.abs(b))
    )
    within_bound(got, expected, bound)


@pytest.mark.parametrize(("width", "heads"), [(1, 1), (16, 1), (33, 3), (120, 1), (64, 4)])
def test_l2_norm(width, heads):
    """The sum goes through 16 lanes, halved by the root; then sum, root, quotient, product."""
    x = rows(15, width)
    x[2] = 0
    got, expected = one("l2_norm", x, eps=1e-6, heads=heads)
    within_bound(got, expected, ((width / heads / 16 + 5) / 2 + 5) * U * np.abs(expected))
    same_bits(expected[2], np.zeros(width, np.float32))


def test_oracle_gates_are_the_formulas():
    """The oracle's gelu against the published formula in numpy's float64."""
    x = np.linspace(-20, 20, 101)
    found = np.array(gates.gelu(x.tolist()))
    formula = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    within_bound(found, formula, U * np.abs(formula) + 1e-14 * np.abs(x))

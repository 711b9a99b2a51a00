"""Element-wise ops and norms on a card against the oracle.

Vulkan allows exp(x) an error of 3 + 2 |x| units in the last place, each 2 U; see test_ops.py.
"""

import numpy as np
import pytest

from tests.compare import same_bits, within_bound
from tests.gpu.running import DIVISION, U, both, embed, op, stored, table, values

TOKENS = list(range(6))
FLOOR = 1.01 * np.exp(-87)
"""The value of the shaders for exponentials below it."""


def exp_error(x):
    """Relative error of exp(x), in U."""
    return 2 * (3 + 2 * np.minimum(np.abs(np.float64(x)), 87))


def wide(seed, width=72):
    """Values that include the saturated ends of every function."""
    x = values(seed, len(TOKENS), width) * 3
    x[0, :6] = [-200, -100, 100, 200, 0, -0.0]
    x[1, :4] = [-3e30, 3e30, -20, 20]
    return x


def unary(card, x, kind, **attributes):
    plan = [embed("x", x), op(kind, [0], [], x.shape[1], **attributes)]
    return both(card, plan, {"x": stored(x)}, TOKENS)


def pair(card, x, kind, width, **attributes):
    """The op on the first `width` columns of x and on the rest."""
    half = x.shape[1] - width
    plan = [
        embed("x", x),
        op("part", [0], [], width, parts=1, start=0),
        op("part", [0], [], half, parts=1, start=width),
        op(kind, [1, 2], [], width, **attributes),
    ]
    return both(card, plan, {"x": table(x)}, TOKENS)


def test_scale(card):
    same_bits(*unary(card, values(1, 6, 72), "scale", factor=float(np.float32(0.3))))


@pytest.mark.parametrize("shorter", [72, 24, 1])
def test_mul(card, shorter):
    same_bits(*pair(card, values(2, 6, 72 + shorter), "mul", 72))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("start", [0, 3, 8])
def test_part(card, parts, start):
    """As a value of its own, and as a view that `add` reads."""
    x = values(3, 6, 72)
    one = [embed("x", x), op("part", [0], [], 12, parts=parts, start=start)]
    same_bits(*both(card, one, {"x": stored(x)}, TOKENS))
    two = [*one, op("part", [1], [], 4, parts=1, start=4), op("add", [2, 2], [], 4)]
    same_bits(*both(card, two, {"x": stored(x)}, TOKENS))


def test_linear_reads_a_part(card):
    """A view with an offset, for few tokens and for many."""
    x, w = values(3, 9, 72), np.eye(16, dtype=np.float32)
    plan = [
        embed("x", x),
        op("part", [0], [], 16, parts=1, start=20),
        op("linear", [1], ["w"], 16),
    ]
    for tokens in (TOKENS[:2], list(range(9))):
        same_bits(*both(card, plan, {"x": stored(x), "w": stored(w)}, tokens))


def test_sigmoid(card):
    x = wide(4)
    got, expected = unary(card, x, "sigmoid")
    within_bound(got, expected, (exp_error(x) + DIVISION + 2) * U * np.abs(expected) + FLOOR)


def test_silu(card):
    x = wide(5)
    got, expected = unary(card, x, "silu")
    bound = (exp_error(x) + DIVISION + 3) * U * np.abs(expected)
    within_bound(got, expected, bound + FLOOR * np.abs(np.float64(x)))


def gelu_error(x):
    """Relative error of gelu(x), in U: 5 roundings in the exponent."""
    c = np.clip(np.float64(x), -30, 30)
    inner = np.minimum(np.abs(c * (1.5957692 + 0.07135481 * c * c)), 87)
    return exp_error(inner) + 5 * inner + DIVISION + 3


def test_gelu(card):
    x = wide(6)
    got, expected = unary(card, x, "gelu")
    bound = gelu_error(x) * U * np.abs(expected)
    within_bound(got, expected, bound + FLOOR * np.abs(np.float64(x)))


def test_geglu(card):
    x = np.concatenate([wide(7), values(8, 6, 72)], axis=1)
    got, expected = pair(card, x, "geglu", 72)
    gate, up = np.float64(x[:, :72]), np.float64(x[:, 72:])
    bound = (gelu_error(gate) + 1) * U * np.abs(expected) + FLOOR * np.abs(gate * up)
    within_bound(got, expected, bound)


def test_clamped_swiglu(card):
    x = np.concatenate([wide(9), wide(10)[::-1]], axis=1)
    got, expected = pair(card, x, "clamped_swiglu", 72, alpha=1.702, limit=7.0)
    gate = np.minimum(np.float64(x[:, :72]), 7)
    inner = np.abs(1.702 * gate)
    roundings = exp_error(inner) + 2 * np.minimum(inner, 87) + DIVISION + 5
    within_bound(got, expected, roundings * U * np.abs(expected) + FLOOR * np.abs(gate) * 8)


def test_softcap(card):
    """The error of exp counts by its fraction of the sum; then a difference with 1."""
    x, cap = wide(11), 30.0
    got, expected = unary(card, x, "softcap", cap=cap)
    inner = np.abs(2 * np.float64(x) / cap)
    fraction = np.exp(-inner) * (exp_error(inner) + (DIVISION + 1) * inner)
    within_bound(got, expected, cap * (2 * (fraction + DIVISION + 2) + 3) * U)


@pytest.mark.parametrize("width", [120, 840])
@pytest.mark.parametrize("heads", [1, 3])
def test_l2_norm(card, heads, width):
    """As `rms_norm`, without the weight and the division by the size."""
    got, expected = unary(card, values(12, 6, width), "l2_norm", eps=1e-6, heads=heads)
    roundings = (width / 64 + 8) / 2 + 4 + 2 * DIVISION
    within_bound(got, expected, roundings * U * np.abs(expected))


@pytest.mark.parametrize("width", [72, 840])
def test_layer_norm(card, width):
    """The roundings of the mean's sum shift every element."""
    x, w, b = values(13, 6, width) + 3, values(14, width), values(15, width)
    norm = op("layer_norm", [0], ["w", "b"], width, eps=1e-5)
    weights = {"x": stored(x), "w": stored(w), "b": stored(b)}
    got, expected = both(card, [embed("x", x), norm], weights, TOKENS)
    sums = width / 64 + 8
    mean = np.float64(x).mean(axis=1, keepdims=True)
    deviation = np.abs(np.float64(x) - mean)
    root = np.sqrt((deviation**2).mean(axis=1, keepdims=True) + 1e-5)
    off = (sums + DIVISION) * U * np.abs(np.float64(x)).mean(axis=1, keepdims=True)
    scaled = deviation / root * np.abs(w)
    relative = (sums / 2 + 6 + 2 * DIVISION) * U + off / root
    within_bound(
        got, expected, np.abs(w) * off / root + scaled * relative + 2 * U * np.abs(expected)
    )


def test_log_decay(card):
    """The sum in the exponent is rounded once; the series of the logarithm has 12 roundings."""
    x, rate, bias = wide(16), values(17, 72), values(18, 72)
    x[1, :2] = [-50, 50]
    plan = [embed("x", x), op("log_decay", [0], ["r", "b"], 72)]
    weights = {"x": stored(x), "r": stored(rate), "b": stored(bias)}
    got, expected = both(card, plan, weights, TOKENS)
    inner = np.minimum(np.abs(np.float64(x) + bias), 87)
    roundings = exp_error(inner) + inner + DIVISION + 14
    within_bound(got, expected, roundings * U * np.abs(expected) + FLOOR * np.abs(rate))


def test_embed_position(card):
    """Rows by position, not by token; a cache with more positions is refused."""
    x, rows = values(19, 6, 24), values(20, 9, 24)
    plan = [embed("x", x), op("embed_position", [], ["p"], 24), op("add", [0, 1], [], 24)]
    weights = {"x": stored(x), "p": stored(rows)}
    same_bits(*both(card, plan, weights, [5, 5, 0, 1]))
    with pytest.raises(ValueError, match="a cache of 10 tokens, the model has 9 positions"):
        both(card, plan, weights, [0] * 10)

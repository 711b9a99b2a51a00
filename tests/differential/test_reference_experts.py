"""Mixture of experts on the CPU executor against the oracle: routing, products, sums."""

import numpy as np
import pytest

from fewbit import _core
from fewbit.formats.table import find_format
from reference.weights import Weight
from tests.compare import same_bits, within_bound
from tests.differential.plans import U, both, embed, op, run_cpu, stored, values

FORMATS = ["F32", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q2_K", "MXFP4", "asym4-g32"]


def routed(experts, used, normalize=True, seed=1, tokens=7):
    """Return router logits [tokens, experts], and the ops that choose `used` experts from them."""
    x = values(seed, tokens, experts)
    route = op("route", [0], [], 2 * used, used=used, normalize=normalize)
    return x, [embed("logits", x), route]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("experts", "used"), [(1, 1), (4, 4), (5, 2), (40, 8), (128, 17)])
def test_route(experts, used, normalize):
    """The same experts in the same order, with weights within the rounding errors.

    The difference to the largest logit is rounded once, exp takes two roundings, the sum goes
    through 16 lanes, and the quotient is rounded once.
    """
    x, plan = routed(experts, used, normalize)
    x[0] = 0.5  # of equal logits the first ranks higher
    x[1, : experts // 2] = -x[1, : experts // 2]
    got, expected = both(plan, {"logits": stored(x)}, range(7))
    same_bits(got[:, :used], expected[:, :used])
    far = np.float64(x.max(1) - x.min(1))[:, None]
    off = (2 * np.minimum(far, 90) + experts / 16 + 12) * U
    within_bound(got[:, used:], expected[:, used:], off * expected[:, used:] + 1.01 * np.exp(-87.3))


def encoded(w, name):
    """Encode with the core, which is much faster than the oracle; other tests compare the bytes."""
    data = _core.encode(w.view(np.uint8), "F32", w.shape[1], name)
    return Weight(name, *w.shape, data.tobytes())


@pytest.mark.parametrize("acts", ["f32", "int8"])
@pytest.mark.parametrize("name", FORMATS)
def test_expert_linear(name, acts):
    """Equal bits, with one row for all experts or one for each, with a bias or without."""
    experts, used, tokens, rows = 3, 2, 5, 35
    logits, _ = routed(experts, used, tokens=tokens)
    columns = max(find_format(name).block, 64)
    up = values(3, experts * columns, columns) * 0.1
    down, bias = values(4, experts * rows, columns) * 0.1, values(5, experts, rows)
    x = values(6, tokens, columns)
    table = np.concatenate([logits, x], axis=1)
    plan = [
        embed("x", table),
        op("part", [0], [], experts, parts=1, start=0),
        op("part", [0], [], columns, parts=1, start=experts),
        op("route", [1], [], 2 * used, used=used, normalize=True),
        op("expert_linear", [2, 3], ["up"], used * columns, experts=experts),
        op("expert_linear", [4, 3], ["down", "bias"], used * rows, experts=experts),
    ]
    weights = {
        "x": stored(table), "up": encoded(up, name), "down": encoded(down, name),
        "bias": stored(bias),
    }  # fmt: skip
    for count in (1, tokens):
        same_bits(*both(plan, weights, range(count), acts=acts), f"{name} {acts} {count}")


def test_expert_linear_does_not_depend_on_the_threads():
    experts, used, tokens = 6, 3, 9
    logits, plan = routed(experts, used, tokens=tokens)
    w = values(8, experts * 50, experts) * 0.3
    plan.append(op("expert_linear", [0, 1], ["w"], used * 50, experts=experts))
    weights = {"logits": stored(logits), "w": stored(w)}
    one, many = (run_cpu(plan, weights, range(tokens), threads=threads) for threads in (1, 3))
    same_bits(many, one)


@pytest.mark.parametrize(("width", "used"), [(1, 1), (16, 2), (33, 3), (70, 8)])
def test_expert_sum(width, used):
    """Equal bits: equal logits give all experts the weight 1 / used, rounded at most once."""
    x = values(9, 4, used * width)
    table = np.concatenate([np.zeros((4, used), np.float32), x], axis=1)
    plan = [
        embed("x", table),
        op("part", [0], [], used, parts=1, start=0),
        op("part", [0], [], used * width, parts=1, start=used),
        op("route", [1], [], 2 * used, used=used, normalize=True),
        op("expert_sum", [2, 3], [], width),
    ]
    same_bits(*both(plan, {"x": stored(table)}, range(4)))

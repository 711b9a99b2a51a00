"""Ops on a card against the oracle, within bounds on the sum of their rounding errors.

Vulkan allows errors of 2.5 units in the last place for a division, 2 for an inverse square root and
3 + 2 |x| for exp(x); a unit is 2 U. Metal and DirectX allow no more.
"""

import numpy as np
import pytest

from fewbit.errors import FewbitError, InputError, UnsupportedError
from fewbit.run.gpu.ops import check_ops
from tests.compare import same_bits, within_bound
from tests.gpu.running import DIVISION, U, both, embed, op, run_gpu, stored, values


def test_add_and_take(card):
    x = values(6, 9, 24)
    plan = [embed("x", x), op("add", [0, 0], [], 24), op("take", [1], [], 24)]
    same_bits(*both(card, plan, {"x": stored(x)}, list(range(9)), outputs=[0, 4, 8]))


@pytest.mark.parametrize("width", [4, 68, 1000])
def test_rows_of_any_width(card, width):
    """Workgroups of 64 lanes; some lanes of the last one are idle."""
    x = values(7, 3, width)
    plan = [embed("x", x), op("add", [0, 0], [], width)]
    same_bits(*both(card, plan, {"x": stored(x)}, [2, 0, 1]))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("width", [120, 840])
def test_rms_norm(card, heads, width):
    """A lane sums n / 64 squares, then 6 steps add the lanes; the root halves that."""
    x, w = values(7, 4, width), values(8, width // heads)
    norm = op("rms_norm", [0], ["w"], width, eps=1e-5, heads=heads)
    weights = {"x": stored(x), "w": stored(w)}
    got, expected = both(card, [embed("x", x), norm], weights, [0, 1, 2, 3])
    roundings = (width / 64 + 8) / 2 + 4 + 2 * DIVISION + 2
    within_bound(got, expected, roundings * U * np.abs(expected))


@pytest.mark.parametrize(("width", "name"), [(44, "sym8-g16"), (840, "sym8-g16"), (768, "Q2_K")])
def test_a_norm_rounds_for_what_reads_it(card, width, name):
    """The bits are those of `round_activations`, which runs if another op comes in between."""
    x, w = values(7, 9, width), values(8, width)
    weights = {"x": stored(x), "n": stored(w), "w": stored(values(9, 12, width), name)}
    plan = [
        embed("x", x),
        op("rms_norm", [0], ["n"], width, eps=1e-5, heads=1),
        op("linear", [1], ["w"], 12),
    ]
    separate = [*plan[:2], op("scale", [1], [], width, factor=1.0), op("linear", [2], ["w"], 12)]
    for tokens in ([3], list(range(9))):
        same_bits(*(run_gpu(card, p, weights, tokens, acts="int8") for p in (plan, separate)))


def test_a_value_that_is_rounded_in_two_ways(card):
    """A norm does not round if its readers need groups of 32 and of 256 columns."""
    x, w = values(3, 9, 512), values(4, 12, 512)
    names = ("Q4_K", "Q2_K")
    weights = {"x": stored(x), "n": stored(values(5, 512)), **{n: stored(w, n) for n in names}}
    norm = op("rms_norm", [0], ["n"], 512, eps=1e-5, heads=1)
    linears = [op("linear", [1], [name], 12) for name in names]
    plan = [embed("x", x), norm, *linears, op("add", [2, 3], [], 12)]
    for tokens in ([3], list(range(9))):
        alone = [
            run_gpu(card, [*plan[:2], linear], weights, tokens, acts="int8") for linear in linears
        ]
        same_bits(run_gpu(card, plan, weights, tokens, acts="int8"), alone[0] + alone[1])


@pytest.mark.parametrize("pairing", ["neighbours", "halves"])
@pytest.mark.parametrize("pairs", [3, 8])
def test_rope(card, pairing, pairs):
    """Two products and a sum; a card may fuse them."""
    x = values(5, 12, 48)
    freqs = [0.7**i for i in range(pairs)]
    rope = op("rope", [0], [], 48, heads=3, freqs=freqs, factor=1.3, pairing=pairing)
    got, expected = both(card, [embed("x", x), rope], {"x": stored(x)}, list(range(12)))
    size = np.float64(np.abs(x)).reshape(12, 3, 16).max(axis=-1, keepdims=True)
    within_bound(
        got, expected, np.broadcast_to(2 * 1.3 * 2 * U * size, (12, 3, 16)).reshape(12, 48)
    )
    if pairs == 3:
        tail = (slice(None), slice(None), slice(6, None))
        same_bits(got.reshape(12, 3, 16)[tail], x.reshape(12, 3, 16)[tail])


def test_swiglu(card):
    x = values(9, 6, 72) * 3
    x[0, :4] = [-100, 100, 0, -0.0]
    plan = [embed("x", x), op("add", [0, 0], [], 72), op("swiglu", [1, 0], [], 72)]
    got, expected = both(card, plan, {"x": stored(x)}, list(range(6)))
    exp = 2 * (3 + 2 * np.minimum(np.abs(2 * x), 87))
    floor = 2 * np.abs(np.float64(x)) ** 2 * np.exp(-87)
    within_bound(got, expected, (exp + DIVISION + 3) * U * np.abs(expected) + 1.01 * floor)


def test_a_residual_sum_joins_the_product(card):
    """`linear` and a following `add` are one stage, with the bits of two stages."""
    x, w = values(1, 6, 64), values(2, 64, 64) * 0.1
    weights = {"x": stored(x), "w": stored(w)}
    product = [embed("x", x), op("linear", [0], ["w"], 64)]
    for tokens in ([0], list(range(6))):
        y = run_gpu(card, product, weights, tokens)
        got = run_gpu(card, [*product, op("add", [0, 1], [], 64)], weights, tokens)
        same_bits(got, x[tokens] + y)


def test_unknown_ops_are_refused_by_name(card):
    x = values(1, 2, 8)
    plan = [embed("x", x), op("convolve", [0], [], 8)]
    with pytest.raises(UnsupportedError, match="op 1: the GPU executor has no `convolve`"):
        run_gpu(card, plan, {"x": stored(x)}, [0])


def test_heads_that_no_workgroup_holds_are_refused(card):
    """Before a tensor is uploaded."""
    kind = {"layer": 0, "heads": 1, "kv_heads": 1, "scale": 1.0, "window": 0}
    for size in (6, 1028):
        plan = [embed("x", values(1, 1, size)), op("attend", [0, 0, 0], [], size, **kind)]
        with pytest.raises(UnsupportedError, match=f"no `attend` with heads of {size} columns"):
            check_ops(plan)


def test_rows_after_take_are_no_tokens(card):
    x = values(1, 2, 8)
    rope = op("rope", [1], [], 8, heads=1, freqs=[0.5], factor=1.0, pairing="halves")
    plan = [embed("x", x), op("take", [0], [], 8), rope]
    with pytest.raises(InputError, match=r"op 2 \(rope\) comes after `take`"):
        run_gpu(card, plan, {"x": stored(x)}, [0])


@pytest.mark.parametrize(
    ("tokens", "outputs", "message"),
    [
        ([0, 5], [0], "token 5 is not in the vocabulary of 2"),
        ([0, 1], [1, 0], "`outputs` must be ascending indices below 2"),
        ([0, 1], [2], "`outputs` must be ascending indices below 2"),
    ],
)
def test_wrong_calls(card, tokens, outputs, message):
    x = values(1, 2, 8)
    with pytest.raises(FewbitError, match=message):
        run_gpu(card, [embed("x", x)], {"x": stored(x)}, tokens, outputs)

"""Ops of a plan on the CPU executor against the oracle: equal bits, or a derived error bound."""

import numpy as np
import pytest

from fewbit import _core
from fewbit.errors import InputError
from fewbit.formats.table import FORMATS as TABLE
from fewbit.formats.table import find_format
from reference import linear, ops
from reference.weights import Weight
from tests.compare import same_bits, within_bound
from tests.differential.plans import CAPACITY, U, both, embed, op, run_cpu, stored, values

FORMATS = [
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *(f"{kind}{bits}-g32" for kind in ("sym", "asym") for bits in range(1, 9)),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4", "NVFP4"),
    *("Q1_0", "Q2_0", "TQ1_0", "TQ2_0"),
    *("sym4-g16", "asym3-g64", "asym4-g20", "sym8-g256", "asym2-g5"),
]


@pytest.mark.parametrize("acts", ["f32", "int8"])
@pytest.mark.parametrize("name", FORMATS)
def test_linear(name, acts):
    """Equal bits for row counts around 16, a short last group of 32, and 1 to 5 tokens."""
    for rows, columns, tokens in ((17, 256, 5), (5, 96, 1), (33, 40, 3)):
        block = find_format(name).block if "-g" not in name else 1
        columns = -(-columns // block) * block
        x, w = values(rows, tokens, columns), values(rows + 1, rows, columns) * 0.1
        bias = values(rows + 2, rows)
        weights = {"x": stored(x), "w": stored(w, name), "b": stored(bias)}
        plan = [embed("x", x), op("linear", [0], ["w", "b"], rows)]
        same_bits(*both(plan, weights, list(range(tokens)), acts=acts), f"{name} {acts}")


@pytest.mark.parametrize("acts", ["f32", "int8"])
@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith("IQ")])
def test_linear_of_code_books(name, acts):
    """Equal bits for the formats that are encoded with importance."""
    x, w = values(1, 3, 512), values(2, 17, 512)
    importance = np.ones(512, np.float32)
    data = _core.encode(w.view(np.uint8), "F32", 512, name, importance)
    weights = {"x": stored(x), "w": Weight(name, 17, 512, data.tobytes())}
    plan = [embed("x", x), op("linear", [0], ["w"], 17)]
    same_bits(*both(plan, weights, [0, 1, 2], acts=acts), f"{name} {acts}")


def test_activations_that_are_rounded_in_two_ways():
    """Equal bits where products of one value round it by 32 columns, by 256, and not at all."""
    x, w = values(3, 19, 512), values(4, 20, 512)
    names = ("Q4_K", "Q2_K", "F32", "Q3_K", "Q8_0")
    weights = {"x": stored(x), **{name: stored(w, name) for name in names}}
    plan = [embed("x", x), *(op("linear", [0], [name], 20) for name in names)]
    for other in range(2, 6):
        plan.append(op("add", [len(plan) - 1 if other > 2 else 1, other], [], 20))
    for tokens in ([0], list(range(19))):
        same_bits(*both(plan, weights, tokens, acts="int8"))


def test_linear_is_near_its_value():
    """The error is at most one rounding per column."""
    x, w = values(1, 3, 200), values(2, 20, 200)
    weights = {"x": stored(x), "w": stored(w)}
    plan = [embed("x", x), op("linear", [0], ["w"], 20)]
    got = run_cpu(plan, weights, [0, 1, 2])
    exact = [linear.product_f64(row.tolist(), weights["w"]) for row in x]
    size = [linear.magnitude(row.tolist(), weights["w"]) for row in x]
    within_bound(got, exact, 201 * U * np.array(size))


@pytest.mark.parametrize("pairing", ["neighbours", "halves"])
@pytest.mark.parametrize("pairs", [3, 8])
def test_rope(pairing, pairs):
    """Equal bits at positions 0 to 11; columns past the last pair stay."""
    x = values(5, 12, 48)
    freqs = [0.7**i for i in range(pairs)]
    rope = op("rope", [0], [], 48, heads=3, freqs=freqs, factor=1.3, pairing=pairing)
    same_bits(*both([embed("x", x), rope], {"x": stored(x)}, list(range(12))))


@pytest.mark.parametrize("width", [1, 16, 21])
def test_add(width):
    x = values(6, 9, width)
    same_bits(*both([embed("x", x), op("add", [0, 0], [], width)], {"x": stored(x)}, range(9)))


@pytest.mark.parametrize("outputs", [[0, 4, 8], [8], [0], []])
def test_take(outputs):
    x = values(6, 9, 21)
    plan = [embed("x", x), op("take", [0], [], 21), op("add", [1, 1], [], 21)]
    got, expected = both(plan, {"x": stored(x)}, range(9), outputs=outputs)
    same_bits(got, expected.reshape(-1, 21))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K", "MXFP4"])
def test_embed(name):
    """Equal bits for rows in any order and repeated rows."""
    plan, weights = [op("embed", [], ["x"], 256)], {"x": stored(values(13, 20, 256), name)}
    same_bits(*both(plan, weights, [19, 0, 3, 3, 16]))


def test_embed_position():
    """Row `position` whatever the token; a cache cannot exceed the table."""
    x, table = values(14, 5, 24), values(15, CAPACITY, 24)
    weights = {"x": stored(x), "p": stored(table)}
    plan = [embed("x", x), op("embed_position", [], ["p"], 24), op("add", [0, 1], [], 24)]
    same_bits(*both(plan, weights, [4, 0, 2, 2, 1, 0]))
    with pytest.raises(InputError, match="the model has 12 positions"):
        run_cpu(plan, weights | {"p": stored(table[:12])}, [0])


@pytest.mark.parametrize("original", [10, CAPACITY - 1, CAPACITY])
def test_long_rope(original):
    """The long frequencies apply from a capacity of `original` + 1 tokens."""
    x = values(16, 12, 48)
    short, long = [0.7**i for i in range(6)], [0.1 * 0.5**i for i in range(6)]
    rope = op(
        "long_rope", [0], [], 48, heads=3, short=short, long=long, original=original, factor=1.1,
        pairing="halves",
    )  # fmt: skip
    same_bits(*both([embed("x", x), rope], {"x": stored(x)}, range(12)))


@pytest.mark.parametrize(
    ("parts", "start", "width"), [(1, 0, 48), (3, 5, 9), (4, 11, 4), (2, 0, 40)]
)
def test_part(parts, start, width):
    x = values(17, 4, 48)
    part = op("part", [0], [], width, parts=parts, start=start)
    same_bits(*both([embed("x", x), part], {"x": stored(x)}, range(4)))


@pytest.mark.parametrize("heads", [1, 3])
def test_rms_norm(heads):
    """The sum goes through 16 lanes: n/16 + 5 roundings, halved by the root; then four more."""
    x, w = values(7, 4, 120), values(8, 120 // heads)
    norm = op("rms_norm", [0], ["w"], 120, eps=1e-5, heads=heads)
    got, expected = both([embed("x", x), norm], {"x": stored(x), "w": stored(w)}, [0, 1, 2, 3])
    within_bound(got, expected, ((120 / 16 + 5) / 2 + 5) * U * np.abs(expected))


def test_swiglu():
    """Roundings: exp 2, a sum, a quotient, a product, the oracle's own.

    exp limits its argument to -87.3..88, so a sigmoid is never below e^-88.
    """
    x = values(9, 6, 70) * 3
    x[0, :4] = [-100, 100, 0, -0.0]
    plan = [embed("x", x), op("add", [0, 0], [], 70), op("swiglu", [1, 0], [], 70)]
    got, expected = both(plan, {"x": stored(x)}, list(range(6)))
    floor = 2 * np.abs(x) ** 2 * np.exp(-88)
    within_bound(got, expected, 7 * U * np.abs(expected) + 1.01 * floor)


@pytest.mark.parametrize("sunk", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize("window", [0, 1, 5])
def test_attend(window, sunk):
    """The error stays within the roundings of scores, probabilities and sums."""
    heads, kv_heads, size, n, scale = 4, 2, 12, 20, 0.3
    q, k, v = values(10, n, heads * size), values(11, n, kv_heads * size), values(12, n, 24)
    table = np.concatenate([q / 5, k / 5, v], axis=1)
    weights = {"x": stored(table)}
    plan, at = [embed("x", table)], 0
    for name, columns in (("q", q), ("k", k), ("v", v)):  # slices, as products with unit rows
        width = columns.shape[1]
        pick = np.eye(width, table.shape[1], at, dtype=np.float32)
        weights[name] = stored(pick)
        plan.append(op("linear", [0], [name], width))
        at += width
    attributes = {"heads": heads, "kv_heads": kv_heads, "scale": scale, "window": window}
    sinks = np.float32([0, -5, 40, 2]) if sunk else None
    if sunk:
        weights["sinks"] = stored(sinks)
    names = ["sinks"] if sunk else []
    plan.append(op("attend", [1, 2, 3], names, heads * size, layer=0, **attributes))
    got, expected = both(plan, weights, list(range(n)))
    bounds = [
        attend_bound(q[i] / 5, k[: i + 1] / 5, v[: i + 1], sinks, attributes) for i in range(n)
    ]
    within_bound(got, expected, np.array(bounds))


def attend_bound(q, keys, vals, sinks, attributes) -> list[float]:
    """Return the error bound (2 score + n + 6) U * sum p |v|; a sink is one more score, exact.

    A score is off by (size + 1) U sum |q k| scale. Subtracting the largest and taking exp adds 3 U,
    relative, and U of the difference, which a sink widens. These errors enter the numerator and the
    denominator; each adds up n products.
    """
    size = len(q) // attributes["heads"]
    score = (
        (size + 1)
        * attributes["scale"]
        * max(
            float(np.abs(q[a : a + size]) @ np.abs(key[b : b + size]))
            for key in keys
            for a in range(0, len(q), size)
            for b in range(0, keys.shape[1], size)
        )
    )
    score += 0 if sinks is None else float(np.abs(sinks).max())
    sunk = None if sinks is None else sinks.tolist()
    near = ops.attend(q.tolist(), keys.tolist(), np.abs(vals).tolist(), sunk, **attributes)
    return [2 * (2 * score + len(keys) + 6) * U * y for y in near]

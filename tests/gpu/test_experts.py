"""Mixture of experts on a card against the oracle: routing, products, and the weighted sum."""

import numpy as np
import pytest

from fewbit.errors import InputError, ShapeError
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.executor import Executor
from reference import experts
from tests.compare import same_bits, within_bound
from tests.gpu.running import (
    DIVISION,
    U,
    both,
    embed,
    linear_bound,
    op,
    rounded_bound,
    run_gpu,
    stored,
    table,
    upload,
    values,
)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("count", "used"), [(8, 2), (150, 10), (4, 4)])
def test_route(card, count, used, normalize):
    """The chosen experts are equal; the weights are within the error of a softmax."""
    x = values(1, 5, count)
    x[1, : count // 2] = x[1, 0]  # of equal logits the first counts
    plan = [
        embed("x", x),
        op("part", [0], [], count, parts=1, start=0),
        op("route", [1], [], 2 * used, used=used, normalize=normalize),
    ]
    got, expected = both(card, plan, {"x": table(x)}, range(5))
    same_bits(got[:, :used], expected[:, :used])
    chosen = np.take_along_axis(x, np.int64(expected[:, :used]), axis=1)
    distance = np.minimum(x.max(axis=1, keepdims=True) - chosen, 87)
    most = 2 * (3 + 2 * distance.max() + distance.max()) if normalize else 2 * (3 + 3 * 87)
    roundings = 2 * (3 + 3 * distance) + most + count / 64 + 8 + DIVISION + 1
    within_bound(
        got[:, used:], expected[:, used:], roundings * U * expected[:, used:] + 2 * np.exp(-87)
    )


def routed(
    count: int, used: int, tokens: int, logits: np.ndarray | None = None
) -> tuple[list[dict], dict, np.ndarray, np.ndarray]:
    """A table of inputs of 64 columns and router logits, which are values 1 and 2 of the plan."""
    logits = values(3, tokens, count) if logits is None else np.float32(logits)
    x = np.concatenate([values(2, tokens, 64), logits], axis=1)
    plan = [
        embed("x", x),
        op("part", [0], [], 64, parts=1, start=0),
        op("part", [0], [], count, parts=1, start=64),
        op("route", [2], [], 2 * used, used=used, normalize=True),
    ]
    chosen = [experts.route(row[64:].tolist(), used=used, normalize=True) for row in x]
    return plan, {"x": table(x)}, x[:, :64], np.int64(chosen)[:, :used]


@pytest.mark.parametrize("name", ["F32", "BF16", "Q8_0", "Q4_0", "MXFP4", "sym4-g16", "asym4-g32"])
@pytest.mark.parametrize("acts", ["f64", "int8"])
@pytest.mark.parametrize("small", [False, True], ids=["", "cut"])
@pytest.mark.parametrize("tokens", [3, 7])
def test_expert_linear(card, adapter, name, acts, small, tokens):
    """One row of x for all experts, with biases; `small`: the matrices are split into slices."""
    if small:
        card = Device(adapter, max_binding=4096)
    check(card, name, acts, routed(8, 3, tokens), 22)


def check(card, name, acts, routing, width):
    """Compare the products of each token with its experts' matrices."""
    plan, weights, x, chosen = routing
    (tokens, used), count = chosen.shape, plan[2]["width"]
    w, bias = stored(values(4, count * width, 64) * 0.1, name), values(5, count, width)
    weights |= {"w": w, "b": stored(bias)}
    plan = [*plan, op("expert_linear", [1, 3], ["w", "b"], used * width, experts=count)]
    got, expected = both(card, plan, weights, range(tokens), acts=acts)
    bound = rounded_bound(x, w) if acts == "int8" else 2 * linear_bound(x, w)
    bound = bound.reshape(tokens, count, width)
    own = np.take_along_axis(bound, chosen[:, :, None], axis=1).reshape(tokens, -1)
    within_bound(got, expected, own + 2 * U * np.abs(expected), name)


@pytest.mark.parametrize("acts", ["f64", "int8"])
@pytest.mark.parametrize("kind", ["same", "two", "uneven"])
def test_tokens_by_expert(card, acts, kind):
    """All tokens use two experts (more than a tile each); or one of two; or one expert has most."""
    tokens, count = 70, 6
    logits = values(6, tokens, count)
    if kind == "same":
        logits[:] = np.arange(count)
    if kind == "two":
        logits[:, :4] -= 10_000
    if kind == "uneven":
        logits[:, 2] += 10_000
    used = 1 if kind == "two" else 2
    routing = routed(count, used, tokens, logits)
    counts = np.bincount(routing[3].reshape(-1), minlength=count)
    assert {"same": (70, 4), "two": (0, 4), "uneven": (70, 0)}[kind] == (
        counts[{"same": 5, "two": 0, "uneven": 2}[kind]], (counts == 0).sum()
    )  # fmt: skip
    check(card, "Q5_1", acts, routing, 72)


@pytest.mark.parametrize("acts", ["f64", "int8"])
def test_experts_after_take(card, acts):
    """Of 300 tokens 11 are outputs: the others have no rows in any tile."""
    plan, weights, x, _ = routed(6, 2, 300)
    w = stored(values(7, 6 * 24, 64) * 0.1, "Q8_0")
    plan = [plan[0], op("take", [0], [], plan[0]["width"]), *shifted(plan[1:])]
    plan.append(op("expert_linear", [2, 4], ["w"], 2 * 24, experts=6))
    wanted = list(range(0, 33, 3))
    got, expected = both(card, plan, weights | {"w": w}, range(300), outputs=wanted, acts=acts)
    chosen = np.int64(run_gpu(card, plan[:-1], weights, range(300), outputs=wanted))[:, :2]
    bound = rounded_bound(x, w) if acts == "int8" else 2 * linear_bound(x, w)
    bound = bound[wanted].reshape(len(wanted), 6, 24)
    own = np.take_along_axis(bound, chosen[:, :, None], axis=1).reshape(len(wanted), -1)
    within_bound(got, expected, own + 2 * U * np.abs(expected))


def shifted(plan):
    """The ops with their inputs shifted by one."""
    return [step | {"inputs": [i + 1 for i in step["inputs"]]} for step in plan]


def test_an_experts_rows_in_any_order(card):
    """The order of tokens in a tile varies from run to run; the bits do not."""
    plan, weights, _, _ = routed(6, 2, 70)
    weights["w"] = stored(values(7, 6 * 16, 64), "Q4_0")
    plan = [*plan, op("expert_linear", [1, 3], ["w"], 2 * 16, experts=6)]
    runs = [run_gpu(card, plan, weights, range(70), acts="int8") for _ in range(3)]
    same_bits(runs[1], runs[0])
    same_bits(runs[2], runs[0])


def test_a_step_after_a_longer_one(card):
    """Tiles that a longer step has left in the buffer are ignored."""
    plan, weights, _, _ = routed(6, 2, 300)
    weights["w"] = stored(values(7, 6 * 72, 64), "Q4_0")
    plan = [*plan, op("expert_linear", [1, 3], ["w"], 2 * 72, experts=6)]
    executor = Executor(plan, upload(card, weights, plan))
    found = []
    for tokens in (9, 300, 9):
        cache, ids = executor.cache(1, tokens), np.arange(tokens, dtype=np.uint32)
        found.append(
            executor.forward(cache, 299 - ids if tokens == 9 else ids, 0 * ids, ids, "f32")
        )
    same_bits(found[1][:-10:-1], found[0])
    same_bits(found[2], found[0])


@pytest.mark.parametrize("acts", ["f64", "int8"])
@pytest.mark.parametrize("tokens", [3, 9])
@pytest.mark.parametrize("size", [40, 64])
def test_expert_linear_of_each_experts_row(card, acts, tokens, size):
    """Each expert has its own row of x; activations are rounded in groups from its first column.

    Rows of 64 columns are multiples of 32, so they use integer products.
    """
    count, used, width = 6, 2, 20
    plan, weights, x, _ = routed(count, used, tokens)
    first = stored(np.concatenate([np.eye(size, 64, 3 * e) for e in range(count)]))
    w = stored(values(6, count * width, size) * 0.1, "sym4-g20" if acts == "f64" else "sym8-g32")
    weights |= {"e": first, "w": w}
    plan = [
        *plan,
        op("expert_linear", [1, 3], ["e"], used * size, experts=count),
        op("expert_linear", [4, 3], ["w"], used * width, experts=count),
    ]
    got, expected = both(card, plan, weights, range(tokens), acts=acts)
    sizes = np.abs(x).sum(axis=1, keepdims=True) * np.abs(np.array(w.values)).max()
    within_bound(got, expected, 2 * (size + 24) * U * sizes)


def test_expert_sum(card):
    """One product and one sum per expert."""
    count, used, tokens = 6, 3, 5
    plan, weights, _, _ = routed(count, used, tokens)
    w = values(7, count * 16, 64)
    weights["w"] = stored(w)
    plan = [*plan, op("expert_linear", [1, 3], ["w"], used * 16, experts=count)]
    each = run_gpu(card, plan, weights, range(tokens))
    route_rows = run_gpu(card, plan[:4], weights, range(tokens))
    got = run_gpu(card, [*plan, op("expert_sum", [4, 3], [], 16)], weights, range(tokens))
    rows = list(zip(each.tolist(), route_rows.tolist(), strict=True))
    expected = np.float32([experts.expert_sum(x, r) for x, r in rows])
    size = [experts.expert_sum(np.abs(x), np.abs(r)) for x, r in rows]
    within_bound(got, expected, 2 * used * U * np.array(size))


def test_refusals(card):
    plan, weights, _, _ = routed(6, 2, 3)
    weights["w"] = stored(values(7, 6 * 16, 64))
    kind = op("expert_linear", [1, 3], ["w"], 2 * 12, experts=6)
    with pytest.raises(ShapeError, match=r"op 4 \(expert_linear\): `w` is \[96, 64\], .* \[72, 6"):
        run_gpu(card, [*plan, kind], weights, [0])
    with pytest.raises(InputError, match="takes its experts from an op other than `route`"):
        run_gpu(card, [*plan, kind | {"inputs": [1, 2]}], weights, [0])

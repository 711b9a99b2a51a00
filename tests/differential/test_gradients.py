"""The backward pass of the Rust core against the oracle, on models of all families."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from fewbit import _core
from reference import run
from reference.backward import backward
from reference.gradients import linear_weight
from reference.weights import Weight
from tests.compare import same_bits, within_bound
from tests.golden.loading import NAMES, Golden, load
from tests.golden.test_models import packed
from tests.reference.test_gradients import OPS

TOKENS = 9
"""Tokens of a window: more than the sliding windows of these models have."""
NOISE = {False: 3e-5, True: 5e-4}
"""Relative to the largest gradient of an array, without and with a delta rule: three times what
float32 moves these models' logits by, 1e-4 of about 10 (`tests/golden/loading.py`). A delta rule
divides short keys and queries by their lengths, which multiplies their noise."""


def noise(g: Golden) -> float:
    return NOISE[any(op["op"] == "delta_rule" for op in g.plan)]


def differentiator(g: Golden, threads: int = 2, **options: Any) -> _core.Differentiator:
    plan = json.dumps(g.plan)
    return _core.Differentiator(plan, packed(g, g.weights), threads=threads, **options)


def windows(g: Golden) -> tuple[list[list[int]], np.ndarray, list[int]]:
    """Two windows of different lengths: their ids, all ids, the lengths."""
    both = [g.ids[:TOKENS], g.ids[3 : TOKENS - 1]]
    return both, np.uint32([*both[0], *both[1]]), list(map(len, both))


def expected(g: Golden, labels: np.ndarray) -> list[tuple[list[Any], list[Any], dict[str, Any]]]:
    """For each window the oracle's values, gradients of values and of vectors."""
    _, tokens, lengths = windows(g)
    return expected_of(g, tokens, lengths, labels)


def expected_of(
    g: Golden, tokens: np.ndarray, lengths: list[int], labels: np.ndarray
) -> list[tuple[list[Any], list[Any], dict[str, Any]]]:
    found, start, capacity = [], 0, max(lengths)
    for length in lengths:
        ids, own = tokens[start : start + length].tolist(), labels[start : start + length]
        start += length
        trace: list[Any] = []
        logits = run.forward(g.plan, g.weights, ids, trace=trace, cache=run.Cache(capacity))
        p = softmax(np.float64(logits))
        p[np.arange(length), own] -= 1.0
        found.append((trace, *backward(g.plan, g.weights, trace, p.tolist(), capacity=capacity)))
    return found


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def products(g: Golden) -> dict[str, int]:
    """The ops that are products of layers, by the name of their weight."""
    kinds, output = ("linear", "expert_linear"), [op["op"] for op in g.plan].index("take")
    return {op["weights"][0]: i for i, op in enumerate(g.plan[:output]) if op["op"] in kinds}


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    """Of the embedding's output, of norms and biases, and the covariances of all products."""
    g = load(name)
    _, tokens, lengths = windows(g)
    core = differentiator(g)
    made = core.forward(tokens, lengths)
    vectors = {n for op in g.plan for n in op["weights"] if g.weights[n].rows == 1}
    table = g.plan[0]["weights"][0]
    covariances = _core.OutputCovariances(set(products(g)), {table}, 16, 8)
    sums = _core.ScaleGradients({}, vectors)
    uniforms = np.random.default_rng(5).random(len(tokens))
    labels = core.sampled_loss(made, uniforms, sums)
    second = core.forward(tokens, lengths)
    same_bits(core.sampled_loss(second, uniforms), labels)
    while core.back(made, sums) is not None:
        pass
    while core.back(second, covariances) is not None:
        pass
    oracle = expected(g, labels)
    check_vectors(sums.vectors(), oracle, noise(g))
    check_covariances(g, covariances.take(), oracle)


def check_vectors(found: dict[str, np.ndarray], oracle: list[Any], noise: float) -> None:
    assert found.keys() == oracle[0][2].keys()
    for name, gradient in found.items():
        both = np.sum([vectors[name] for _, _, vectors in oracle], axis=0)
        within_bound(gradient, both, noise * np.abs(both).max() + 1e-7, name)


def check_covariances(g: Golden, found: dict[str, Any], oracle: list[Any]) -> None:
    """The blocks of the sum of g g^T over all tokens, for experts over those that met each."""
    wanted = {**products(g), g.plan[0]["weights"][0]: 0}
    assert found.keys() == wanted.keys()
    for name, index in wanted.items():
        sums, counts = found[name]
        rows, (_, blocks, block, _) = gradient_rows(g, index, oracle), sums.shape
        width = blocks * block
        assert block == width <= 16 or block <= 8
        for matrix, (own, count) in enumerate(zip(sums, counts, strict=True)):
            both = np.array(rows[matrix]).reshape(-1, width)
            assert count == len(both)
            pieces = [both[:, i : i + block] for i in range(0, width, block)]
            squares = np.array([piece.T @ piece for piece in pieces])
            within_bound(own, squares, 4 * noise(g) * (np.abs(squares).max() + 1e-7), name)


def gradient_rows(g: Golden, index: int, oracle: list[Any]) -> dict[int, list[list[float]]]:
    """The output gradients of an op, by matrix."""
    op, rows = g.plan[index], defaultdict(list)
    for trace, gradients, _ in oracle:
        for token, row in enumerate(gradients[index]):
            if op["op"] != "expert_linear":
                rows[0].append(row)
                continue
            route = trace[op["inputs"][1]][token]
            used = len(route) // 2
            for slot, expert in enumerate(route[:used]):
                size = len(row) // used
                rows[int(expert)].append(row[slot * size : (slot + 1) * size])
    return rows


@pytest.mark.parametrize(("name", "attributes", "inputs", "width", "shapes"), OPS)
def test_gradient_of_one_op(
    name: str, attributes: dict[str, Any], inputs: list[int], width: int,
    shapes: list[tuple[int, int]],
) -> None:  # fmt: skip
    """A layer with the op between products: its variants, and values beyond every limit."""
    if name == "route":
        pytest.skip("its result is indices and weights of experts: tests of models have them")
    g = one_op(name, attributes, inputs, width, shapes)
    tokens, lengths = np.uint32([3, 1, 4, 1, 5, 2, 0]), [4, 3]
    core = differentiator(g)
    made = core.forward(tokens, lengths)
    labels = core.sampled_loss(made, np.random.default_rng(5).random(7))
    core.back(made)
    rows = np.concatenate([found[0] for _, found, _ in expected_of(g, tokens, lengths, labels)])
    within_bound(made.gradient, rows, 1e-5 * np.abs(rows).max(), name)


def one_op(
    name: str, attributes: dict[str, Any], inputs: list[int], width: int,
    shapes: list[tuple[int, int]],
) -> Golden:  # fmt: skip
    """A model of width 5 and 6 tokens: op of products, product, sum, output layer."""
    rng = np.random.default_rng(7)

    def matrix(rows: int, columns: int) -> Weight:
        return Weight.of(rng.uniform(-1.5, 1.5, (rows, columns)).astype(np.float32).tolist())

    weights = {"token_embd.weight": matrix(6, 5), "blk.0.out": matrix(5, width)}
    plan = [op("embed", [], ["token_embd.weight"], 5)]
    for i, columns in enumerate(inputs):
        weights[f"blk.0.in{i}"] = matrix(columns, 5)
        plan.append(op("linear", [0], [f"blk.0.in{i}"], columns))
    weights |= {f"blk.0.w{i}": matrix(*shape) for i, shape in enumerate(shapes)}
    values = list(range(1, len(inputs) + 1))
    names = [f"blk.0.w{i}" for i in range(len(shapes))]
    if name == "take":
        plan.append(op("scale", values, [], width, factor=1.0))
    else:
        plan.append(op(name, values, names, width, **attributes))
    plan.append(op("linear", [len(plan) - 1], ["blk.0.out"], 5))
    plan.append(op("add", [0, len(plan) - 1], [], 5))
    plan.append(op("take", [len(plan) - 1], [], 5))
    plan.append(op("linear", [len(plan) - 1], ["token_embd.weight"], 6))
    return Golden(load("qwen2").config, plan, weights, [], np.zeros(0), [])


def op(
    kind: str, inputs: list[int], weights: list[str], width: int, **attributes: Any
) -> dict[str, Any]:
    return {"op": kind, "inputs": inputs, "weights": weights, "width": width, **attributes}


@pytest.mark.parametrize("name", ["qwen2", "qwen3_moe", "qwen3_next", "gpt_oss"])
def test_threads_change_no_bit(name: str) -> None:
    g = load(name)
    _, tokens, lengths = windows(g)
    found = []
    for threads in (1, 2, 5):
        core = differentiator(g, threads)
        made = core.forward(tokens, lengths)
        sums = _core.OutputCovariances(set(products(g)), set())
        core.sampled_loss(made, np.random.default_rng(5).random(len(tokens)))
        for _ in range(len(core.products) - 2):
            core.back(made, sums)
        found.append((made.gradient, {name: s for name, (s, _) in sums.take().items()}))
    for gradient, sums in found[1:]:
        same_bits(gradient, found[0][0])
        for name, values in sums.items():
            same_bits(values, found[0][1][name])


@pytest.mark.parametrize(
    ("name", "format_"), [("qwen3", "Q8_0"), ("qwen3", "Q4_1"), ("qwen3_moe", "Q4_1")]
)
def test_gradients_of_scales(name: str, format_: str) -> None:
    """dL/dd is the block's sum of dL/dV A, with A what the block decodes to if d is 1."""
    g = load(name)
    columns = {op["weights"][0]: g.weights[op["weights"][0]].columns for op in g.plan
               if op["op"] in ("linear", "expert_linear", "embed")}  # fmt: skip
    names = [name for name, count in columns.items() if count % 32 == 0]
    assert g.plan[0]["weights"][0] in names
    assert len(names) > 5
    weights, scaled = dict(g.weights), {}
    for name in names:
        w = g.weights[name]
        data = _core.encode(
            np.frombuffer(w.data, np.uint8).reshape(w.rows, -1), "F32", w.columns, format_
        )
        weights[name] = Weight(format_, w.rows, w.columns, data.tobytes())
        scaled[name] = _core.ScaledTensor(
            data, format_, w.columns, 0, 2 if format_ == "Q4_1" else None
        )
    quantized = Golden(g.config, g.plan, weights, g.ids, g.logits, g.greedy)
    _, tokens, lengths = windows(g)
    core = _core.Differentiator(json.dumps(g.plan), packed(g, g.weights), scaled)
    made, sums = core.forward(tokens, lengths), _core.ScaleGradients(scaled, set())
    labels = core.sampled_loss(made, np.random.default_rng(5).random(len(tokens)), sums)
    while core.back(made, sums) is not None:
        pass
    oracle = expected(quantized, labels)
    for name, (d, m) in sums.tensors().items():
        gradient = weight_gradient(quantized, name, oracle)
        tensor = scaled[name]
        for which, found in enumerate((d, m)):
            if found.size:
                other = [np.zeros(s.size, np.float32) for s in (tensor.d, tensor.m)]
                other[which][:] = 1.0
                factors = decoded(tensor, other, format_, columns[name])
                blocks = (gradient * factors).reshape(found.size, -1).sum(axis=1)
                within_bound(found, blocks, noise(g) * np.abs(blocks).max(), name)


def decoded(
    tensor: _core.ScaledTensor, scales: list[np.ndarray], format_: str, columns: int
) -> np.ndarray:
    """The values with other scales."""
    old = tensor.d.reshape(-1), tensor.m.reshape(-1)
    tensor.set(*scales)
    data = tensor.data()
    tensor.set(*old)
    return _core.decode(data, format_, columns).astype(np.float64)


def weight_gradient(g: Golden, name: str, oracle: list[Any]) -> np.ndarray:
    """The gradient of a matrix: of its products, and of the rows that it gave."""
    total = np.zeros((g.weights[name].rows, g.weights[name].columns))
    both, _, _ = windows(g)
    for ids, (trace, gradients, _) in zip(both, oracle, strict=True):
        for index, op in enumerate(g.plan):
            if op["weights"][:1] != [name]:
                continue
            if op["op"] == "embed":
                np.add.at(total, ids, np.array(gradients[index]))
            elif op["op"] == "expert_linear":
                total += experts_gradient(op, gradients[index], trace, total.shape)
            else:
                total += linear_weight(gradients[index], trace[op["inputs"][0]])
    return total


def experts_gradient(
    op: dict[str, Any], g: list[list[float]], trace: list[Any], shape: tuple[int, ...]
) -> np.ndarray:
    """The gradient of the matrices of all experts, one below the other."""
    total = np.zeros((op["experts"], shape[0] // op["experts"], shape[1]))
    for own, x, route in zip(g, *(trace[value] for value in op["inputs"]), strict=True):
        used = len(route) // 2
        rows = np.broadcast_to(np.reshape(x, (-1, shape[1])), (used, shape[1]))
        for expert, a, b in zip(route[:used], np.reshape(own, (used, -1)), rows, strict=True):
            total[int(expert)] += np.outer(a, b)
    return total.reshape(shape)


def test_divergence_is_that_of_the_logits() -> None:
    """The KL divergence of each row is that of `divergence`; of a model to itself it is 0."""
    g = load("qwen2")
    _, tokens, lengths = windows(g)
    base = differentiator(g)
    weights = {**g.weights, "output_norm.weight": Weight.of([[1.25] * g.config.width])}
    other = _core.Differentiator(json.dumps(g.plan), packed(g, weights))
    passes = [model.forward(tokens, lengths) for model in (base, other, base)]
    logits = [model.logits(made) for model, made in zip((base, other), passes, strict=False)]
    expected = _core.divergence(*logits, tokens)["kld"]
    found = other.divergence(passes[1], base, passes[2])
    within_bound(found, expected, 1e-9 + 1e-6 * expected)
    assert expected.min() > 1e-4
    same = base.divergence(base.forward(tokens, lengths), base, passes[2])
    same_bits(same, np.zeros(len(tokens)))

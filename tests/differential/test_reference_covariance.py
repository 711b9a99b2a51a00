"""Covariances that the executor collects against the oracle, bit by bit."""

import json

import numpy as np
import pytest

from fewbit._core import Executor, Weights
from fewbit.improve.tensors import output_error
from reference import covariance
from tests.compare import same_bits, within_bound
from tests.differential.plans import embed, op, values


def collected(table, windows, skip, threads):
    """The collector of a product with the rows of `table` as its input, window by window."""
    columns = table.shape[1]
    plan = [embed("x", table), op("linear", [0], ["w"], 3)]
    held = Weights()
    held.add("x", "F32", *table.shape, np.ascontiguousarray(table).view(np.uint8))
    held.add("w", "F32", 3, columns, np.zeros((3, 4 * columns), np.uint8))
    executor = Executor(json.dumps(plan), held, threads)
    collector = executor.collector({"w"}, True, skip)
    cache = executor.cache(1, len(table))
    for window in windows:
        cache.reset()
        executor.collect(cache, np.uint32(window), collector)
    return collector


@pytest.mark.parametrize("columns", [1, 16, 65])
@pytest.mark.parametrize("skip", [0, 1])
def test_covariances(columns, skip):
    table = values(columns, 75, columns)
    windows = [range(70), range(70, 75), range(40, 75)]
    expected = [[0.0] * columns for _ in range(columns)]
    for window in windows:
        covariance.add_products(expected, [table[i].tolist() for i in list(window)[skip:]])
    for threads in (1, 3):
        found = collected(table, windows, skip, threads)
        same_bits(found.covariance("w"), np.float64(expected), f"{threads} threads")
        [(names, squares, counts)] = found.sums()
        assert names == ["w"]
        same_bits(squares, np.diagonal(expected)[None].astype(np.float64))
        assert counts.tolist() == [110 - skip * len(windows)]


def test_the_executor_collects_no_covariance_unless_asked():
    table = values(1, 4, 8)
    held = Weights()
    held.add("x", "F32", *table.shape, table.view(np.uint8))
    held.add("w", "F32", 3, 8, np.zeros((3, 32), np.uint8))
    plan = [embed("x", table), op("linear", [0], ["w"], 3)]
    executor = Executor(json.dumps(plan), held, 1)
    assert executor.collector({"w"}).covariance("w") is None
    assert executor.collector({"w"}, True).covariance("y") is None
    assert executor.collector({"w"}, True).covariance("w", 1) is None


def test_experts_have_covariances_of_their_own():
    experts, used, columns = 3, 2, 20
    logits = values(5, 40, experts)
    table = np.concatenate([logits, values(6, 40, columns)], axis=1)
    plan = [
        embed("x", table),
        op("part", [0], [], experts, parts=1, start=0),
        op("part", [0], [], columns, parts=1, start=experts),
        op("route", [1], [], 2 * used, used=used, normalize=True),
        op("expert_linear", [2, 3], ["up"], used * 5, experts=experts),
    ]
    held = Weights()
    held.add("x", "F32", *table.shape, table.view(np.uint8))
    held.add("up", "F32", experts * 5, columns, np.zeros((experts * 5, 4 * columns), np.uint8), 3)
    for threads in (1, 2):
        executor = Executor(json.dumps(plan), held, threads)
        collector = executor.collector({"up"}, True)
        executor.collect(executor.cache(1, 40), np.arange(40, dtype=np.uint32), collector)
        chosen = np.argsort(-logits, axis=1, kind="stable")[:, :used]
        for expert in range(experts):
            rows = [table[i, experts:].tolist() for i in range(40) if expert in chosen[i]]
            expected = covariance.products_of_columns(rows)
            same_bits(collector.covariance("up", expert), np.float64(expected), str(expert))


def test_output_errors():
    """f32 products of errors and covariances against exact sums."""
    errors, x = values(7, 6, 40) * np.float32(1e-2), values(8, 50, 40)
    matrix = (x.T.astype(np.float64) @ x) / 50
    expected = covariance.output_error(errors.tolist(), matrix.tolist())
    size = covariance.output_error(np.abs(errors).tolist(), np.abs(matrix).tolist())
    within_bound(output_error(errors, matrix), expected, (40 + 3) * 2.0**-24 * size)

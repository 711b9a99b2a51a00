"""The KV cache in f32, f16 and int8: the CPU executor against the oracle."""

import json

import numpy as np
import pytest

import fewbit
from fewbit._core import Executor, Weights
from reference import run
from reference.cache import Cache
from tests.compare import within_bound
from tests.differential.test_reference_ops import attend_bound, embed, op, stored, values
from tests.golden.loading import MODELS

KV_TYPES = ["f32", "f16", "int8"]


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("size", [12, 16, 20])
def test_attend(kv_type, size):
    """Both round keys and values to the same bits, so attention differs by f32 roundings only."""
    heads, kv_heads, n = 4, 2, 40
    q, k, v = (values(s, n, h * size) for s, h in ((1, heads), (2, kv_heads), (3, kv_heads)))
    k[:, :size] *= 30  # the heads need different scales
    k[5] = 0
    table = np.concatenate([q / 50, k / 50, v], axis=1)
    weights, plan, at = {"x": stored(table)}, [embed("x", table)], 0
    for name, columns in (("q", q), ("k", k), ("v", v)):
        width = columns.shape[1]
        weights[name] = stored(np.eye(width, table.shape[1], at, dtype=np.float32))
        plan.append(op("linear", [0], [name], width))
        at += width
    attributes = {"heads": heads, "kv_heads": kv_heads, "scale": 0.3, "window": 0}
    plan.append(op("attend", [1, 2, 3], [], heads * size, layer=0, **attributes))
    got, expected = both(plan, weights, n, kv_type)
    bounds = [
        attend_bound(q[i] / 50, k[: i + 1] / 50 * 1.01, v[: i + 1] * 1.01, None, attributes)
        for i in range(n)
    ]
    within_bound(got, expected, np.array(bounds))
    if kv_type != "f32":
        plain, _ = both(plan, weights, n, "f32")
        assert (plain != got).any()


def both(plan, weights, n, kv_type):
    """Return the last op's rows of CPU executor and oracle, from batches of 1, 19 and 20 tokens."""
    held, tokens = Weights(), np.arange(n, dtype=np.uint32)
    for name, w in weights.items():
        data = np.frombuffer(w.data, np.uint8).reshape(w.rows, -1)
        held.add(name, w.format, w.rows, w.columns, data)
    executor = Executor(json.dumps(plan), held, 2)
    cache, mine, got, expected = executor.cache(1, n, kv_type), Cache(n, kv_type), [], []
    for batch in np.split(tokens, [1, 20]):
        rows = np.arange(len(batch), dtype=np.uint32)
        got.append(executor.forward(cache, batch, np.zeros_like(batch), rows, "f32"))
        expected += run.forward(plan, weights, batch.tolist(), cache=mine)
    return np.concatenate(got), np.array(expected)


@pytest.mark.parametrize("kv_type", ["f16", "int8"])
def test_copied_and_truncated_sequences_have_the_same_keys_and_values(kv_type):
    model = fewbit.load(MODELS / "llama", kv=kv_type)
    ids = np.load(MODELS / "llama" / "ids.npy").astype(np.uint32)[:12]
    expected = model.logits(ids, acts="f32")
    cache = model.cache(2, 16)
    model.forward(cache, ids[:5], acts="f32")
    cache.copy(0, 1)
    cache.truncate(1, 3)
    again = model.forward(cache, ids[3:], np.ones(9, np.uint32), acts="f32")
    assert again.tobytes() == expected[3:].tobytes()

"""Keys and values kept in fewer bits: the core against the oracle, and what they cost."""

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

KINDS = ["f32", "f16", "int8"]


@pytest.mark.parametrize("kv", KINDS)
@pytest.mark.parametrize("size", [12, 16, 20])
def test_attend(kv, size):
    """Keys and values are rounded alike; then it is attention over what was kept."""
    heads, kv_heads, n = 4, 2, 40
    q, k, v = (values(s, n, h * size) for s, h in ((1, heads), (2, kv_heads), (3, kv_heads)))
    k[:, :size] *= 30  # each head has a scale of its own
    k[5] = 0
    table = np.concatenate([q / 50, k / 50, v], axis=1)
    weights, plan, at = {"x": stored(table)}, [embed("x", table)], 0
    for name, part in (("q", q), ("k", k), ("v", v)):
        width = part.shape[1]
        weights[name] = stored(np.eye(width, table.shape[1], at, dtype=np.float32))
        plan.append(op("linear", [0], [name], width))
        at += width
    attributes = {"heads": heads, "kv_heads": kv_heads, "scale": 0.3, "window": 0}
    plan.append(op("attend", [1, 2, 3], [], heads * size, layer=0, **attributes))
    got, expected = both(plan, weights, n, kv)
    bounds = [
        attend_bound(q[i] / 50, k[: i + 1] / 50 * 1.01, v[: i + 1] * 1.01, None, attributes)
        for i in range(n)
    ]
    within_bound(got, expected, np.array(bounds))
    if kv != "f32":
        plain, _ = both(plan, weights, n, "f32")
        assert (plain != got).any()


def both(plan, weights, n, kv):
    """Rows of the plan's last op by the core and by the oracle, tokens in uneven batches."""
    held, tokens = Weights(), np.arange(n, dtype=np.uint32)
    for name, w in weights.items():
        data = np.frombuffer(w.data, np.uint8).reshape(w.rows, -1)
        held.add(name, w.format, w.rows, w.columns, data)
    executor = Executor(json.dumps(plan), held, 2)
    cache, mine, got, expected = executor.cache(1, n, kv), Cache(n, kv), [], []
    for part in np.split(tokens, [1, 20]):
        rows = np.arange(len(part), dtype=np.uint32)
        got.append(executor.forward(cache, part, np.zeros_like(part), rows, "f32"))
        expected += run.forward(plan, weights, part.tolist(), cache=mine)
    return np.concatenate(got), np.array(expected)


@pytest.mark.parametrize("kv", ["f16", "int8"])
def test_a_copy_and_a_cut_keep_what_was_kept(kv):
    model = fewbit.load(MODELS / "llama", kv=kv)
    ids = np.load(MODELS / "llama" / "ids.npy").astype(np.uint32)[:12]
    whole = model.logits(ids, acts="f32")
    cache = model.cache(2, 16)
    model.forward(cache, ids[:5], acts="f32")
    cache.copy(0, 1)
    cache.truncate(1, 3)
    again = model.forward(cache, ids[3:], np.ones(9, np.uint32), acts="f32")
    assert again.tobytes() == whole[3:].tobytes()

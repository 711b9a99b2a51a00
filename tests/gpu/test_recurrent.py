"""Ops with a recurrent state on a card against the oracle, over several chunks and sequences."""

import numpy as np
import pytest

from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.stages import CHUNK_TOKENS
from reference import run
from reference.cache import Cache
from tests.compare import same_bits, within_bound
from tests.golden.loading import NOISE
from tests.gpu.running import U, embed, op, stored, upload, values
from tests.gpu.test_models import bound_model, forward

HEADS, KEY_HEADS, KEY_SIZE, SIZE = 4, 2, 12, 68
"""SIZE is more columns than a workgroup has lanes."""


def conv_plan(x):
    weight = values(1, x.shape[1], 4)
    plan = [embed("x", x), op("short_conv", [0], ["w"], x.shape[1], layer=0)]
    return plan, {"x": stored(x), "w": stored(weight)}


@pytest.mark.parametrize("batch", [512, 7])
def test_short_conv(card, batch):
    """Two interleaved sequences; in one batch and in small ones."""
    x = values(2, 100, 72)
    plan, weights = conv_plan(x)
    sequences = [i % 3 // 2 for i in range(100)]
    executor = Executor(plan, upload(card, weights, plan), batch)
    got = forward(executor, executor.cache(2, 100), range(100), sequences)
    expected = run.forward(plan, weights, range(100), sequences=sequences, cache=Cache(100))
    sizes = {name: stored(np.abs(np.array(w.values))) for name, w in weights.items()}
    size = run.forward(plan, sizes, range(100), sequences=sequences, cache=Cache(100))
    within_bound(got, expected, 2 * 4 * U * np.array(size))


def delta_table(tokens):
    """Rows of q, k, v, decay and beta of a model's sizes: k has length 1, decay is negative."""
    rng = np.random.default_rng(3)
    q, k = (rng.normal(size=(tokens, KEY_HEADS, KEY_SIZE)) for _ in range(2))
    k /= np.linalg.norm(k, axis=2, keepdims=True)
    v = rng.normal(size=(tokens, HEADS * SIZE)) * 3
    decay = -rng.uniform(0.05, 1.2, (tokens, HEADS))
    beta = rng.uniform(0.1, 1, (tokens, HEADS))
    flat = [table.reshape(tokens, -1) for table in (q, k, v, decay, beta)]
    return np.float32(np.concatenate(flat, axis=1)), [table.shape[1] for table in flat]


def delta_plan(table, widths, sharing):
    plan, at = [embed("x", table)], 0
    for width in widths:
        plan.append(op("part", [0], [], width, parts=1, start=at))
        at += width
    kind = {"heads": HEADS, "key_heads": KEY_HEADS, "scale": 0.3, "sharing": sharing}
    return [*plan, op("delta_rule", [1, 2, 3, 4, 5], [], widths[2], layer=0, **kind)]


def delta_bound(table, widths, sharing):
    """Run the rule on magnitudes and on errors in U; each step adds its own errors.

    A decay factor is exp of a difference of sums of up to CHUNK_TOKENS decays: CHUNK_TOKENS
    roundings of the sum, and the error of exp. A product with S sums KEY_SIZE products, one with
    the chunk's updates up to CHUNK_TOKENS.
    """
    q, k, v, decay, beta = np.split(np.float64(table), np.cumsum(widths)[:-1], axis=1)
    owner = [
        h % KEY_HEADS if sharing == "turns" else h // (HEADS // KEY_HEADS) for h in range(HEADS)
    ]
    bounds = np.zeros_like(v).reshape(len(table), HEADS, SIZE)
    summed = CHUNK_TOKENS * np.abs(decay).max()
    fading, adding = CHUNK_TOKENS * summed + 2 * (3 + 2 * summed), KEY_SIZE + 2 * CHUNK_TOKENS + 4
    for head in range(HEADS):
        keys, queries = (np.abs(x.reshape(-1, KEY_HEADS, KEY_SIZE)[:, owner[head]]) for x in (k, q))
        size, error = np.zeros((KEY_SIZE, SIZE)), np.zeros((KEY_SIZE, SIZE))
        for t in range(len(table)):
            fade = np.exp(decay[t, head])
            size, error = fade * size, fade * (error + fading * size)
            told, wrong = keys[t] @ size, keys[t] @ error
            u = beta[t, head] * (np.abs(v.reshape(-1, HEADS, SIZE)[t, head]) + told)
            moved = beta[t, head] * (wrong + adding * told) + 3 * u
            size, error = size + np.outer(keys[t], u), error + np.outer(keys[t], moved + 2 * u)
            bounds[t, head] = 0.3 * (queries[t] @ error + (adding + 1) * (queries[t] @ size))
    return U * bounds.reshape(len(table), -1)


@pytest.mark.parametrize("sharing", ["runs", "turns"])
def test_delta_rule(card, sharing):
    """Over three chunks."""
    table, widths = delta_table(CHUNK_TOKENS * 2 + 9)
    plan, weights = delta_plan(table, widths, sharing), {"x": stored(table)}
    executor = Executor(plan, upload(card, weights, plan))
    tokens = range(len(table))
    got = forward(executor, executor.cache(1, len(table)), tokens)
    expected = run.forward(plan, weights, tokens)
    bound = delta_bound(table, widths, sharing)
    loose = np.median(bound / np.maximum(np.abs(expected), 1e-3))
    assert loose < 0.05, "the bound is too loose to test anything"
    within_bound(got, expected, bound)


def test_pieces_and_neighbours_change_no_bit(card):
    """In one call, token by token, and interleaved with another sequence."""
    table, widths = delta_table(CHUNK_TOKENS + 9)
    plan, weights = delta_plan(table, widths, "runs"), {"x": stored(table)}
    executor = Executor(plan, upload(card, weights, plan))
    tokens = list(range(len(table)))
    together = forward(executor, executor.cache(1, len(table)), tokens)
    cache = executor.cache(3, len(table))
    same_bits(np.concatenate([forward(executor, cache, [t], [1]) for t in tokens]), together)
    both = [t for token in tokens for t in (token, token)]
    rows = forward(executor, cache, both, [2, 0] * len(tokens))
    same_bits(rows[::2], together)
    same_bits(rows[1::2], together)


MODELS = ["qwen3_next", "qwen3_5"]


@pytest.mark.parametrize("name", MODELS)
def test_states_go_back(card, name):
    """`truncate` can go back to any token of the last two chunks."""
    g, executor = bound_model(card, name)
    tokens = np.resize(g.ids, 3 * CHUNK_TOKENS)
    together = forward(executor, executor.cache(1, len(tokens)), tokens)
    cache = executor.cache(1, len(tokens))
    forward(executor, cache, tokens[: 2 * CHUNK_TOKENS + 5])
    for length in (2 * CHUNK_TOKENS + 2, 2 * CHUNK_TOKENS, 2 * CHUNK_TOKENS - 1, CHUNK_TOKENS):
        assert cache.reachable(0, length) == length
        cache.truncate(0, length)
        rest = forward(executor, cache, tokens[length : 2 * CHUNK_TOKENS + 5])
        within_bound(rest, together[length : 2 * CHUNK_TOKENS + 5], NOISE)
    assert cache.reachable(0, CHUNK_TOKENS - 1) == 0
    with pytest.raises(ValueError, match="its recurrent state can take back only the last 37"):
        cache.truncate(0, CHUNK_TOKENS - 1)
    cache.truncate(0, 0)
    same_bits(forward(executor, cache, tokens), together)


@pytest.mark.parametrize("name", MODELS)
def test_copies_and_resets(card, name):
    g, executor = bound_model(card, name)
    cache = executor.cache(3, len(g.ids))
    forward(executor, cache, g.ids[:10], [1] * 10)
    cache.copy(1, 2)
    for sequence in (2, 1):
        rest = forward(executor, cache, g.ids[10:], [sequence] * (len(g.ids) - 10))
        within_bound(rest, g.logits[10:], NOISE)
    cache.reset()
    within_bound(forward(executor, cache, g.ids, [2] * len(g.ids)), g.logits, NOISE)

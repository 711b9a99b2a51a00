"""Recurrent ops on the CPU executor against the oracle: convolution, decay, the delta rule."""

import numpy as np
import pytest

from reference import recurrent
from tests.compare import same_bits, within_bound
from tests.differential.plans import U, both, embed, op, stored, values

CHUNK_TOKENS = 32
"""Positions that the CPU computes together before it updates the state."""


def slices(plan, sizes):
    """Append ops that cut value 0 into `sizes` columns; return their indices."""
    at, found = 0, []
    for size in sizes:
        plan.append(op("part", [0], [], size, parts=1, start=at))
        found.append(len(plan) - 1)
        at += size
    return found


@pytest.mark.parametrize(("channels", "kernel"), [(1, 1), (16, 4), (33, 3), (300, 2), (20, 40)])
def test_short_conv(channels, kernel):
    """Equal bits: one fused multiply-add per position, the oldest first."""
    x, w = values(1, 50, channels), values(2, channels, kernel)
    conv = op("short_conv", [0], ["w"], channels, layer=0)
    for count in (1, 5, 50):
        same_bits(*both([embed("x", x), conv], {"x": stored(x), "w": stored(w)}, range(count)))


@pytest.mark.parametrize("width", [1, 16, 33])
def test_log_decay(width):
    """Both compute in binary64 and round once; their math libraries may differ by half a unit."""
    x, rate, bias = values(3, 6, width) * 10, -np.abs(values(4, width)), values(5, width)
    x[0] = np.float32(-120)
    x[1] = np.float32(120)
    plan = [embed("x", x), op("log_decay", [0], ["rate", "bias"], width)]
    weights = {"x": stored(x), "rate": stored(rate), "bias": stored(bias)}
    got, expected = both(plan, weights, range(6))
    within_bound(got, expected, 2 * U * np.abs(expected))


@pytest.mark.parametrize("sharing", ["runs", "turns"])
@pytest.mark.parametrize(
    ("heads", "key_heads", "key_size", "value_size"),
    [(1, 1, 1, 1), (2, 1, 8, 16), (4, 2, 16, 5), (6, 3, 20, 33)],
)
def test_delta_rule(heads, key_heads, key_size, value_size, sharing):
    """The error stays within `delta_bound`; 70 tokens take more than two chunks."""
    keys, width, rng = key_heads * key_size, heads * value_size, np.random.default_rng(6)
    q, k = (unit(rng.normal(size=(70, key_heads, key_size))).reshape(70, keys) for _ in range(2))
    v = values(7, 70, width)
    decay, beta = -rng.uniform(0, 0.4, (70, heads)), rng.uniform(0, 0.5, (70, heads))
    decay[20] = -50  # clears the state
    beta[30] = 0
    table = np.float32(np.concatenate([q, k, v, decay, beta], axis=1))
    sizes = [keys, keys, width, heads, heads]
    plan = [embed("x", table)]
    inputs = slices(plan, sizes)
    shape = {"heads": heads, "key_heads": key_heads, "scale": 0.25, "sharing": sharing}
    plan.append(op("delta_rule", inputs, [], width, layer=0, **shape))
    for count in (1, 33, 70):
        got, expected = both(plan, {"x": stored(table)}, range(count))
        bound = delta_bound(table[:count], sizes, shape, key_size, value_size)
        within_bound(got, expected, bound, f"{count} tokens")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def delta_bound(rows, sizes, shape, key_size, value_size):
    """Return the roundings of a token times the result without cancellation, for each token.

    A token's own sums have `key_size` and up to `CHUNK_TOKENS` products, each of two factors with
    `exp`, whose argument is a difference of sums of decays: CHUNK_TOKENS roundings, at most 64 in
    size. Where q, k and v are positive and updates are added nothing cancels, so no value is
    smaller than the one its error comes from.
    """
    state = recurrent.zeros(shape["heads"], key_size, value_size)
    cuts = np.cumsum(sizes)[:-1]
    bounds = []
    for index, row in enumerate(np.float64(rows)):
        q, k, v, decay, beta = (x.tolist() for x in np.split(row, cuts))
        q, k, v, minus = np.abs(q), np.abs(k), np.abs(v), [-b for b in beta]
        # u = beta (v + S^T k) with S >= 0: beta's sign is flipped, and with it that of S.
        flipped = recurrent.delta_rule(
            q.tolist(), k.tolist(), (-v).tolist(), decay, minus, state, **shape
        )
        steps = (index + 1) * (key_size + CHUNK_TOKENS * 4 + 2 * 64 + 10)
        bounds.append([steps * U * abs(y) + 1e-30 for y in flipped])
    return np.array(bounds)

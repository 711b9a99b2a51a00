"""Choose a token from a row of logits: top-k, top-p, min-p, temperature, then one draw.

A probability is a whole number, exp(logit - largest) in units of 2^-40, so sums have one value
whatever their order. Random numbers come from a counter: they depend on a sequence's seed and a
token's position alone.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

Row = Sequence[float]

UNIT = 2.0**40
"""The largest probability as a whole number."""
LEAST = -700.0
"""Below this, exp is 0."""
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
"""ln 2 as a sum; the first has zeros at its end, so its product with a whole number is exact."""
LOG2_E = 1.4426950408889634
SERIES = [1.0]
"""1/13!, 1/12! .. 1/0!, each made from its neighbour by one division."""
for _k in range(1, 14):
    SERIES.insert(0, SERIES[0] / _k)


def exp(a: float) -> float:
    """Return e^a for a <= 0 within two units in the last place, by plain arithmetic.

    >>> exp(0.0), exp(-701.0), abs(exp(-1.0) - math.exp(-1.0)) < 1e-16
    (1.0, 0.0, True)
    """
    if a < LEAST:
        return 0.0
    n = round(a * LOG2_E)
    r = a - n * LN2_HIGH - n * LN2_LOW
    series = 0.0
    for coefficient in SERIES:
        series = series * r + coefficient
    return math.ldexp(series, n)


def weight(a: float) -> int:
    """Return exp(a) for a <= 0 in units of 2^-40, to nearest even.

    >>> weight(0.0) == 2**40, weight(-28.5)
    (True, 0)
    """
    return round(exp(a) * UNIT)


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Return four random words of 32 bits: Philox4x32-10 (Salmon et al., SC 2011).

    >>> [f"{word:08x}" for word in philox([0, 0, 0, 0], [0, 0])]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    mask = 0xFFFFFFFF
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [b >> 32 ^ c[1] ^ k[0], b & mask, a >> 32 ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def random_bits(seed: int, position: int) -> int:
    """Return 64 random bits for the token at `position` of a sequence.

    >>> f"{random_bits(0, 0):x}"
    'e169c58d6627e8d5'
    """
    mask = 0xFFFFFFFF
    words = philox([position & mask, position >> 32, 0, 0], [seed & mask, seed >> 32])
    return words[1] << 32 | words[0]


def allow(logits: Row, allowed: Container[int]) -> list[float]:
    """Return logits with -inf for tokens that are not allowed.

    >>> allow([1.0, 2.0], {1})
    [-inf, 2.0]
    """
    return [x if token in allowed else -math.inf for token, x in enumerate(logits)]


def choose(
    logits: Row, temperature: float, top_k: int, top_p: float, min_p: float, random: int
) -> int | None:
    """Return the token that `random`, 64 bits, draws; None for a row without a softmax.

    Temperature 0 takes the likeliest token, of equal ones the lowest id. The draw goes through the
    tokens that are kept, after a top-k from the likeliest on, otherwise in the order of their ids.

    >>> row = [math.log(p) for p in (0.1, 0.6, 0.3)]
    >>> choose(row, 0, 0, 1.0, 0.0, 0), choose(row, 1.0, 0, 1.0, 0.0, 2**63)
    (1, 1)
    >>> choose(row, 1.0, 0, 1.0, 0.0, 0), choose(row, 1.0, 3, 1.0, 0.0, 0)
    (0, 1)
    >>> choose([math.nan, 0.0], 0, 0, 1.0, 0.0, 0)
    """
    top = -math.inf if any(map(math.isnan, logits)) else max(logits)
    if not math.isfinite(top):
        return None
    if temperature == 0:
        return list(logits).index(top)
    kept = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    kept = kept[: top_k or None]
    if top_p < 1:
        kept = fewest(kept, [weight(logits[token] - top) for token in kept], top_p)
    if min_p > 0:
        least = top + math.log(min_p)
        kept = [t for t in kept if logits[t] >= least] or kept[:1]
    if not top_k:
        kept = sorted(kept)
    return draw(kept, [weight((logits[t] - top) / temperature) for t in kept], random)


def fewest(tokens: Sequence[int], weights: Sequence[int], p: float) -> list[int]:
    """Return the first tokens, as few as reach the fraction `p` of all weights.

    >>> fewest([5, 6, 7], [6, 3, 1], 0.6), fewest([5, 6, 7], [6, 3, 1], 0.7)
    ([5], [5, 6])
    """
    total = sum(weights)
    target = min(math.ceil(p * float(total)), total)
    count = reached = 0
    while reached < target:
        reached += weights[count]
        count += 1
    return list(tokens[:count])


def draw(tokens: Sequence[int], weights: Sequence[int], random: int) -> int:
    """Return the token whose share of all weights holds `random` / 2^64.

    >>> [draw([5, 6], [1, 3], random) for random in (0, 2**62 - 1, 2**62, 2**64 - 1)]
    [5, 5, 6, 6]
    """
    place = random * sum(weights) >> 64
    for token, each in zip(tokens, weights, strict=True):
        if place < each:
            return token
        place -= each
    raise AssertionError("a place lies below the sum of all weights")

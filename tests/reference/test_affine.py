"""Properties of the affine formats: error at most half a step, 0 is exact, more bits are better."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.affine import asymmetric, in_blocks, restore, symmetric
from reference.formats import decode_row, encode_row, groups_of, row_bytes
from tests.compare import same_bits, within_bound

NAMES = [f"{kind}{bits}" for kind in ("sym", "asym") for bits in range(1, 9)]
EPS = 2.0**-23
rows = st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=80)


@settings(deadline=None)
@given(rows, st.sampled_from(NAMES[1:]), st.integers(1, 40))
def test_half_a_step(x, name, group):
    """Errors stay within half a step plus a few f32 roundings of the largest value.

    The zero point of asym is rounded too, and clamping a code can add that half step.
    """
    x = [v if abs(v) > 1e-30 else 0.0 for v in x]
    full = f"{name}-g{group}"
    data = encode_row(x, full)
    assert len(data) == row_bytes(full, len(x))
    steps = [g.scale for g in groups_of(data, full, len(x)) for _ in g.levels]
    fraction = 0.5 if name.startswith("sym") else 1.0
    bound = np.array(steps) * fraction + 4 * EPS * max(map(abs, x))
    within_bound(decode_row(data, full, len(x)), x, bound, full)


@given(rows, st.sampled_from(NAMES[1:]))
def test_zero_stays_zero(x, name):
    values = decode_row(encode_row([0.0, *x], f"{name}-g16"), f"{name}-g16", len(x) + 1)
    assert values[0] == 0


@given(rows, st.integers(1, 8))
def test_values_that_were_decoded_encode_to_themselves(x, bits):
    """Decoded values are on the grid, so encoding them again changes nothing."""
    name = f"sym{bits}-g8"
    once = decode_row(encode_row(x, name), name, len(x))
    twice = decode_row(encode_row(once, name), name, len(x))
    within_bound(twice, once, 4 * EPS * np.abs(once), name)


@pytest.mark.parametrize("kind", ["sym", "asym"])
def test_more_bits_are_better(kind):
    x = np.float32(np.random.default_rng(1).normal(size=256)).tolist()
    errors = []
    for bits in range(2, 9):
        name = f"{kind}{bits}-g32"
        got = np.array(decode_row(encode_row(x, name), name, 256))
        errors.append(float(((got - x) ** 2).mean()))
    assert all(a > 3 * b for a, b in itertools.pairwise(errors))


def test_short_last_group_is_padded_with_zero_bits():
    name, x = "asym3-g16", [1.0, -2.0, 0.5]
    data = encode_row([*[0.25] * 16, *x], name)
    last = data[row_bytes(name, 16) :]
    assert len(last) == 5 + 6
    assert last[7:] == bytes(4)
    same_bits(decode_row(data, name, 19)[16:], decode_row(encode_row(x, name), name, 3))


@given(rows.filter(lambda x: max(x) > min(x)), st.integers(2, 8))
def test_functions_of_the_article(x, bits):
    levels, scale = symmetric(x, bits)
    within_bound(restore(levels, scale), x, scale * 0.5000001)
    levels, scale, zero = asymmetric(x, bits)
    within_bound(restore(levels, scale, zero), x, scale * 1.0000001)
    assert in_blocks(x, bits, len(x)) == restore(levels, scale, zero)

"""Matrix products in tiles on a card: ragged shapes, biases, residual sums, slices."""

import numpy as np
import pytest

from fewbit.formats.table import FORMATS, find_format
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.repack import repack
from reference.linear import product_f64
from tests.compare import within_bound
from tests.gpu.running import (
    U,
    both,
    embed,
    linear_bound,
    op,
    rounded_bound,
    run_gpu,
    stored,
    values,
)
from tests.gpu.test_formats import AFFINE

SHAPES = [(64, 64, 64), (70, 130, 96), (1, 65, 32), (129, 7, 160)]
"""Rows of W, rows of x, columns: full tiles, and ragged ones, some of them almost empty."""


@pytest.mark.parametrize("name", ["F16", "Q5_1", "sym4-g16"])
@pytest.mark.parametrize(("rows", "tokens", "columns"), SHAPES)
def test_tiles(card, name, rows, tokens, columns):
    w, x = stored(values(1, rows, columns) * 0.1, name), values(2, tokens, columns)
    plan = [embed("x", x), op("linear", [0], ["w"], rows)]
    got = run_gpu(card, plan, {"x": stored(x), "w": w}, range(tokens))
    within_bound(got, [product_f64(row.tolist(), w) for row in x], linear_bound(x, w))


@pytest.mark.parametrize("name", ["Q8_0", "Q4_1", "asym3-g16", "asym2-g64", "MXFP4"])
@pytest.mark.parametrize(("rows", "tokens", "columns"), SHAPES)
def test_int8_tiles(card, name, rows, tokens, columns):
    """Scales per 16 or 32 columns, with and without minimums."""
    w, x = stored(values(3, rows, columns) * 0.1, name), values(4, tokens, columns)
    plan = [embed("x", x), op("linear", [0], ["w"], rows)]
    got, expected = both(card, plan, {"x": stored(x), "w": w}, range(tokens), acts="int8")
    within_bound(got, expected, rounded_bound(x, w))


@pytest.mark.parametrize("acts", ["f64", "int8"])
@pytest.mark.parametrize("small", [False, True], ids=["", "cut"])
@pytest.mark.parametrize("takes", [False, True], ids=["", "taken"])
def test_bias_and_residual_sum(card, adapter, acts, small, takes):
    """A bias and a following `add`, also with slices of the matrix and with rows after `take`."""
    if small:
        card = Device(adapter, max_binding=16384)
    w, bias, x = stored(values(5, 96, 96) * 0.1, "Q8_0"), values(6, 96), values(7, 70, 96)
    weights = {"x": stored(x), "w": w, "b": stored(bias)}
    plan = [embed("x", x), *([op("take", [0], [], 96)] if takes else [])]
    first = len(plan) - 1
    plan += [op("linear", [first], ["w", "b"], 96), op("add", [first, first + 1], [], 96)]
    wanted = [*range(0, 70, 2), 1 + 66] if takes else list(range(70))
    wanted.sort()
    got, expected = both(card, plan, weights, range(70), outputs=wanted, acts=acts)
    bound = (rounded_bound if acts == "int8" else linear_bound)(x, w)[wanted]
    within_bound(got, expected, 2 * bound + 3 * U * (np.abs(bias) + np.abs(expected)))


@pytest.mark.parametrize("name", [*FORMATS, *AFFINE])
def test_scale_groups_are_those_of_the_oracle(name):
    """The columns that share a scale in the shaders, and whether there is a minimum."""
    found = find_format(name)
    if found.is_float or (name in AFFINE and found.block % 16):
        return
    w = stored(values(8, 1, 4 * found.block), name)
    data = np.frombuffer(w.data, np.uint8).reshape(1, -1)
    constants = repack(name, 1, w.columns, data).constants
    (group,) = w.groups[0]
    assert constants["SCALE_GROUP"] == min(len(group.levels), 32)
    assert constants["HAS_MINIMUM"] == (group.minimum is not None)

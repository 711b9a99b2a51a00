"""Every format on a card against the oracle: products, rounded activations, embedding tables."""

from dataclasses import replace

import numpy as np
import pytest

from fewbit.errors import ShapeError, UnsupportedError
from fewbit.formats.table import FORMATS, find_format
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.executor import Executor
from reference.legacy import Group
from reference.linear import product_f64
from tests.compare import same_bits, within_bound
from tests.gpu.running import (
    U,
    both,
    embed,
    linear_bound,
    op,
    rounded_bound,
    run_gpu,
    stored,
    upload,
    values,
    weight_sizes,
)

AFFINE = [
    *(f"{kind}{bits}-g32" for kind in ("sym", "asym") for bits in range(1, 9)),
    *("sym4-g16", "asym3-g64", "asym4-g20", "sym8-g256", "asym5-g12", "sym3-g100"),
]
NAMES = [*FORMATS, *AFFINE]


def columns(name: str) -> int:
    """At least two blocks; for affine formats the last group is short."""
    block = find_format(name).block
    return 132 if name in AFFINE else max(2 * block, 96)


@pytest.mark.parametrize("name", NAMES)
def test_linear(card, name):
    """A few tokens one by one, then many in a tile; the rows of W do not fill a tile."""
    size = columns(name)
    w = stored(values(1, 21, size) * 0.1, name)
    for tokens in (2, 9):
        x = values(2, tokens, size)
        plan = [embed("x", x), op("linear", [0], ["w"], 21)]
        got = run_gpu(card, plan, {"x": stored(x), "w": w}, list(range(tokens)))
        exact = [product_f64(row.tolist(), w) for row in x]
        within_bound(got, exact, linear_bound(x, w), f"{name}, {tokens} tokens")


@pytest.mark.parametrize("name", NAMES)
def test_linear_with_rounded_activations(card, name):
    """If x * 127 / amax is close to a half, a card's division may round to the other side.

    Products are integer products, or f32 if the last group of 32 columns is short.
    """
    for size in {columns(name), columns(name) // 32 * 32}:
        w, bias = stored(values(3, 21, size) * 0.1, name), values(4, 21)
        for tokens in (1, 9):
            x = values(5, tokens, size)
            weights = {"x": stored(x), "w": w, "b": stored(bias)}
            plan = [embed("x", x), op("linear", [0], ["w", "b"], 21)]
            got, expected = both(card, plan, weights, list(range(tokens)), acts="int8")
            bound = rounded_bound(x, w) + 2 * U * np.abs(expected)
            within_bound(got, expected, bound, f"{name}, {tokens} tokens of {size} columns")


def test_a_card_without_integer_products(card):
    """Metal emulates products of four bytes, which is slower than f32 products."""
    other = Device(replace(card.adapter, backend="Metal"))
    w, x = stored(values(3, 21, 96), "Q4_1"), values(5, 1, 96)
    plan, weights = [embed("x", x), op("linear", [0], ["w"], 21)], {"x": stored(x), "w": w}
    executor = Executor(plan, upload(other, weights))
    assert forms(executor) == ("dots", "tile_f32")
    for tokens in ([0], [0] * 9):
        rows = [run_gpu(device, plan, weights, tokens, acts="int8") for device in (card, other)]
        within_bound(rows[1], rows[0], np.repeat(4 * linear_bound(x, w), len(tokens), axis=0))


def test_which_products_are_integer_products(card):
    """Integer formats whose rows are multiples of 32 columns."""
    found = {}
    for name, size in (("Q8_0", 96), ("IQ2_XS", 512), ("sym4-g16", 132), ("BF16", 96)):
        w, x = stored(values(3, 21, size), name), values(5, 1, size)
        plan, weights = [embed("x", x), op("linear", [0], ["w"], 21)], {"x": stored(x), "w": w}
        executor = Executor(plan, upload(card, weights))
        found[name] = forms(executor)
    int8, f32 = ("dots_int8", "tile_int8"), ("dots", "tile_f32")
    assert found == {
        "Q8_0": int8, "IQ2_XS": int8, "sym4-g16": f32, "BF16": f32,
    }  # fmt: skip


def forms(executor):
    """The files of the last product, for few and for many tokens."""
    stage = executor.program("int8").stages[-1]
    return stage.files[1], stage.tiles.files[1]


def test_rounding_is_done(card):
    """f32 and int8 results differ by more than the bounds above allow."""
    x, w = values(5, 1, 96), stored(values(3, 21, 96), "Q8_0")
    plan, weights = [embed("x", x), op("linear", [0], ["w"], 21)], {"x": stored(x), "w": w}
    plain, rounded = (run_gpu(card, plan, weights, [0], acts=acts) for acts in ("f32", "int8"))
    assert np.abs(plain - rounded).max() > 100 * linear_bound(x, w).max()


@pytest.mark.parametrize("name", NAMES)
def test_embed(card, name):
    """The same bits, except for formats with minimums: one fused multiply-add rounds once."""
    w = stored(values(6, 7, columns(name)) * 0.1, name)
    got = run_gpu(card, [op("embed", [], ["w"], w.columns)], {"w": w}, [6, 0, 3])
    expected = np.float32([w.row(row) for row in (6, 0, 3)])
    if has_minima(w):
        within_bound(got, expected, 3 * U * weight_sizes(w)[[6, 0, 3]])
    else:
        same_bits(got, expected)


def has_minima(w) -> bool:
    if find_format(w.format).is_float:
        return False
    first: Group = w.groups[0][0]
    return first.minimum is not None


@pytest.mark.parametrize("name", ["F32", "IQ1_M"])
def test_tensors_beyond_a_binding_are_split_by_rows(adapter, name):
    """As matrices and as tables; 16 KiB hold a few rows of F32."""
    small = Device(adapter, max_binding=16384)
    w = stored(values(8, 150 if name == "F32" else 1200, 512) * 0.1, name)
    for tokens in (2, 9):
        plan = [op("embed", [], ["w"], 512), op("linear", [0], ["w"], w.rows)]
        ids = [w.rows - 1, 0, 77, 3, 120, 8, 9, 10, 64][:tokens]
        got = run_gpu(small, plan, {"w": w}, ids, batch=5)
        x = np.float32([w.row(i) for i in ids])
        exact = [product_f64(row.tolist(), w) for row in x]
        within_bound(got, exact, 2 * linear_bound(x, w), name)


def test_refusals(card):
    odd, five = stored(values(1, 4, 6)), stored(values(1, 4, 20), "sym4-g5")
    with pytest.raises(ShapeError, match="a multiple of 4 elements, found 6"):
        run_gpu(card, [op("embed", [], ["w"], 6)], {"w": odd}, [0])
    with pytest.raises(UnsupportedError, match="no sym4-g5: groups must be a multiple of 4"):
        run_gpu(card, [op("embed", [], ["w"], 20)], {"w": five}, [0])

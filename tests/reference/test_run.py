"""The oracle's plan runner (sequences, traces, errors), and its products by their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbit.formats.table import find_format
from reference import linear, run
from reference.f32 import f32, fma
from reference.formats import encode_row
from reference.weights import Weight
from tests.compare import same_bits, within_bound
from tests.golden.loading import load

FORMATS = ["Q8_0", "Q4_0", "Q5_1", "Q4_K", "Q6_K", "Q2_K", "Q3_K", "IQ2_S", "asym4-g64", "sym1-g16",
           "asym3-g96"]  # fmt: skip


def test_sequences_side_by_side():
    """Two sequences in one step give the same logits as each sequence alone."""
    g = load("mistral-swa")
    a, b = g.ids[:9], g.ids[9:16]
    alone = [run.forward(g.plan, g.weights, ids) for ids in (a, b)]
    cache = run.Cache()
    mixed = [a[0], b[0], a[1], b[1], a[2]]
    first = run.forward(g.plan, g.weights, mixed, cache=cache, sequences=[3, 1, 3, 1, 3])
    rest_a = run.forward(g.plan, g.weights, a[3:], cache=cache, sequences=[3] * 6)
    rest_b = run.forward(g.plan, g.weights, b[2:], cache=cache, sequences=[1] * 5, outputs=[4])
    same_bits(np.float32([first[0], first[2], first[4], *rest_a]), np.float32(alone[0]))
    same_bits(np.float32([first[1], first[3], *rest_b]), np.float32([*alone[1][:2], alone[1][6]]))


def test_trace_has_the_value_of_every_op():
    g = load("qwen3-alt")
    trace: list = []
    logits = run.forward(g.plan, g.weights, g.ids[:3], outputs=[2], trace=trace)
    assert [len(rows[0]) for rows in trace] == [op["width"] for op in g.plan]
    assert trace[-1] == logits


@pytest.mark.parametrize("change", [{"op": "rms_morn"}, {"eps": None}, {"more": 1}])
def test_unknown_ops_and_attributes_are_refused(change):
    g = load("qwen3-alt")
    op = {**g.plan[1], **change}
    if change.get("eps", 1) is None:
        del op["eps"]
    with pytest.raises(ValueError, match=r"op 1: .* is unknown"):
        run.forward([g.plan[0], op], g.weights, [1])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMATS))
def test_int8_is_its_definition(seed, name):
    """The product equals a loop over single elements that finds the groups by itself."""
    rng = np.random.default_rng(seed)
    columns = 512 if find_format(name).block == 256 else 96
    x = np.float32(rng.normal(size=columns) * 10 ** rng.uniform(-3, 3)).tolist()
    rows = np.float32(rng.normal(size=(2, columns))).tolist()
    w = Weight("F32", 2, columns, np.float32(rows).tobytes())
    w = Weight(name, 2, columns, b"".join(encode_row(row, name) for row in w.values))
    expected = [int8_product(x, [row[r] for row in w.groups]) for r in range(2)]
    same_bits(np.float32(linear.product_int8(x, w)), np.float32(expected), name)
    error = max(d for _, d in linear.round_activations(x, w.activation_group)) / 2
    slack = [error * sum(map(abs, values)) for values in w.values]
    sums = np.array(linear.magnitude(x, w)) * (columns + 3) * 2.0**-23
    within_bound(linear.product_int8(x, w), linear.product_f64(x, w), slack + sums, name)


def int8_product(x: list[float], groups: list) -> float:
    if groups[0].integer_scales is not None:
        return integer_scales_product(linear.round_activations(x, 256), groups)
    acts = linear.round_activations(x)
    owner = [g for g in groups for _ in g.levels]
    levels = [level for g in groups for level in g.levels]
    acc, start = 0.0, 0
    for at in range(1, len(x) + 1):
        if at < len(x) and owner[at] is owner[start] and at % 32:
            continue
        q = [acts[i // 32][0][i % 32] for i in range(start, at)]
        d, g = acts[start // 32][1], owner[start]
        dot = sum(a * b for a, b in zip(levels[start:at], q, strict=True))
        acc = fma(float(dot), f32(g.scale * d), acc)
        if g.minimum is not None:
            acc = fma(g.minimum, f32(d * sum(q)), acc)
        start = at
    return acc


def integer_scales_product(acts: list, groups: list) -> float:
    """Sum 256 columns element by element: weight = d * scale * level - dmin * minimum."""
    acc = 0.0
    for i, (q, d) in enumerate(acts):
        dot = low = 0
        owner = [g for g in groups[16 * i : 16 * i + 16] for _ in g.levels]
        levels = [level for g in groups[16 * i : 16 * i + 16] for level in g.levels]
        for g, level, a in zip(owner, levels, q, strict=True):
            s = g.integer_scales
            assert f32(s.d * s.scale) == g.scale
            dot += s.scale * level * a
            low += s.minimum * a
        shared = owner[0].integer_scales
        if owner[0].minimum is not None:
            scales = [(g.integer_scales, g.minimum) for g in owner]
            assert all(-f32(s.dmin * s.minimum) == minimum for s, minimum in scales)
            acc = fma(f32(float(low)), f32(-shared.dmin * d), acc)
        acc = fma(f32(float(dot)), f32(shared.d * d), acc)
    return acc


@pytest.mark.parametrize("name", ["F32", "BF16", "Q4_1", "sym3-g5"])
def test_f32_is_its_definition(name):
    rng = np.random.default_rng(7)
    x = np.float32(rng.normal(size=64)).tolist()
    rows = [encode_row(np.float32(rng.normal(size=64)).tolist(), name) for _ in range(3)]
    w = Weight(name, 3, 64, b"".join(rows))
    expected = []
    for row in w.values:
        acc = 0.0
        for a, b in zip(row, x, strict=True):
            acc = fma(a, b, acc)
        expected.append(acc)
    same_bits(np.float32(linear.product_f32(x, w)), np.float32(expected))
    bound = 64 * 2.0**-24 * np.array(linear.magnitude(x, w))
    within_bound(linear.product_f32(x, w), linear.product_f64(x, w), bound)


def test_odd_group_sizes_take_f32():
    odd = Weight.of([[1.0] * 40], "asym4-g20")
    assert not odd.takes_int8
    assert [Weight.of([[1.0] * 256], n).takes_int8 for n in FORMATS] == [True] * len(FORMATS)
    assert not Weight.of([[1.0]], "BF16").takes_int8

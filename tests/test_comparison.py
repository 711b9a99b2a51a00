"""The comparison's rows: sizes by hand, losses as `divergence` gives them alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fewbit.errors import FormatError
from fewbit.measure import comparison as compare
from fewbit.measure import evaluate
from fewbit.models import build_plan
from fewbit.plan.shapes import tensor_shapes
from fewbit.plan.sizes import sizes_of
from tests.bigram import ALPHABET, Bigram

TEXT = "".join(np.random.default_rng(6).choice(list(ALPHABET[:14]), 120))

# width 32, ffn 64, 2 heads and 1 key/value head of 16, vocabulary 15, one layer
LINEAR = {
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (16, 32),
    "blk.0.attn_v.weight": (16, 32),
    "blk.0.attn_output.weight": (32, 32),
    "blk.0.ffn_gate.weight": (64, 32),
    "blk.0.ffn_up.weight": (64, 32),
    "blk.0.ffn_down.weight": (32, 64),
    "output.weight": (15, 32),
}
NORMS = dict.fromkeys(("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"), (1, 32))


def test_shapes_are_the_plan_s() -> None:
    expected = {
        **LINEAR,
        **{f"{name}.weight": shape for name, shape in NORMS.items()},
        "token_embd.weight": (15, 32),
    }
    assert tensor_shapes(Bigram().plan) == expected


def test_sizes_by_hand() -> None:
    linear = sum(rows * columns for rows, columns in LINEAR.values())
    small = Bigram().quantize("Q4_0")
    found = sizes_of(small.plan, small.formats)
    assert found.weights == linear + 3 * 32 + 15 * 32
    q4 = 18 / 32
    assert found.bytes == q4 * linear + 3 * 32 * 4 + q4 * 15 * 32
    assert found.bytes_per_token == q4 * linear + 3 * 32 * 4 + q4 * 32
    assert found.bits_per_weight == 8 * found.bytes / found.weights


def test_a_tied_table_is_counted_and_read_once() -> None:
    model = Bigram()
    untied = sizes_of(model.plan, model.formats)
    model.config = dataclasses.replace(model.config, tied=True)
    model.plan = build_plan(model.config)
    tied = sizes_of(model.plan, model.formats)
    assert untied.bytes - tied.bytes == 15 * 32 * 4
    assert untied.bytes_per_token - tied.bytes_per_token == 32 * 4


def test_biases_are_counted() -> None:
    model = Bigram()
    before = sizes_of(model.plan, model.formats).weights
    model.config = dataclasses.replace(model.config, qkv_bias=True)
    model.plan = build_plan(model.config)
    assert sizes_of(model.plan, model.formats).weights - before == 32 + 16 + 16


def test_rows_hold_both_losses() -> None:
    base = Bigram()
    rows = compare.compare(base, ["Q8_0", "Q4_0"], TEXT, ctx=20)
    assert [row.format for row in rows] == ["F32", "Q8_0", "Q4_0"]
    assert rows[0].weights.kld.value == 0
    assert rows[0].fast == rows[0].weights, "floats take their activations as they are"
    for row in rows[1:]:
        model = base.quantize(row.format)
        for acts, found in (("f32", row.weights), ("int8", row.fast)):
            alone = evaluate.divergence(model, base, TEXT, ctx=20, acts=acts)
            assert (found.kld, found.ppl, found.acts) == (alone.kld, alone.ppl, acts)
        assert row.tokens_per_second > 0
        assert row.sizes == sizes_of(model.plan, model.formats)
    assert 0 < rows[1].weights.kld.value < rows[2].weights.kld.value


def test_progress_names_what_is_done() -> None:
    seen: list[str] = []
    compare.compare(
        Bigram(), ["Q8_0"], TEXT, ctx=20, progress=lambda done, total, text: seen.append(text)
    )
    assert seen == ["encoding Q8_0", *["measuring"] * 6]


def test_an_unknown_format_is_refused_before_anything_is_measured() -> None:
    base = Bigram()
    with pytest.raises(FormatError, match="unknown format `Q9_9`"):
        compare.compare(base, ["Q8_0", "Q9_9"], TEXT, ctx=20)
    assert base.calls == []

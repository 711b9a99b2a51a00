"""The built-in model against what llama.cpp and transformers measured on the same files.

Weights alone: llama-quantize's files, decoded and run by transformers in float32. With the fast
arithmetic: llama.cpp on the CPU, which rounds activations to int8 too, though with f16 scales, in
larger groups for K formats, and a base that rounds to bfloat16; hence the wider bounds there.
"""

from __future__ import annotations

import math

import pytest

from fewbit import load
from fewbit.demo import DEMO, demo_text
from fewbit.measure import comparison as compare
from fewbit.measure.comparison import Row
from tests.compare import within_bound

BASE_PPL = 36.7703
# format: PPL, mean KLD, 99 % KLD, same top of the weights alone; PPL, mean KLD of llama.cpp
PUBLISHED = {
    "Q8_0": (36.7738, 0.000171, 0.0008, 0.98807, 36.7758, 0.000432),
    "Q6_K": (36.8449, 0.001836, 0.0088, 0.96324, 36.8774, 0.002580),
    "Q4_K_M": (37.4511, 0.019615, 0.1055, 0.89510, 37.4940, 0.020375),
    "Q4_1": (37.7630, 0.026769, 0.1400, 0.87557, 37.7677, 0.027110),
    "Q4_0": (37.9694, 0.032789, 0.1604, 0.86904, 38.0006, 0.033197),
    "Q3_K_M": (38.7137, 0.051804, 0.2727, 0.84069, 38.7618, 0.052653),
    "Q2_K": (48.1848, 0.262216, 1.3608, 0.66495, 48.2239, 0.262983),
}


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    found = compare.compare(load(str(DEMO)), list(PUBLISHED), demo_text())
    return {row.format: row for row in found}


@pytest.mark.timeout(300)
def test_the_base_is_the_published_one(rows: dict[str, Row]) -> None:
    base = rows["BF16"].weights
    within_bound(base.ppl.value, BASE_PPL, 0.00005, "all printed digits")
    assert (base.sample.chunks, base.sample.tokens) == (48, 12_240)
    assert (base.kld.value, base.same_top.value) == (0, 1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_weights_alone_lose(rows: dict[str, Row], name: str) -> None:
    ppl, kld, worst, same_top, *_ = PUBLISHED[name]
    found = rows[name].weights
    within_bound(found.ppl.value, ppl, 0.01, "PPL")
    within_bound(found.kld.value, kld, 0.01 * kld, "mean KLD within 1 %")
    within_bound(found.kld_percentiles[99.0], worst, 0.01 * worst + 0.00005, "99 % KLD")
    within_bound(found.same_top.value, same_top, 3 / 12_240, "same top, three tokens of 12,240")


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_fast_arithmetic_adds(rows: dict[str, Row], name: str) -> None:
    ppl, kld = PUBLISHED[name][4:]
    row = rows[name]
    within_bound(row.fast.ppl.value, ppl, 0.05, "PPL")
    # llama.cpp rounds activations that meet K formats in groups of 256, fewbit in groups of 32
    least = row.weights.kld.value if "K" in name else 0.9 * kld
    assert row.weights.kld.value < row.fast.kld.value
    assert least < row.fast.kld.value < 1.1 * kld


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_two_columns_check_each_other(rows: dict[str, Row], name: str) -> None:
    # on text drawn from p itself, E[ln PPL(q) - ln PPL(p)] is the KL divergence
    found = rows[name].weights
    error = math.hypot(found.ln_ratio.error, found.kld.error)
    within_bound(found.ln_ratio.value, found.kld.value, 4 * error, "four standard errors")


def test_sizes_fall_with_the_bits(rows: dict[str, Row]) -> None:
    bits = [rows[name].sizes.bits_per_weight for name in ("BF16", "Q8_0", "Q6_K", "Q4_0", "Q2_K")]
    assert bits == sorted(bits, reverse=True)

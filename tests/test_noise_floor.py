"""The noise of a measurement is 0: a model does not diverge from itself, whatever runs beside it.

llama.cpp's own floor is that of its 16-bit base file; here base and model have the same bits.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import fewbit
from fewbit.measure.comparison import Row
from fewbit.measure.results import Estimate


def assert_nothing(row: Row) -> None:
    found = row.weights
    assert (found.kld, found.dp, found.rms_dp) == (Estimate(0, 0),) * 3
    assert found.kld_percentiles[100.0] == found.kld_percentiles[0.0] == 0
    assert found.dp_percentiles[100.0] == found.dp_percentiles[0.0] == 0
    assert found.same_top == Estimate(1, 0)
    assert found.ppl == found.ppl_base
    assert found.ln_ratio == Estimate(0, 0)


@pytest.mark.parametrize("alone", [False, True], ids=["side by side", "one by one"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_loaded_twice(threads: int, alone: bool, tmp_path: Path) -> None:
    base, again = (fewbit.load("demo", "cpu", threads=count) for count in (1, threads))
    found = fewbit.compare(
        base, ["Q4_0"], models={"again": again}, ctx=64, chunks=2, one_by_one=alone,
        results=tmp_path,
    )  # fmt: skip
    names = [row.format for row in found]
    assert names == ["BF16", "again", "Q4_0"]
    assert_nothing(found[0])
    assert_nothing(found[1])
    assert found[1].fast.kld == found[0].fast.kld, "int8 activations lose the same"
    assert found[2].weights.kld.value > 0.01


def test_a_format_encoded_twice_ties_exactly() -> None:
    base = fewbit.load("demo", "cpu")
    again = base.quantize("Q4_0")
    found = fewbit.compare(base, ["Q4_0"], models={"again": again}, ctx=64, chunks=2)
    pair = found.paired("again", "Q4_0")
    assert (pair.kld, pair.nll) == (Estimate(0, 0), Estimate(0, 0))
    assert (pair.p, pair.verdict) == (1.0, "tie")
    assert (pair.only_this, pair.only_other) == (0, 0)

"""Formats chosen for a number of bytes: within it, better than recipes, and as predicted."""

from __future__ import annotations

import pytest

import fewbit
from fewbit.improve.mixture import Mixture
from fewbit.plan.shapes import tensor_bytes

DEMO = fewbit.load("demo", "cpu")
TEXT = fewbit.demo_text()


@pytest.fixture(scope="module")
def calibration() -> fewbit.Calibration:
    return DEMO.calibrate(TEXT[: len(TEXT) // 2], windows=8)


def test_a_mixture_loses_less_than_a_recipe_of_its_bytes(calibration: fewbit.Calibration) -> None:
    recipe = DEMO.quantize("Q3_K_M")
    budget = sum(
        tensor_bytes(tensor.shape, recipe.formats[name])
        for name, tensor in DEMO.checkpoint.tensors.items()
    )
    found = DEMO.mixture(budget, calibration=calibration)
    assert found.bytes <= budget
    assert found.bytes > 0.995 * budget
    model = DEMO.quantize(found)
    assert model.formats == found.formats
    assert model.sizes.bytes <= recipe.sizes.bytes
    half = TEXT[len(TEXT) // 2 :]
    loss, theirs = (
        m.divergence(DEMO, half, chunks=3, acts="f32").kld.value for m in (model, recipe)
    )
    assert loss < 0.7 * theirs
    assert found.loss == pytest.approx(loss, rel=0.3)
    assert f"{found.bytes:,} bytes of tensors" in str(found)


def test_a_mixture_takes_no_options() -> None:
    found = Mixture("Q8_0", 0, {}, DEMO.quantize("Q8_0").formats, {})
    assert DEMO.quantize(found).formats == found.formats
    with pytest.raises(fewbit.InputError, match="a mixture takes no options"):
        DEMO.quantize(found, imatrix={})

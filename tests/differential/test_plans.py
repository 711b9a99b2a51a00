"""Random models of architectures without a golden model: the CPU executor against the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fewbit
from reference import run
from tests.compare import within_bound
from tests.golden.loading import NOISE, stored_weights
from tests.random_models import MAKERS, VOCAB


@pytest.mark.parametrize("name", MAKERS)
def test_logits(name: str, tmp_path: Path) -> None:
    model = fewbit.load(MAKERS[name](tmp_path))
    ids = np.random.default_rng(3).integers(0, VOCAB, 10).tolist()
    expected = run.forward(model.plan.to_dicts(), stored_weights(model), ids, acts="f64")
    found = model.logits(ids, acts="f32")
    within_bound(found, np.array(expected), NOISE, "the oracle's logits")
    assert np.std(found) > 1  # far larger than the allowed error


@pytest.mark.parametrize("name", ["mixtral", "qwen3_5_moe"])
def test_a_saved_model_loads_as_the_same_model(name: str, tmp_path: Path) -> None:
    model = fewbit.load(MAKERS[name](tmp_path / "m"))
    model.save(tmp_path / "m.gguf")
    again = fewbit.load(tmp_path / "m.gguf")
    assert [op["op"] for op in again.plan.to_dicts()] == [op["op"] for op in model.plan.to_dicts()]
    ids = list(range(9))
    found, expected = again.logits(ids, acts="f32"), model.logits(ids, acts="f32")
    within_bound(found, expected, NOISE, "the folder's logits")


def test_layers_between_have_no_experts(tmp_path: Path) -> None:
    """Dense layers between MoE layers (`decoder_sparse_step` 2) run; GGUF cannot describe them."""
    model = fewbit.load(MAKERS["qwen3_moe-between"](tmp_path / "m"))
    assert model.config.routing is not None
    assert (model.config.routing.dense, model.config.routing.normalize) == ({0, 2}, False)
    with pytest.raises(fewbit.UnsupportedError, match="cannot describe dense layers"):
        model.save(tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]

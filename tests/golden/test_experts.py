"""GPT-OSS with MXFP4 experts: transformers' logits on the CPU and in the oracle."""

from __future__ import annotations

import numpy as np

import fewbit
from reference import run
from reference.weights import Weight
from tests.compare import within_bound
from tests.golden.loading import MODELS, NOISE

FOLDER = MODELS / "gpt_oss-mxfp4"


def test_logits_on_the_cpu_and_in_the_oracle() -> None:
    model, ids = fewbit.load(FOLDER), np.load(FOLDER / "ids.npy")
    expected = np.load(FOLDER / "logits.npy")
    within_bound(model.logits(ids, acts="f32"), expected, NOISE, "cpu")
    weights = {}
    for name in model.plan.weights():
        data, format_ = model.data(name), model.formats[name]
        columns = model.checkpoint.tensors[name].shape[-1]
        weights[name] = Weight(format_, data.shape[0], columns, data.tobytes())
    found = run.forward(model.plan.to_dicts(), weights, ids.tolist())
    within_bound(np.float32(found), expected, NOISE, "reference")


def test_experts_stay_mxfp4() -> None:
    formats = fewbit.load(FOLDER).formats
    assert {f for name, f in formats.items() if name.endswith("_exps.weight")} == {"MXFP4"}

"""A model's identity changes with all that changes its predictions, and with nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.measure.identity import identity


@pytest.fixture
def model(tmp_path: Path) -> fewbit.Model:
    folder = tmp_path / "model"
    shutil.copytree(fewbit.DEMO, folder)
    return fewbit.load(folder, "cpu")


def test_what_changes_a_model(model: fewbit.Model) -> None:
    path = Path(model.checkpoint.path)
    name = "blk.0.ffn_down.weight"
    weights = {name: np.arange(1, model.tensor(name).shape[1] + 1, dtype=np.float32)}
    found = [
        identity(model),
        identity(fewbit.load(path, "cpu", kv="f16")),
        identity(model.quantize("Q4_K_M")),
        identity(model.quantize("Q4_K_M", options=fewbit.Options(pure=True))),
        identity(model.quantize("Q4_K_M", weights)),
        identity(model.quantize("Q4_K_M", {name: weights[name] * 2})),
    ]
    before = (path / "config.json").stat().st_mtime_ns
    os.utime(path / "config.json", ns=(before + 1, before + 1))
    found.append(identity(model))
    assert len(set(found)) == len(found)


def test_what_does_not(model: fewbit.Model) -> None:
    again = fewbit.load(model.checkpoint.path, "cpu", threads=1)
    assert identity(again) == identity(model)
    assert identity(again.quantize("Q4_0")) == identity(model.quantize("Q4_0"))

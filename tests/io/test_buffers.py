"""Tensors of a checkpoint that are no weights are passed over, whatever their dtype."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fewbit.errors import UnsupportedError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.files.names import is_buffer
from tests.golden.loading import MODELS

BUFFERS: dict[str, np.ndarray] = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    "model.rotary_emb.original_inv_freq": np.ones(8, np.float32),
    "model.layers.0.self_attn.rotary_emb.cos_cached": np.ones((16, 8), np.float32),
    "model.layers.0.self_attn.rotary_emb.sin_cached": np.ones((16, 8), np.float32),
    "model.position_ids": np.arange(16, dtype=np.int64)[None],
    "model.causal_mask": np.ones((8, 8), bool),
    "h.0.attn.bias": np.ones((1, 1, 8, 8), np.uint8),
    "transformer.h.0.attn.masked_bias": np.array(-1e4, np.float32),
    "model.layers.0.self_attn.k_scale": np.ones(1, np.float32),
    "model.layers.0.self_attn.v_scale": np.array(1, np.float32),
    "model.empty": np.zeros((0, 4), np.float32),
}
WEIGHTS = (
    "h.0.attn.c_attn.bias",
    "transformer.h.0.attn.c_proj.bias",
    "model.layers.0.self_attn.q_proj.bias",
    "model.layers.0.self_attn.q_proj.weight_scale",
    "model.layers.0.linear_attn.dt_bias",
)


def copied(tmp_path: Path, more: dict[str, np.ndarray]) -> Path:
    folder = shutil.copytree(MODELS / "llama", tmp_path / "llama")
    file = folder / "model.safetensors"
    save_file(load_file(file) | more, file)
    return folder


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_are_passed_over(name: str, tmp_path: Path) -> None:
    found = open_checkpoint(copied(tmp_path, {name: BUFFERS[name]}))
    plain = open_checkpoint(MODELS / "llama")
    assert list(found.tensors) == list(plain.tensors)


def test_weights_are_no_buffers() -> None:
    assert not any(is_buffer(name) for name in WEIGHTS)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight_scale", "model.other"])
def test_other_tensors_are_refused(name: str, tmp_path: Path) -> None:
    folder = copied(tmp_path, {name: np.ones(3, np.float32)})
    with pytest.raises(UnsupportedError, match=f"`{name}`"):
        open_checkpoint(folder)

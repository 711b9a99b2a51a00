"""Rope scaling in GGUF metadata means what llama.cpp makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewbit.files.gguf import fields_of
from fewbit.files.gguf_config import config_from_gguf
from fewbit.plan.config import Rope

PLAIN = {
    "embedding_length": 64, "feed_forward_length": 96, "block_count": 1, "context_length": 64,
    "attention.head_count": 4, "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "rope"),
    [
        ({}, Rope(1e4)),
        ({"rope.scaling.factor": 4.0}, Rope(1e4, "linear", 4.0)),
        ({"rope.scale_linear": 2.0}, Rope(1e4, "linear", 2.0)),
        ({"rope.scaling.factor": 4.0, "rope.scale_linear": 2.0}, Rope(1e4, "linear", 4.0)),
        ({"rope.scaling.factor": 0.0}, Rope(1e4)),
        ({"rope.scaling.type": "linear"}, Rope(1e4)),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, Rope(1e4)),
    ],
)
def test_a_factor_without_a_type_is_linear(keys: dict[str, object], rope: Rope) -> None:
    values = {f"llama.{key}": value for key, value in (PLAIN | keys).items()}
    metadata = dict(fields_of({"general.architecture": "llama"} | values))
    shapes = {"token_embd.weight": (96, 64), "output.weight": (96, 64)}
    assert config_from_gguf(metadata, shapes, {}, Path("m.gguf")).rope == rope
